//! Finds the facts out: from `/proc`, `/sys`, the state folder, other programs' answers, and the network. Touches all of
//! those; writes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::facts::{Facts, Host, Kit, Link, Port};
use super::firewall::{Packet, passes};
use super::sockets::{Listener, listeners};
use crate::config::{Addresses, Config};
use crate::dhcp4::{self, Interface};
use crate::kit::Kits;
use crate::mistakes::Mistake;

/// The user that the service of the package runs as.
const USER: &str = "swarmboot";

/// What to look at.
#[derive(Debug)]
pub struct Wanted {
    /// The interface that machines are on; that of the configuration if none is given.
    pub interface: Option<String>,
    /// The configuration, where it could be understood.
    pub config: Option<Config>,
    /// What is wrong with the configuration.
    pub mistakes: Vec<Mistake>,
    /// The state folder.
    pub state: PathBuf,
    /// How long to wait for other servers' answers.
    pub wait: Duration,
    /// The warnings of our server, if one answers on this host.
    pub server: Option<Vec<String>>,
}

/// Finds everything out. Takes as long as `wanted` says, and a few seconds.
pub async fn gather(wanted: Wanted) -> Facts {
    let Wanted { interface, config, mistakes, state, wait, server } = wanted;
    let name = interface.or_else(|| config.as_ref().map(|config| config.interface.clone()));
    let found = name.as_deref().and_then(|name| dhcp4::interface_address(name).ok());
    let answers = match &found {
        Some(interface) => Some(dhcp4::probe(interface, wait).await.map_err(|error| error.to_string())),
        None => None,
    };
    let gives_addresses = config.as_ref().is_some_and(|config| config.addresses != Addresses::Proxy);
    let ports = needed(config.as_ref());
    let local = tokio::task::spawn_blocking(move || {
        (ports_of(ports, found.as_ref()), link(name, found.as_ref()), kit(&state), host(state))
    });
    let (ports, link, kit, host) = local.await.unwrap_or_default();
    let root = nix::unistd::geteuid().is_root();
    Facts { root, server, mistakes, gives_addresses, link, answers, ports, kit, undriven: vec![], host }
}

fn link(name: Option<String>, found: Option<&Interface>) -> Link {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let mut others: Vec<String> = all
        .filter(|one| one.address.as_ref().is_some_and(|address| address.as_sockaddr_in().is_some()))
        .map(|one| one.interface_name)
        .collect();
    others.dedup();
    let folder = name.as_ref().map(|name| Path::new("/sys/class/net").join(name));
    let mtu = |folder: &Path| text(&folder.join("mtu"))?.parse::<u32>().ok();
    let below = folder.iter().flat_map(|folder| {
        // What a VLAN or bond is made of, and the ports of a bridge.
        let lower =
            names(folder).into_iter().filter_map(|name| Some(name.strip_prefix("lower_")?.to_owned()));
        lower.chain(names(&folder.join("brif"))).collect::<Vec<_>>()
    });
    let parts = below.filter_map(|part| {
        let mtu = mtu(&Path::new("/sys/class/net").join(&part))?;
        Some((part, mtu))
    });
    let mut parts: Vec<(String, u32)> = parts.collect();
    parts.sort();
    parts.dedup();
    // Reading it fails where the interface is down.
    let carrier = folder
        .as_deref()
        .filter(|folder| folder.exists())
        .map(|folder| text(&folder.join("carrier")).is_some_and(|carrier| carrier == "1"));
    let mtu = folder.as_deref().and_then(mtu);
    Link { name, others, address: found.map(|found| (found.address, found.prefix)), carrier, mtu, parts }
}

/// The ports that the server needs: protocol, number, purpose.
fn needed(config: Option<&Config>) -> Vec<(&'static str, u16, &'static str)> {
    let (http, swarm) = config.map_or((8069, 4001), |config| (config.http_port, config.swarm_port));
    let always = [
        ("udp", 67, "DHCP"),
        ("udp", 69, "TFTP"),
        ("udp", 4011, "PXE"),
        ("tcp", http, "boot HTTP"),
        ("tcp", swarm, "swarm"),
    ];
    let api = config.and_then(|config| config.api.as_ref()).map(|api| ("tcp", api.port, "API"));
    always.into_iter().chain(api).collect()
}

fn ports_of(needed: Vec<(&'static str, u16, &'static str)>, interface: Option<&Interface>) -> Vec<Port> {
    let owners = owners();
    let ruleset = ruleset();
    let own = interface.map_or(Ipv4Addr::UNSPECIFIED, |interface| interface.address);
    let port = |(protocol, number, purpose): (&'static str, u16, &'static str)| {
        let lists = ["", "6"]
            .map(|ending| text(Path::new(&format!("/proc/net/{protocol}{ending}"))).unwrap_or_default());
        // What listens on another address only does not matter; DHCP's sockets take every address of their interface.
        let matters = |one: &Listener| {
            one.port == number
                && (one.address.is_unspecified()
                    || own.is_unspecified()
                    || one.address == own
                    || number == 67)
        };
        let holders = lists.iter().flat_map(|list| listeners(list)).filter(matters);
        let named = holders
            .map(|one| owners.get(&one.inode).cloned().unwrap_or_else(|| "another program".to_owned()));
        let mut holders: Vec<String> = named.collect();
        holders.sort();
        holders.dedup();
        let opens = interface.and_then(|interface| opens(protocol, number, interface));
        let passes = ruleset.as_ref().map(|rules| {
            let interface = interface.map_or("", |interface| interface.name.as_str());
            passes(rules, Packet { protocol, port: number, interface })
        });
        Port { protocol, number, purpose, holders, opens, passes }
    };
    needed.into_iter().map(port).collect()
}

/// Whether the port can be opened as the server would; `None` where this process may not try.
fn opens(protocol: &str, port: u16, interface: &Interface) -> Option<bool> {
    let kind = if protocol == "udp" { Type::DGRAM } else { Type::STREAM };
    let socket = Socket::new(Domain::IPV4, kind, None).ok()?;
    let shares = port == 67 || port == 4011;
    let address = if shares { Ipv4Addr::UNSPECIFIED } else { interface.address };
    if shares {
        socket.set_reuse_address(true).ok()?;
        socket.bind_device(Some(interface.name.as_bytes())).ok()?;
    }
    match socket.bind(&SocketAddrV4::new(address, port).into()) {
        Ok(()) => Some(true),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Some(false),
        Err(_) => None,
    }
}

/// The processes that have sockets, by the sockets' numbers: name and id. Those of others only root sees.
fn owners() -> BTreeMap<u64, String> {
    let mut owners = BTreeMap::new();
    for process in names(Path::new("/proc")).into_iter().filter(|name| name.parse::<u32>().is_ok()) {
        let folder = Path::new("/proc").join(&process);
        let name = text(&folder.join("comm")).unwrap_or_default();
        for file in names(&folder.join("fd")) {
            let target = fs::read_link(folder.join("fd").join(file)).unwrap_or_default();
            let inode = target
                .to_str()
                .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                owners.insert(inode, format!("{} ({process})", common::text::harmless(&name)));
            }
        }
    }
    owners
}

/// The firewall's rules; `None` where they cannot be read.
fn ruleset() -> Option<Value> {
    // Rules of the old iptables are not in nftables' list.
    let old = text(Path::new("/proc/net/ip_tables_names")).unwrap_or_default();
    if old.contains("filter") {
        return None;
    }
    let asked = ["nft", "/usr/sbin/nft"]
        .into_iter()
        .find_map(|nft| Command::new(nft).args(["-j", "list", "ruleset"]).output().ok())?;
    asked.status.success().then(|| serde_json::from_slice(&asked.stdout).ok()).flatten()
}

fn kit(state: &Path) -> Kit {
    if fs::read_dir(state).is_err() && state.exists() {
        return Kit::Unknown;
    }
    if !state.join("kits").exists() {
        return Kit::None;
    }
    match Kits::look(state).list() {
        Ok(kits) => kits.into_iter().find(|kit| kit.default).map_or(Kit::None, |kit| Kit::There {
            name: kit.name,
            programs: kit.boot_programs,
            warnings: kit.warnings,
        }),
        Err(error) => Kit::Damaged(common::causes::with_causes(&error)),
    }
}

fn host(state: PathBuf) -> Host {
    let synchronised =
        Command::new("timedatectl").args(["show", "-p", "NTPSynchronized", "--value"]).output().ok();
    let synchronised = synchronised.filter(|asked| asked.status.success());
    let synchronised = synchronised.and_then(|asked| match asked.stdout.as_slice() {
        b"yes\n" => Some(true),
        b"no\n" => Some(false),
        _ => None,
    });
    // The folder that is there, or will be made.
    let there = state.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let free = nix::sys::statvfs::statvfs(there).ok();
    let free = free.map(|about| about.blocks_available().saturating_mul(about.fragment_size()));
    let memory = text(Path::new("/proc/meminfo")).and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:").map(str::to_owned))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    });
    let files = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).ok();
    Host {
        year: jiff::Zoned::now().year(),
        synchronised,
        free,
        foreign_owner: foreign_owner(&state),
        memory,
        files: files.map(|(_, hard)| hard),
        closed_kernels: closed_kernels(),
        selinux: text(Path::new("/sys/fs/selinux/enforce")).is_some_and(|text| text == "1"),
        state,
    }
}

/// The owner of the state folder and the service's user, if there is a service and the owner is another one: as when the
/// server was once started by hand.
fn foreign_owner(state: &Path) -> Option<(String, String)> {
    let is_installed = ["/lib", "/usr/lib", "/etc"]
        .iter()
        .any(|root| Path::new(root).join("systemd/system/swarmboot.service").exists());
    let users = text(Path::new("/etc/passwd")).unwrap_or_default();
    let user = number_of(&users, USER).filter(|_| is_installed)?;
    let files = ["", "identity.key", "records.sqlite"].map(|name| state.join(name));
    let owner =
        files.iter().filter_map(|path| Some(fs::metadata(path).ok()?.uid())).find(|uid| *uid != user)?;
    Some((name_of(&users, owner).unwrap_or_else(|| owner.to_string()), USER.to_owned()))
}

/// Kernels that only their owner can read, where the service is installed. Ubuntu has them so.
fn closed_kernels() -> Vec<PathBuf> {
    let groups = text(Path::new("/etc/group")).unwrap_or_default();
    let Some(group) = number_of(&groups, USER) else { return vec![] };
    let kernels = names(Path::new("/boot")).into_iter().filter(|name| name.starts_with("vmlinuz-"));
    let closed = |path: &PathBuf| {
        let Ok(about) = fs::metadata(path) else { return false };
        let by_group = about.gid() == group && about.mode() & 0o040 != 0;
        about.mode() & 0o004 == 0 && !by_group
    };
    kernels.map(|name| Path::new("/boot").join(name)).filter(closed).collect()
}

/// The number of a user or group in `/etc/passwd` or `/etc/group`. Read by hand: this program is linked statically, and
/// glibc's own look-up then crashes.
fn number_of(list: &str, name: &str) -> Option<u32> {
    list.lines().find_map(|line| {
        let mut parts = line.split(':');
        (parts.next() == Some(name)).then(|| parts.nth(1)?.parse().ok()).flatten()
    })
}

/// The name of a user or group with this number.
fn name_of(list: &str, number: u32) -> Option<String> {
    list.lines().find_map(|line| {
        let (name, rest) = line.split_once(':')?;
        (rest.split(':').nth(1)?.parse() == Ok(number)).then(|| name.to_owned())
    })
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn text(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{Severity, judge};
    use super::*;

    /// On this host, whatever it is: everything is looked at, nothing crashes, and nothing is made.
    #[tokio::test]
    async fn a_host_is_looked_at_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let wanted = Wanted {
            interface: Some("lo".to_owned()),
            config: None,
            mistakes: vec![],
            state: state.clone(),
            wait: Duration::from_millis(10),
            server: None,
        };
        let facts = gather(wanted).await;
        assert_eq!(facts.link.address, Some((Ipv4Addr::LOCALHOST, 8)));
        assert!(matches!(facts.answers, Some(Err(_))), "the loopback is no Ethernet: {:?}", facts.answers);
        assert_eq!(facts.ports.len(), 5);
        assert!(facts.host.free.is_some() && facts.host.memory.is_some() && facts.host.files.is_some());
        assert!(facts.host.year >= 2026);
        let found = judge(&facts);
        assert!(
            found.iter().any(|finding| finding.topic == "boot kit" && finding.severity == Severity::Error)
        );
        assert!(!state.exists(), "it makes nothing");
    }

    #[test]
    fn a_taken_port_is_found_with_its_process() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let lo = dhcp4::interface_address("lo").unwrap();
        let found = ports_of(vec![("tcp", port, "x")], Some(&lo));
        assert_eq!(found[0].opens, Some(false));
        let us = format!("({})", std::process::id());
        assert!(found[0].holders.iter().any(|holder| holder.ends_with(&us)), "{found:?}");
        drop(taken);
        let found = ports_of(vec![("tcp", port, "x")], Some(&lo));
        assert!(found[0].holders.is_empty() && found[0].opens == Some(true), "{found:?}");
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let list = "root:x:0:0:root:/root:/bin/sh\nbroken\nswarmboot:x:998:997::/:/x\n";
        assert_eq!((number_of(list, "swarmboot"), number_of(list, "swarm")), (Some(998), None));
        assert_eq!((name_of(list, 998).as_deref(), name_of(list, 7)), (Some("swarmboot"), None));
    }

    /// Kits are looked at without being locked or made.
    #[test]
    fn a_folder_of_kits_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(kit(dir.path()), Kit::None));
        fs::create_dir(dir.path().join("kits")).unwrap();
        assert!(matches!(kit(dir.path()), Kit::None));
        assert_eq!(names(&dir.path().join("kits")), Vec::<String>::new());
    }
}
