//! Owns the variables of a UEFI machine, as OVMF keeps them in flash. Writes one boot option for each network card, and
//! no more: OVMF then adds what it finds by itself, disks before networks.
//!
//! QEMU's own boot order would do for BIOS, but with UEFI it names a card as a whole, and OVMF then tries PXE, HTTP
//! over IPv4 and HTTP over IPv6 on it, a minute each, before the disk. Real machines have one network entry on top.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::firmware::Firmware;

/// OVMF's file of empty variables.
const TEMPLATE: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// The offset of the first variable: behind the headers of the firmware volume (0x48 bytes) and of the store.
const FIRST_VARIABLE: usize = 0x64;
/// The GUID EFI_GLOBAL_VARIABLE, in its byte order in memory.
const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
/// The attributes: non-volatile, and visible to the boot services and at run time.
const ATTRIBUTES: u32 = 7;

/// A network card as firmware finds it: the number of its slot on the first bus, and its address.
#[derive(Debug, Clone)]
pub(crate) struct Card {
    /// PCI device number on the first bus.
    pub slot: u8,
    /// Ethernet address, as text.
    pub mac: String,
}

/// Writes variables that boot `cards` in order, by PXE or by HTTP, to `path`.
pub(crate) fn write_variables(path: &Path, firmware: Firmware, cards: &[Card]) -> Result<()> {
    let mut flash = std::fs::read(TEMPLATE)
        .with_context(|| format!("no UEFI firmware ({TEMPLATE}); hint: run tests/setup"))?;
    let mut variables = vec![];
    let mut order = vec![];
    for (number, card) in (0_u16..).zip(cards) {
        variables.extend(variable(&format!("Boot{number:04X}"), &option(firmware, card)?)?);
        order.extend(number.to_le_bytes());
    }
    variables.extend(variable("BootOrder", &order)?);
    let room =
        flash.get_mut(FIRST_VARIABLE..FIRST_VARIABLE + variables.len()).context("a tiny variable store")?;
    ensure!(room.iter().all(|byte| *byte == 0xff), "{TEMPLATE} is not empty");
    room.copy_from_slice(&variables);
    std::fs::write(path, flash).with_context(|| format!("cannot write {}", path.display()))
}

/// One variable in the authenticated format of EDK II, which is what OVMF's store is in, padded to four bytes.
fn variable(name: &str, data: &[u8]) -> Result<Vec<u8>> {
    let name = utf16(name);
    let mut bytes = vec![0xaa, 0x55, 0x3f, 0];
    bytes.extend(ATTRIBUTES.to_le_bytes());
    // Monotonic count, time stamp and key: only variables with a signature use them.
    bytes.extend([0; 8 + 16 + 4]);
    bytes.extend(u32::try_from(name.len())?.to_le_bytes());
    bytes.extend(u32::try_from(data.len())?.to_le_bytes());
    bytes.extend(GLOBAL);
    bytes.extend(name);
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0xff);
    Ok(bytes)
}

/// A load option: active, with a name, and the device path of the card's PXE or HTTP client.
fn option(firmware: Firmware, card: &Card) -> Result<Vec<u8>> {
    let mut mac = [0; 32];
    for (at, part) in card.mac.split(':').enumerate() {
        *mac.get_mut(at).context("a long MAC")? = u8::from_str_radix(part, 16).context("not a MAC")?;
    }
    let mut path = vec![];
    // ACPI: the PCI root, PNP0A03 number 0.
    path.extend(node(2, 1, &[0xd0, 0x41, 0x03, 0x0a, 0, 0, 0, 0])?);
    // Hardware: PCI function 0 in the slot.
    path.extend(node(1, 1, &[0, card.slot])?);
    // Messaging: the MAC of an Ethernet interface, and IPv4 with everything still to be found out.
    path.extend(node(3, 11, &[mac.as_slice(), &[1]].concat())?);
    path.extend(node(3, 12, &[0; 23])?);
    if firmware == Firmware::UefiHttp {
        path.extend(node(3, 24, &[])?);
    }
    path.extend(node(0x7f, 0xff, &[])?);

    let mut bytes = 1_u32.to_le_bytes().to_vec();
    bytes.extend(u16::try_from(path.len())?.to_le_bytes());
    bytes.extend(utf16("Network"));
    bytes.extend(path);
    Ok(bytes)
}

/// One node of a device path.
fn node(kind: u8, sub_kind: u8, data: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = vec![kind, sub_kind];
    bytes.extend(u16::try_from(data.len() + 4)?.to_le_bytes());
    bytes.extend(data);
    Ok(bytes)
}

/// Text as UEFI has it: UTF-16, little-endian, with a zero at its end.
fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_has_the_layout_of_edk2() {
        let bytes = variable("BootOrder", &[0, 0]).unwrap();
        assert_eq!(bytes[..8], [0xaa, 0x55, 0x3f, 0, 7, 0, 0, 0]);
        assert_eq!(bytes[36..44], [20, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn an_http_option_has_one_node_more() {
        let card = Card { slot: 16, mac: "52:54:00:5b:00:01".into() };
        let pxe = option(Firmware::Uefi, &card).unwrap();
        let http = option(Firmware::UefiHttp, &card).unwrap();
        assert_eq!(pxe.len() + 4, http.len());
        assert!(option(Firmware::Uefi, &Card { slot: 16, mac: "no".into() }).is_err());
    }
}
