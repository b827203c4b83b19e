//! Core: what an iPXE says of itself and of the NIC that it booted from, in the query of `/boot.ipxe`. Every value comes
//! from the network: one that has not the right form counts as not said, and so does a setting that an older iPXE does
//! not know, which it leaves empty. Touches the tailor's name for a NIC.

use std::fmt;

pub use crate::tailor::PciId;

/// What the first two parts of iPXE's version are: `2.0.0` is later than `1.21.1+git`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpxeVersion {
    /// The part before the first dot.
    pub major: u16,
    /// The part behind it.
    pub minor: u16,
}

impl fmt::Display for IpxeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The firmware that an iPXE was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Platform {
    /// UEFI.
    Efi,
    /// A PC's BIOS.
    Bios,
}

/// The processor that an iPXE was built for. A BIOS iPXE is a 32-bit program on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BuildArch {
    /// 32-bit x86.
    I386,
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Arm64,
}

/// What an iPXE says of itself and its NIC; what it did not say, or not in the right form, is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Ipxe {
    /// The PCI ids of the NIC that it booted from; none for USB and for virtual buses.
    pub nic: Option<PciId>,
    /// Its version.
    pub version: Option<IpxeVersion>,
    /// Its firmware.
    pub platform: Option<Platform>,
    /// Its processor.
    pub arch: Option<BuildArch>,
}

impl Ipxe {
    /// Takes the pair `name=value` of a query; `None` is a value that could not be decoded. Other names change nothing.
    pub(super) fn take(&mut self, name: &str, value: Option<&str>) {
        match name {
            "nic" => self.nic = value.and_then(nic),
            "version" => self.version = value.and_then(version),
            "platform" => {
                self.platform = match value {
                    Some("efi") => Some(Platform::Efi),
                    Some("pcbios") => Some(Platform::Bios),
                    _ => None,
                }
            }
            "buildarch" => {
                self.arch = match value {
                    Some("i386") => Some(BuildArch::I386),
                    Some("x86_64") => Some(BuildArch::X86_64),
                    Some("arm64") => Some(BuildArch::Arm64),
                    _ => None,
                }
            }
            _ => {}
        }
    }

    /// Whether its scripts can compare the SHA-256 of a file that was fetched with a hash (`sha256sum --set`): the
    /// command came in August 2025 (commit 6fa901530), and version 2.0.0 is the first with it, in EFI builds only.
    #[must_use]
    pub fn can_verify(&self) -> bool {
        self.platform == Some(Platform::Efi) && self.version.is_some_and(|version| version.major >= 2)
    }
}

/// `${netX/busid}`: five bytes, `01:1a:f4:10:00` for a virtio NIC: the kind of bus (1 is PCI, iPXE's `device.h`), and
/// for PCI the vendor and the device. Zeros and ones are what a missing device reads as.
fn nic(text: &str) -> Option<PciId> {
    let mut bytes = [0; 5];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        let digits = parts.next().filter(|digits| digits.len() == 2)?;
        hex::decode_to_slice(digits, std::slice::from_mut(byte)).ok()?;
    }
    let [kind, vendor_high, vendor_low, device_high, device_low] = bytes;
    let (vendor, device) =
        (u16::from_be_bytes([vendor_high, vendor_low]), u16::from_be_bytes([device_high, device_low]));
    let real = kind == 1 && parts.next().is_none() && ![0, 0xffff].contains(&vendor);
    real.then_some(PciId { vendor, device })
}

/// `${version}`: `1.0.0+git-20190125.36a4c85-5.1` of Debian, `2.0.0` of a release.
fn version(text: &str) -> Option<IpxeVersion> {
    let (major, rest) = text.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?;
    Some(IpxeVersion { major: number(major)?, minor: number(minor)? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(pairs: &[(&str, &str)]) -> Ipxe {
        let mut ipxe = Ipxe::default();
        for (name, value) in pairs {
            ipxe.take(name, Some(value));
        }
        ipxe
    }

    #[test]
    fn a_nic_is_known_by_its_pci_ids_and_by_nothing_else() {
        let virtio = Some(PciId { vendor: 0x1af4, device: 0x1000 });
        let table = [
            ("01:1a:f4:10:00", virtio),
            ("01-1A-F4-10-00", virtio),
            // USB (10), EFI's own bus (7), Hyper-V (9); no device; cut; longer; an iPXE without the setting.
            ("0a:0b:da:81:53", None),
            ("07:00:00:00:00", None),
            ("09:14:14:00:00", None),
            ("01:00:00:00:00", None),
            ("01:ff:ff:ff:ff", None),
            ("01:1a:f4:10", None),
            ("01:1a:f4:10:00:00", None),
            ("01:1a:f4:1:00", None),
            ("01:1a:f4:1x:00", None),
            ("", None),
            ("${netX/busid}", None),
        ];
        for (text, wanted) in table {
            assert_eq!(said(&[("nic", text)]).nic, wanted, "{text}");
        }
    }

    #[test]
    fn only_a_new_ipxe_on_uefi_can_verify() {
        let table = [
            ("2.0.0", "efi", true),
            ("2.0.0+git-1", "efi", true),
            ("10.1", "efi", true),
            ("1.21.1 git20250501.dad20602", "efi", false),
            ("1.0.0 git-20190125.36a4c85-5.1", "efi", false),
            ("2.0.0", "pcbios", false),
            ("2.0.0", "", false),
            ("", "efi", false),
            ("2", "efi", false),
            ("-2.0", "efi", false),
            ("99999999.0", "efi", false),
        ];
        for (version, platform, wanted) in table {
            let ipxe = said(&[("version", version), ("platform", platform)]);
            assert_eq!(ipxe.can_verify(), wanted, "{version} on {platform}");
        }
        assert_eq!(said(&[("version", "1.21.1+x")]).version, Some(IpxeVersion { major: 1, minor: 21 }));
        assert_eq!(said(&[("buildarch", "arm64")]).arch, Some(BuildArch::Arm64));
        assert_eq!(said(&[("buildarch", "riscv64"), ("other", "x")]), Ipxe::default());
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_panics(name in "nic|version|platform|buildarch", value in ".{0,40}") {
            let mut ipxe = Ipxe::default();
            ipxe.take(&name, Some(&value));
            ipxe.take(&name, None);
            prop_assert_eq!(ipxe, Ipxe::default());
        }
    }
}
