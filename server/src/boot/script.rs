//! Core: the text of the iPXE scripts that start the loader or boot a machine's own disk. Touches `common`.
//!
//! Nothing that a machine sends becomes part of a script: what a script needs of the machine it gets from iPXE by
//! `${...}`, and the query is parsed into types that cannot contain a line break. All scripts end in the loader, in the
//! machine's own disk, or in a retry: a machine is never left at a prompt.

use std::net::{IpAddr, SocketAddr};

use common::id::Mac;
use common::trust::PublicKey;
use common::wire::http::{CMDLINE_KEY, CMDLINE_MAC, CMDLINE_SERVER};

use super::arguments::KernelArguments;
use super::from_peers::{self, FAULTS, FromPeers};
use super::ipxe::Ipxe;
use crate::fleet::boot_policy::Asker;

/// Why a script cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// The kit's name, or its loader's, has other characters, is empty or too long.
    #[error("the boot kit's name {0:?} is not made of letters, digits and `.`, `_`, `+`, `-`")]
    KitName(String),
}

/// Which kind of machine a request for a script is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visitor {
    /// The request has no `mac` at all: the answer is [`entry`], which requests the script again with everything that
    /// iPXE knows of its machine.
    First,
    /// A machine with an Ethernet address, and what its iPXE says of itself.
    Machine(Asker, Ipxe),
    /// A machine with another kind of address: InfiniBand has 8 bytes (`e0-07-1b-ff-ff-79-d0-84`). Its request has all
    /// that it can send, so it must never get [`entry`] again, or it would repeat the same request for ever, without a
    /// pause.
    Odd(Asker),
}

/// Parses the query of `/boot.ipxe`; `None` is a value that could not be decoded. Malformed values are dropped.
#[must_use]
pub fn visitor<'q>(query: impl IntoIterator<Item = (&'q str, Option<&'q str>)>) -> Visitor {
    let (mut asker, mut ipxe, mut asked) = (Asker::default(), Ipxe::default(), false);
    for (name, value) in query {
        match name {
            "mac" => {
                asked = true;
                asker.mac = value.and_then(|value| value.parse::<Mac>().ok());
            }
            "uuid" => asker.uuid = value.and_then(uuid),
            "serial" => asker.serial = value.and_then(serial),
            _ => ipxe.take(name, value),
        }
    }
    match (asked, asker.mac) {
        (false, _) => Visitor::First,
        (true, Some(_)) => Visitor::Machine(asker, ipxe),
        (true, None) => Visitor::Odd(asker),
    }
}

/// A UUID with dashes in upper or lower case, made lower case. All zeros and all ones are no UUID: boards whose maker
/// never set one send that.
fn uuid(text: &str) -> Option<String> {
    let dashes = [8, 13, 18, 23];
    let formed = text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| if dashes.contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() });
    let blank = |digit: u8| text.bytes().all(|byte| byte == b'-' || byte.eq_ignore_ascii_case(&digit));
    (formed && !blank(b'0') && !blank(b'f')).then(|| text.to_ascii_lowercase())
}

/// A serial number of at most 64 characters (SMBIOS's custom), none of them a control character.
fn serial(text: &str) -> Option<String> {
    let text = text.trim();
    let formed = !text.is_empty() && text.len() <= 64 && !text.chars().any(char::is_control);
    formed.then(|| text.to_owned())
}

/// The first script, the same for every machine: requests the script again with the machine's identity, and retries for
/// ever.
///
/// `netX` is the NIC that iPXE booted from, which `net0` is not on a machine with several. `--replace` makes the
/// answer take this script's place, so that its `exit` reaches the firmware and does not come back here as a
/// failure to try again.
#[must_use]
pub fn entry(server: SocketAddr, fallback: Option<SocketAddr>) -> String {
    let (server, fallback) = (url(server), fallback.map(url));
    format!(
        "#!ipxe\n\
         set wait:int32 2\n\
         :ask\n\
         echo swarmboot: asking {server} what to do, as ${{netX/mac}}\n\
         {}{}",
        question(&server, fallback.as_deref()),
        try_again("ask", "no answer from", &server)
    )
}

/// The script of a machine that waits for a neighbour to have its boot files: it asks again after so many seconds.
#[must_use]
pub fn wait(server: SocketAddr, fallback: Option<SocketAddr>, seconds: u32) -> String {
    waiting(server, fallback, seconds, "a neighbour fetches the boot files first")
}

/// The script of a machine that must not boot its own disk and cannot be told more yet, because of `because`, which is a
/// constant: it asks again after a while.
#[must_use]
pub fn wait_because(server: SocketAddr, because: &'static str) -> String {
    waiting(server, None, 10, because)
}

fn waiting(server: SocketAddr, fallback: Option<SocketAddr>, seconds: u32, because: &'static str) -> String {
    let (server, fallback) = (url(server), fallback.map(url));
    format!(
        "#!ipxe\n\
         set wait:int32 2\n\
         echo swarmboot: {because}; ${{netX/mac}} asks {server} again in {seconds} s\n\
         sleep {seconds} ||\n\
         :ask\n\
         {}{}",
        question(&server, fallback.as_deref()),
        try_again("ask", "no answer from", &server)
    )
}

/// Requests the script with the machine's identity, and what its iPXE says of itself.
fn question(server: &str, fallback: Option<&str>) -> String {
    let ask = |server: &str| {
        format!(
            "chain --autofree --replace {server}/boot.ipxe?mac=${{netX/mac:hexhyp}}&uuid=${{uuid}}\
             &serial=${{serial:uristring}}&platform=${{platform}}&buildarch=${{buildarch}}\
             &nic=${{netX/busid}}&version=${{version:uristring}}"
        )
    };
    format!("{} || goto failed\n", either(server, fallback, ask))
}

/// The parameters of [`load`].
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// The server's HTTP address, as the machine reaches it.
    pub server: SocketAddr,
    /// The server's own address, where `server` is a relay: each download is tried there when the relay fails.
    pub fallback: Option<SocketAddr>,
    /// The server's public key, which the loader trusts from here on.
    pub key: &'a PublicKey,
    /// The boot kit's name, as in `/boot/{kit}/`.
    pub kit: &'a str,
    /// The file name of the loader's initramfs, as in `/boot/{kit}/{loader}`.
    pub loader: &'a str,
    /// Additional kernel arguments from the configuration.
    pub kernel_arguments: &'a KernelArguments,
    /// Neighbours that have kernel and loader, to be tried before the server.
    pub from_peers: Option<FromPeers<'a>>,
}

/// The script that starts kernel and loader; after a failed download it requests the script again, because the
/// machine's boot policy may have changed meanwhile.
///
/// # Errors
///
/// When the kit's name cannot be put into the script unchanged; better no machine boots, and the log says why, than
/// forty machines boot with half a command line.
pub fn load(load: &Load<'_>) -> Result<String, ScriptError> {
    checked_kit(load.kit)?;
    checked_kit(load.loader)?;
    let (server, key, kit, extra) = (url(load.server), load.key, load.kit, load.kernel_arguments);
    let loader = load.loader;
    let fallback = load.fallback.map(url);
    let each = |command: &dyn Fn(&str) -> String| either(&server, fallback.as_deref(), command);
    let servers = fallback.as_ref().map_or_else(|| server.clone(), |fallback| format!("{server},{fallback}"));
    // `initrd=` is how an EFI kernel finds what iPXE loaded; a BIOS kernel ignores it (pxelinux always sends it). The
    // serial console comes last, so that it is /dev/console: what a rack's admin sees.
    let arguments = format!(
        "initrd=loader.img console=tty0 console=ttyS0,115200 {CMDLINE_SERVER}={servers} {CMDLINE_KEY}={key} \
         {CMDLINE_MAC}=${{netX/mac}}{extra}"
    );
    let (neighbours, faults, start) = match &load.from_peers {
        Some(from) => (from_peers::lines(from, &server, &arguments), format!("?${{{FAULTS}}}"), ":start\n"),
        None => (String::new(), String::new(), ""),
    };
    let kernel =
        |server: &str| format!("kernel --name vmlinuz {server}/boot/{kit}/vmlinuz{faults} {arguments}");
    let initrd = |server: &str| format!("initrd --name loader.img {server}/boot/{kit}/{loader}");
    let again = |server: &str| format!("chain --autofree --replace {server}/boot.ipxe");
    Ok(format!(
        "#!ipxe\n\
         set wait:int32 10\n\
         imgfree\n\
         echo swarmboot: {server} sends the loader to ${{netX/mac}}\n\
         {neighbours}\
         {} || goto failed\n\
         {} || goto failed\n\
         {start}\
         boot || goto failed\n\
         :again\n\
         {} || goto failed\n\
         {}",
        each(&kernel),
        each(&initrd),
        each(&again),
        try_again("again", "could not start the loader from", &server)
    ))
}

/// A command of a script with the server's URL, and the same with that of the fallback for when it fails: iPXE runs what
/// stands behind `||` only then.
fn either(server: &str, fallback: Option<&str>, command: impl Fn(&str) -> String) -> String {
    let first = command(server);
    fallback.map_or_else(|| first.clone(), |fallback| format!("{first} || {}", command(fallback)))
}

/// The script that boots a machine's own disk, printing `because`, which is a constant.
///
/// On EFI: `exit 1`. The firmware then goes on with its boot order; `exit 0` counts as a success, and EDK2 (and Dell
/// and Lenovo with it) opens its menu instead. iPXE's own command for booting a disk on EFI is too new to rely on and
/// does not know which disk the firmware would choose.
///
/// On BIOS: boot drive 0x80 from iPXE, because what firmware does after a boot ROM returns differs (the next device,
/// another round of PXE, a halt), while 0x80 is the disk that its own boot order puts first. If that disk does not
/// boot, the next ones are tried: the OS may be on another one (a blank disk before it gave "Boot from SAN device 0x80
/// failed" and SeaBIOS then tried no other). iPXE cannot tell on BIOS which one it is. At the end, print that and
/// return to the firmware, which can do no worse.
#[must_use]
pub fn boot_disk(server: SocketAddr, because: &'static str) -> String {
    let server = url(server);
    format!(
        "#!ipxe\n\
         echo swarmboot: {server} sends ${{netX/mac}} to its own disk: {because}\n\
         iseq ${{platform}} efi && goto leave ||\n\
         sanboot --no-describe --drive 0x80 ||\n\
         echo swarmboot: the first disk does not boot; trying the next ones\n\
         sanboot --no-describe --drive 0x81 ||\n\
         sanboot --no-describe --drive 0x82 ||\n\
         sanboot --no-describe --drive 0x83 ||\n\
         echo swarmboot: no disk boots; back to the firmware\n\
         :leave\n\
         exit 1\n"
    )
}

/// The script for a machine that is not served: it boots its own disk, and prints no more than needed.
#[must_use]
pub fn ignored(server: SocketAddr) -> String {
    boot_disk(server, "it is not served here")
}

/// Prints what failed (iPXE itself has just printed why), waits 2 to 30 seconds, longer each time, and goes on at
/// `label`: a back-off, so that forty machines that wait for a server do not flood it when it comes back.
fn try_again(label: &str, what: &str, server: &str) -> String {
    format!(
        ":failed\n\
         echo swarmboot: {what} {server}, see above; ${{netX/mac}} tries again in ${{wait}} s\n\
         sleep ${{wait}} ||\n\
         iseq ${{wait}} 30 || inc wait 4\n\
         goto {label}\n"
    )
}

fn url(server: SocketAddr) -> String {
    match server.ip() {
        IpAddr::V4(ip) => format!("http://{ip}:{}", server.port()),
        IpAddr::V6(ip) => format!("http://[{ip}]:{}", server.port()),
    }
}

fn checked_kit(kit: &str) -> Result<(), ScriptError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    let good = !kit.is_empty() && kit.len() <= 128 && !kit.starts_with('.') && kit.bytes().all(plain);
    if good { Ok(()) } else { Err(ScriptError::KitName(kit.to_owned())) }
}

#[cfg(test)]
mod tests {
    use common::id::Hash;
    use common::wire::objects::Object;
    use proptest::prelude::*;

    use super::super::from_peers::{Check, Hashed};
    use super::*;

    fn server() -> SocketAddr {
        "10.0.0.1:8069".parse().unwrap()
    }

    fn key() -> PublicKey {
        common::trust::KeyPair::from_secret([7; 32]).public()
    }

    fn made(kernel_arguments: &KernelArguments, kit: &str) -> Result<String, ScriptError> {
        let (server, key, loader) = (server(), &key(), "loader.img");
        load(&Load { server, fallback: None, key, kit, loader, kernel_arguments, from_peers: None })
    }

    fn loaded(kit: &str, arguments: &[&str]) -> Result<String, ScriptError> {
        made(&arguments.join(" ").parse().unwrap(), kit)
    }

    fn at_neighbours(check: Check) -> String {
        let kernel_arguments: KernelArguments = "".parse().unwrap();
        let file = |n| Hashed { object: Object { hash: Hash([n; 32]), bytes: 1 }, sha256: [n; 32] };
        let peers = ["10.1.0.8:8069".parse().unwrap(), "10.1.0.9:8069".parse().unwrap()];
        let from = FromPeers { peers: &peers, kernel: file(1), loader: file(2), check };
        let (server, key, kernel_arguments) = (server(), &key(), &kernel_arguments);
        let (fallback, kit, loader, from_peers) = (None, "k", "loader.img", Some(from));
        load(&Load { server, fallback, key, kit, loader, kernel_arguments, from_peers }).unwrap()
    }

    fn all() -> [String; 8] {
        [
            wait(server(), None, 5),
            wait_because(server(), "the server cannot be reached"),
            at_neighbours(Check::Hash),
            at_neighbours(Check::None),
            entry(server(), None),
            loaded("debian-12", &[]).unwrap(),
            boot_disk(server(), "nothing is ordered for it"),
            ignored(server()),
        ]
    }

    #[test]
    fn a_relay_comes_first_and_the_server_when_it_fails() {
        let (server, fallback) = ("10.1.0.2:8069".parse().unwrap(), Some(server()));
        let (kernel_arguments, key) = (&"quiet".parse().unwrap(), &key());
        let (kit, loader) = ("k", "loader.img");
        let load = Load { server, fallback, key, kit, loader, kernel_arguments, from_peers: None };
        let loaded = super::load(&load).unwrap();
        assert!(loaded.contains(" swarmboot.server=http://10.1.0.2:8069,http://10.0.0.1:8069 "), "{loaded}");
        for script in [entry(server, fallback), wait(server, fallback, 5), loaded] {
            let relays = script.lines().filter(|line| line.contains("http://10.1.0.2:8069/"));
            assert!(relays.clone().count() > 0, "{script}");
            for (first, then) in relays.map(|line| line.split_once(" || ").unwrap()) {
                let own = first.replace("http://10.1.0.2:8069/", "http://10.0.0.1:8069/");
                assert_eq!(then, format!("{own} || goto failed"));
            }
        }
    }

    #[test]
    fn every_script_is_one_and_every_jump_lands() {
        for script in all() {
            assert!(
                script.starts_with("#!ipxe\n") && script.ends_with('\n') && script.is_ascii(),
                "{script}"
            );
            let mut words = script.split_ascii_whitespace();
            while let Some(word) = words.next() {
                if word == "goto" {
                    let label = format!("\n:{}\n", words.next().unwrap());
                    assert!(script.contains(&label), "{label} is missing in {script}");
                }
            }
        }
    }

    #[test]
    fn a_failing_command_never_ends_a_script_unnoticed() {
        // iPXE leaves a script at the first command that fails without `||` behind it.
        let harmless = ["#!ipxe", ":", "echo ", "set ", "goto ", "imgfree", "exit "];
        for script in all() {
            for line in script.lines().filter(|line| !harmless.iter().any(|start| line.starts_with(start))) {
                assert!(line.contains("||"), "{line}");
            }
        }
    }

    #[test]
    fn the_first_script_asks_with_everything_and_for_ever() {
        let script = entry(server(), None);
        assert!(script.contains(
            "chain --autofree --replace http://10.0.0.1:8069/boot.ipxe?mac=${netX/mac:hexhyp}&uuid=${uuid}\
             &serial=${serial:uristring}&platform=${platform}&buildarch=${buildarch}\
             &nic=${netX/busid}&version=${version:uristring} || goto failed\n"
        ));
        assert!(script.ends_with("sleep ${wait} ||\niseq ${wait} 30 || inc wait 4\ngoto ask\n"));
    }

    #[test]
    fn waits_grow_to_half_a_minute_and_stay_there() {
        let waits = [wait(server(), None, 5), wait_because(server(), "it rains")];
        for script in waits.into_iter().chain([entry(server(), None), loaded("k", &[]).unwrap()]) {
            let (_, after) = script.split_once("set wait:int32 ").unwrap();
            let mut wait: u32 = after.lines().next().unwrap().parse().unwrap();
            // What `iseq ${wait} 30 || inc wait 4` does; a start that steps over 30 would grow for ever.
            for _ in 0..100 {
                wait += if wait == 30 { 0 } else { 4 };
            }
            assert_eq!(wait, 30);
        }
    }

    #[test]
    fn the_loader_is_told_who_the_server_is() {
        let script = loaded("debian-12", &["net.ifnames=0", "pci=nomsi"]).unwrap();
        let line = format!(
            "kernel --name vmlinuz http://10.0.0.1:8069/boot/debian-12/vmlinuz initrd=loader.img console=tty0 \
             console=ttyS0,115200 swarmboot.server=http://10.0.0.1:8069 swarmboot.key={} \
             swarmboot.mac=${{netX/mac}} net.ifnames=0 pci=nomsi || goto failed\n",
            key()
        );
        assert!(script.contains(&line), "{script}");
        assert!(
            script.contains("initrd --name loader.img http://10.0.0.1:8069/boot/debian-12/loader.img ||")
        );
    }

    #[test]
    fn what_a_neighbour_failed_at_is_told_to_the_server() {
        let script = at_neighbours(Check::Hash);
        assert!(script.contains("set faults ${faults}&peer=10.1.0.8:8069&fault=slow\n"), "{script}");
        assert!(script.contains("set faults ${faults}&peer=10.1.0.9:8069&fault=wrong\n"), "{script}");
        assert!(
            script.contains("kernel --name vmlinuz http://10.0.0.1:8069/boot/k/vmlinuz?${faults} initrd=")
        );
    }

    #[test]
    fn efi_leaves_with_an_error_and_bios_by_the_first_disk_that_boots() {
        let script = boot_disk(server(), "it is deployed");
        assert!(
            script.contains("iseq ${platform} efi && goto leave ||\nsanboot --no-describe --drive 0x80 ||\n")
        );
        // The OS may be on another disk than the first: each is tried in turn, and EFI jumps over all.
        let tried: Vec<&str> = script.lines().filter(|line| line.starts_with("sanboot")).collect();
        let drives = ["0x80", "0x81", "0x82", "0x83"];
        assert_eq!(tried, drives.map(|drive| format!("sanboot --no-describe --drive {drive} ||")));
        assert!(script.ends_with(":leave\nexit 1\n"));
    }

    #[test]
    fn nothing_that_ipxe_would_misread_gets_in() {
        for kit in ["", "..", "a b", "a/b", "a\nb", "${net0/mac}", ".hidden", "ä"] {
            assert!(matches!(loaded(kit, &[]), Err(ScriptError::KitName(_))), "{kit}");
        }
    }

    #[test]
    fn a_visitor_is_known_by_what_has_the_right_form() {
        let ask = |mac, uuid, serial| {
            visitor([("mac", mac), ("uuid", uuid), ("serial", serial), ("x", "y")].map(|(n, v)| (n, Some(v))))
        };
        let known = |visitor| match visitor {
            Visitor::Machine(asker, _) => asker,
            other => panic!("{other:?}"),
        };
        let who = known(ask("52-54-00-00-00-01", "12345678-9ABC-DEF0-0102-030405060708", " S1 "));
        assert_eq!(who.mac, Some(Mac([0x52, 0x54, 0, 0, 0, 1])));
        assert_eq!(who.uuid.as_deref(), Some("12345678-9abc-def0-0102-030405060708"));
        assert_eq!(who.serial.as_deref(), Some("S1"));
        let zeros = "00000000-0000-0000-0000-000000000000";
        let odd = known(ask("52-54-00-00-00-01", zeros, "a\nb"));
        assert_eq!((odd.uuid, odd.serial), (None, None));
        assert_eq!(visitor([]), Visitor::First);
        assert_eq!(visitor([("uuid", Some("x"))]), Visitor::First);
    }

    #[test]
    fn who_has_said_an_address_is_never_asked_again() {
        let infiniband = "e0-07-1b-ff-ff-79-d0-84";
        for mac in [Some(infiniband), Some(""), Some("52-54-00-00-00"), Some("nonsense"), None] {
            let uuid = ("uuid", Some("12345678-9abc-def0-0102-030405060708"));
            let Visitor::Odd(asker) = visitor([("mac", mac), uuid]) else { panic!("{mac:?}") };
            assert!(asker.mac.is_none() && asker.uuid.is_some(), "{mac:?}");
        }
    }

    proptest! {
        #[test]
        fn a_query_never_panics(mac in ".{0,40}", uuid in ".{0,40}", serial in ".{0,80}") {
            let pairs = [("mac", mac.as_str()), ("uuid", &uuid), ("serial", &serial)];
            let asker = visitor(pairs.map(|(name, value)| (name, Some(value))));
            if let Visitor::Machine(Asker { uuid: Some(uuid), .. }, _) | Visitor::Odd(Asker { uuid: Some(uuid), .. }) = asker {
                prop_assert!(uuid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'));
            }
        }

        #[test]
        fn arguments_stay_on_their_line(argument in ".{0,40}") {
            if let Ok(kernel_arguments) = argument.parse() {
                let script = made(&kernel_arguments, "k").unwrap();
                let plain = loaded("k", &["x"]).unwrap();
                prop_assert_eq!(script.lines().count(), plain.lines().count());
            }
        }
    }
}
