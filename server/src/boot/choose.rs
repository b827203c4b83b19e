//! Core: chooses the network boot program for a machine's firmware. Owns the one firmware table: the architecture
//! numbers of DHCP option 93 (RFC 4578, and IANA's "processor architecture types" after it), their names here, and
//! which of a kit's files they can run. Numbers are matched raw: the RFC's own text has 7 and 9 the wrong way round,
//! and enums made from it inherit that. Touches the fleet's names for kinds of clients.

use std::collections::BTreeSet;

use crate::fleet::boot_policy::ClientKind;

/// How a machine fetches its network boot program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// PXE: a file name, fetched over TFTP.
    Tftp,
    /// UEFI HTTP boot: a URL.
    Http,
}

/// The kind of firmware, as far as it decides how a machine is booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A PC's BIOS.
    Bios,
    /// UEFI, for whichever processor.
    Uefi,
}

/// One row of the firmware table: its name, and what it can run.
#[derive(Debug, PartialEq, Eq)]
pub struct Firmware {
    /// BIOS or UEFI.
    family: Family,
    /// Its name for people, without the transport: `bios`, `uefi x64`.
    pub words: &'static str,
    /// The boot programs it can run, best first. The ones that drive the NIC through the firmware
    /// (`undionly`, `snponly`) come first: they work with every NIC that the firmware itself can boot from.
    programs: &'static [&'static str],
}

const BIOS: Firmware =
    Firmware { family: Family::Bios, words: "bios", programs: &["undionly.kpxe", "ipxe.pxe"] };
const UEFI_X64: Firmware =
    Firmware { family: Family::Uefi, words: "uefi x64", programs: &["snponly.efi", "ipxe.efi"] };
const UEFI_IA32: Firmware =
    Firmware { family: Family::Uefi, words: "uefi ia32", programs: &["snponly-ia32.efi", "ipxe-ia32.efi"] };
const UEFI_ARM64: Firmware = Firmware {
    family: Family::Uefi,
    words: "uefi arm64",
    programs: &["snponly-arm64.efi", "ipxe-arm64.efi"],
};

/// The firmware of an option 93 number; `None` for those that no boot program of a kit runs on.
#[must_use]
pub fn firmware(architecture: u16) -> Option<&'static Firmware> {
    Some(match architecture {
        0 | 20 => &BIOS,
        // 9 is EBC by the registry; some x64 firmware sends it all the same, and no real EBC machine exists.
        7 | 9 | 16 | 17 => &UEFI_X64,
        6 | 15 => &UEFI_IA32,
        // 22 and 24 are U-Boot, whose EFI side runs the same programs.
        11 | 19 | 22 | 24 => &UEFI_ARM64,
        _ => return None,
    })
}

/// The boot programs that are available, and which one an admin prefers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Programs {
    available: BTreeSet<String>,
    prefer: Option<String>,
}

impl Programs {
    /// The files named in `available` can be served; `prefer` (such as `ipxe.efi`, where a firmware's own network
    /// driver is broken) wins over the table's order on every firmware that can run it.
    pub fn new(available: impl IntoIterator<Item = String>, prefer: Option<String>) -> Self {
        Self { available: available.into_iter().collect(), prefer }
    }
}

/// The boot program for a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Whether its firmware is a BIOS or UEFI.
    pub family: Family,
    /// Its firmware and transport, for the log.
    pub firmware: ClientKind,
    /// The name of the boot program's file; at most 127 bytes, so that it fits the BOOTP header.
    pub file: String,
    /// How it is fetched.
    pub transport: Transport,
}

/// Why there is no boot program for a machine. Expected: a network is full of phones that request strange things.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoProgram {
    /// No boot program exists for any of its architectures.
    #[error("no boot program exists for its firmware (architecture {0:?})")]
    UnknownFirmware(Vec<u16>),
    /// Boot programs exist for it, but the kit has none of them.
    #[error("the boot kit has no program for {firmware} (wanted: {wanted})")]
    NotInKit {
        /// The firmware, with the transport.
        firmware: ClientKind,
        /// The files that it could run.
        wanted: String,
    },
    /// It is a small board, though it says that it is a BIOS PC.
    #[error(
        "it is a {0} that says it is a BIOS PC, and no PC's program runs on it; with UEFI firmware on it (arm64) it can be served"
    )]
    Board(&'static str),
}

/// Chooses the boot program for a machine that lists `architectures` and fetches over `transport`. The whole list is
/// scanned: some firmware names an unknown architecture first.
///
/// # Errors
///
/// When no boot program exists for it, or the kit lacks the file.
pub fn choose(architectures: &[u16], transport: Transport, programs: &Programs) -> Result<Choice, NoProgram> {
    let firmware = architectures
        .iter()
        .find_map(|&number| firmware(number))
        .ok_or_else(|| NoProgram::UnknownFirmware(architectures.to_vec()))?;
    let kind = ClientKind::Firmware { kind: firmware.words, http: transport == Transport::Http };
    let runs = || firmware.programs.iter().copied();
    let preferred = runs().filter(|file| programs.prefer.as_deref() == Some(*file));
    preferred
        .chain(runs())
        .find(|file| programs.available.contains(*file) && file.len() <= 127)
        .map(|file| Choice { family: firmware.family, firmware: kind, file: file.to_owned(), transport })
        .ok_or_else(|| NoProgram::NotInKit { firmware: kind, wanted: firmware.programs.join(" or ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kit() -> Programs {
        Programs::new(["undionly.kpxe", "snponly.efi", "ipxe.efi"].map(str::to_owned), None)
    }

    #[test]
    fn every_number_gets_the_right_file_or_none() {
        let table = [
            (0, Transport::Tftp, Ok(("bios", "undionly.kpxe"))),
            (7, Transport::Tftp, Ok(("uefi x64", "snponly.efi"))),
            (9, Transport::Tftp, Ok(("uefi x64", "snponly.efi"))),
            (16, Transport::Http, Ok(("uefi http x64", "snponly.efi"))),
            (6, Transport::Tftp, Err(true)),
            (11, Transport::Tftp, Err(true)),
            (19, Transport::Http, Err(true)),
            (1, Transport::Tftp, Err(false)),
            (2, Transport::Tftp, Err(false)),
            (25, Transport::Tftp, Err(false)),
            (65535, Transport::Tftp, Err(false)),
        ];
        for (number, transport, wanted) in table {
            let got = choose(&[number], transport, &kit());
            match (got, wanted) {
                (Ok(choice), Ok((words, file))) => {
                    assert_eq!(
                        (choice.firmware.to_string(), choice.file.as_str()),
                        (words.to_owned(), file),
                        "{number}"
                    );
                }
                (Err(NoProgram::NotInKit { .. }), Err(true))
                | (Err(NoProgram::UnknownFirmware(_)), Err(false)) => {}
                (got, wanted) => panic!("{number}: {got:?}, wanted {wanted:?}"),
            }
        }
    }

    #[test]
    fn the_whole_list_is_scanned() {
        assert_eq!(choose(&[4711, 7], Transport::Tftp, &kit()).unwrap().file, "snponly.efi");
        assert!(choose(&[], Transport::Tftp, &kit()).is_err());
    }

    #[test]
    fn a_preference_wins_only_where_it_runs_and_exists() {
        let available = ["undionly.kpxe", "snponly.efi", "ipxe.efi"].map(str::to_owned);
        let prefer = |file: &str| Programs::new(available.clone(), Some(file.to_owned()));
        assert_eq!(choose(&[7], Transport::Tftp, &prefer("ipxe.efi")).unwrap().file, "ipxe.efi");
        assert_eq!(choose(&[0], Transport::Tftp, &prefer("ipxe.efi")).unwrap().file, "undionly.kpxe");
        assert_eq!(choose(&[0], Transport::Tftp, &prefer("ipxe.pxe")).unwrap().file, "undionly.kpxe");
    }
}
