//! Lists the devices on the buses for which drivers are chosen. Touches `/sys/bus` under the root it is given.

use std::path::Path;

use common::hardware::Device;

use super::files::{link_name, names_in, text, tidy};

/// The buses in the report: their devices decide which modules go into a bundle.
const REPORTED: [&str; 3] = ["pci", "virtio", "usb"];

/// Every bus whose devices may need a driver before there is a network or a disk: for loading modules.
const LOADED: [&str; 10] =
    ["pci", "virtio", "usb", "platform", "acpi", "mdio_bus", "vmbus", "xen", "mmc", "scsi"];

/// The devices of the report, by bus and then by address.
#[must_use]
pub fn list(root: &Path) -> Vec<Device> {
    REPORTED.into_iter().flat_map(|bus| on_bus(root, bus)).collect()
}

/// The modaliases of all devices on the buses above, by which modules are chosen; sorted, each once.
#[must_use]
pub fn modaliases(root: &Path) -> Vec<String> {
    let mut all: Vec<String> = LOADED
        .into_iter()
        .flat_map(|bus| on_bus(root, bus))
        .map(|device| device.modalias)
        .filter(|modalias| !modalias.is_empty())
        .collect();
    all.sort();
    all.dedup();
    all
}

fn on_bus(root: &Path, bus: &str) -> Vec<Device> {
    let dir = root.join("sys/bus").join(bus).join("devices");
    let describe = |address: String| {
        let device = dir.join(&address);
        let modalias = text(&device.join("modalias"));
        // USB hubs and ports without a modalias need no driver.
        (!modalias.is_empty()).then(|| Device {
            class: class(&text(&device.join("class"))),
            driver: link_name(&device.join("driver")),
            address: tidy(&address),
            modalias,
        })
    };
    names_in(&dir).into_iter().filter_map(describe).collect()
}

/// The PCI class of a text such as `0x020000`; 0 for other buses, which have none.
fn class(text: &str) -> u32 {
    text.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0)
}
