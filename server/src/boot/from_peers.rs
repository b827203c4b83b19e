//! Core: the lines of a script that fetch kernel and loader from neighbours, checked against the hashes that the server
//! gives, with the server as fallback; and which iPXE may run them. Touches `common`.
//!
//! Everything that can go wrong at a neighbour ends at the label `server`, where the server's own lines are, and each
//! fault is in the query of what is fetched there, so that the server's log names the neighbour and it is not offered
//! again. A command that an iPXE lacks fails like any other: an iPXE that cannot check boots from the server.

use std::fmt::Write as _;
use std::net::SocketAddr;

use common::wire::objects::{FAULT_QUERY, Object, PEER_QUERY, PeerFault, object_path};

use super::ipxe::{Ipxe, Platform};
use crate::peers::BootPeers;

/// How long a neighbour may send nothing, in milliseconds. iPXE counts time without progress, so a slow link is no
/// fault; one that is gone costs these seconds, once or twice.
const TIMEOUT_MS: u32 = 3000;

/// The path at which a script tells that a neighbour failed it after another one did not, and at which it tries whether
/// its iPXE has timeouts at all. Its body is empty.
pub const TELL: &str = "/boot/neighbour";

/// The variable of a script that has the faults so far, in the form of a query.
pub const FAULTS: &str = "faults";

/// A file that is fetched, with the hashes that it is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    /// Its name among the small files of a site, and its length.
    pub object: Object,
    /// Its SHA-256, the only hash that firmware can check.
    pub sha256: [u8; 32],
}

/// How a script uses neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Each file is checked against its hash.
    Hash,
    /// No file is checked: the admin wants it so.
    None,
}

/// Kernel and loader at neighbours.
#[derive(Debug, Clone, Copy)]
pub struct FromPeers<'a> {
    /// The neighbours, in the order in which they are tried.
    pub peers: &'a [SocketAddr],
    /// The kernel.
    pub kernel: Hashed,
    /// The loader's initramfs.
    pub loader: Hashed,
    /// Whether they are checked.
    pub check: Check,
}

/// Why a machine may not take boot files from neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCheck {
    /// Its iPXE is built for BIOS, where none can check a hash.
    Bios,
    /// Its iPXE is older than 2.0, or does not say what it is.
    Old,
}

impl NoCheck {
    /// The reason, for the log.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Bios => "its iPXE runs on BIOS, where it cannot check a hash",
            Self::Old => "its iPXE is older than 2.0 and cannot check a hash",
        }
    }
}

/// Whether and how a machine may take boot files from neighbours, by the admin's setting and what its iPXE says of
/// itself.
///
/// # Errors
/// The reason why not; `None` in it when the admin wants none of it.
pub fn check(mode: BootPeers, ipxe: &Ipxe) -> Result<Check, Option<NoCheck>> {
    match mode {
        BootPeers::Off => Err(None),
        _ if ipxe.can_verify() => Ok(Check::Hash),
        BootPeers::Any => Ok(Check::None),
        BootPeers::Verified if ipxe.platform == Some(Platform::Bios) => Err(Some(NoCheck::Bios)),
        BootPeers::Verified => Err(Some(NoCheck::Old)),
    }
}

/// The lines before the server's own. They end with the label `server`; where all is well they go to `start`, with
/// kernel and loader in memory and the kernel's `arguments` set. `server` is its URL.
#[must_use]
pub fn lines(from: &FromPeers<'_>, server: &str, arguments: &str) -> String {
    let mut text = String::new();
    if from.check == Check::None {
        // An iPXE of before 2014 has no `--timeout`: it finds out at the server, and blames nobody.
        push(
            &mut text,
            &format!("imgfetch --timeout {TIMEOUT_MS} --name told {server}{TELL} || goto server\nimgfree\n"),
        );
    }
    for (n, peer) in from.peers.iter().enumerate() {
        push(&mut text, &format!("echo swarmboot: the neighbour {peer} has kernel and loader\n"));
        for (name, file) in [("vmlinuz", from.kernel), ("loader.img", from.loader)] {
            let path = object_path(file.object.hash, None);
            push(
                &mut text,
                &format!(
                    "imgfetch --timeout {TIMEOUT_MS} --name {name} http://{peer}{path} || goto slow{n}\n"
                ),
            );
            if from.check == Check::Hash {
                let sha256 = hex::encode(file.sha256);
                push(
                    &mut text,
                    &format!(
                        "sha256sum --set got {name} || goto server\niseq ${{got:hexraw}} {sha256} || goto wrong{n}\n"
                    ),
                );
            }
        }
        push(
            &mut text,
            &format!(
                "imgargs vmlinuz {arguments} || goto server\n\
                 isset ${{{FAULTS}}} || goto ready\n\
                 imgfetch --timeout {TIMEOUT_MS} --name told {server}{TELL}?${{{FAULTS}}} ||\n\
                 imgfree told ||\n\
                 goto ready\n"
            ),
        );
        for (label, fault) in [("slow", PeerFault::Slow), ("wrong", PeerFault::Wrong)] {
            let word = fault.word();
            push(
                &mut text,
                &format!(
                    ":{label}{n}\n\
                     echo swarmboot: the neighbour {peer} is {word}\n\
                     set {FAULTS} ${{{FAULTS}}}&{PEER_QUERY}={peer}&{FAULT_QUERY}={word}\n\
                     goto next{n}\n"
                ),
            );
        }
        push(&mut text, &format!(":next{n}\nimgfree\n"));
    }
    push(&mut text, "goto server\n:ready\nimgselect vmlinuz || goto server\ngoto start\n:server\nimgfree\n");
    text
}

fn push(text: &mut String, more: &str) {
    // Writing to a string cannot fail.
    let _ = text.write_str(more);
}

#[cfg(test)]
mod tests {
    use common::id::Hash;

    use super::super::ipxe::IpxeVersion;
    use super::*;

    fn from(check: Check, peers: &[SocketAddr]) -> FromPeers<'_> {
        let file = |n| Hashed { object: Object { hash: Hash([n; 32]), bytes: 1 }, sha256: [n + 1; 32] };
        FromPeers { peers, kernel: file(1), loader: file(3), check }
    }

    #[test]
    fn who_may_take_them_from_neighbours() {
        use BootPeers::{Any, Off, Verified};
        let (efi, bios) = (Some(Platform::Efi), Some(Platform::Bios));
        let cases = [
            (Verified, efi, Some((2, 0)), Ok(Check::Hash)),
            (Verified, efi, Some((2, 1)), Ok(Check::Hash)),
            (Any, efi, Some((2, 0)), Ok(Check::Hash)),
            (Verified, efi, Some((1, 21)), Err(Some(NoCheck::Old))),
            (Verified, efi, None, Err(Some(NoCheck::Old))),
            (Verified, None, None, Err(Some(NoCheck::Old))),
            (Verified, bios, Some((2, 0)), Err(Some(NoCheck::Bios))),
            (Any, bios, Some((1, 0)), Ok(Check::None)),
            (Any, efi, None, Ok(Check::None)),
            (Off, efi, Some((2, 0)), Err(None)),
        ];
        for (mode, platform, version, wanted) in cases {
            let version = version.map(|(major, minor)| IpxeVersion { major, minor });
            let ipxe = Ipxe { platform, version, ..Ipxe::default() };
            assert_eq!(check(mode, &ipxe), wanted, "{mode:?} {platform:?} {version:?}");
        }
    }

    #[test]
    fn every_file_is_checked_before_it_can_be_booted() {
        let peers = ["10.0.0.8:8069".parse().unwrap(), "10.0.0.9:8069".parse().unwrap()];
        let text = lines(&from(Check::Hash, &peers), "http://10.9.0.1:8069", "a=b");
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("imgfetch")) {
            if line.contains("10.9.0.1") {
                continue;
            }
            let name = line.split_ascii_whitespace().nth(4).unwrap();
            assert_eq!(lines[at + 1], format!("sha256sum --set got {name} || goto server"));
            let hash = if name == "vmlinuz" { "02".repeat(32) } else { "04".repeat(32) };
            let n = usize::from(line.contains("10.0.0.9"));
            assert_eq!(lines[at + 2], format!("iseq ${{got:hexraw}} {hash} || goto wrong{n}"));
        }
        assert_eq!(lines.iter().filter(|line| line.starts_with("iseq ${got")).count(), 4);
        assert!(lines.iter().all(|line| !line.starts_with("boot")), "{text}");
        assert!(text.ends_with(":server\nimgfree\n"));
    }

    #[test]
    fn an_ipxe_without_timeouts_blames_nobody() {
        let peers = ["10.0.0.8:8069".parse().unwrap()];
        let text = lines(&from(Check::None, &peers), "http://10.9.0.1:8069", "a=b");
        let first =
            "imgfetch --timeout 3000 --name told http://10.9.0.1:8069/boot/neighbour || goto server\n";
        assert!(text.starts_with(first), "{text}");
        assert!(!text.contains("sha256sum"));
    }
}
