//! Step 3, `inspect`: makes the hardware report of this machine. Reads sysfs, procfs and parts of disks under a given
//! root, so that tests give it a tree; never opens anything for writing.
//!
//! Texts come from firmware and disks and may hold anything: control characters become spaces, format characters (which
//! turn or hide what follows) are dropped, long texts and long lists are cut, and what was cut is named in `truncated`.
//! The kernel has parsed the SMBIOS tables already (`/sys/class/dmi/id`): a second parser of whatever a firmware left
//! there, inside PID 1, would gain nothing.

use std::path::Path;

use common::hardware::{HardwareReport, List, Nic, REPORT_VERSION};
use common::id::Mac;
use common::limits::{MACHINE_NAME_MAX, REPORT_BYTES_MAX, REPORT_LIST_MAX, REPORT_NICS_MAX, cut};
use common::text::plain_name;
use common::trust::PublicKey;

use files::tidy;

// Small files, links and names of sysfs and procfs.
mod files;

// Core: what a signature stands for, and its word.
pub mod signature;

// Core: the marks of file systems, RAIDs, volume groups and pools.
pub mod marks;

// Core: interprets the bytes at a disk's start and end.
pub mod contents;

// Reads all disks at once, with a timeout.
pub mod reading;

// Devices on PCI, virtio and USB.
pub mod devices;

// Disks, and what is on them.
pub mod disks;

// Physical network interfaces.
pub mod nics;

// Names of the machine, firmware, processors, memory.
pub mod system;

#[cfg(test)]
mod tests;

/// The part of a report that the hardware cannot tell: who reports, and how the machine was booted.
#[derive(Debug, Clone)]
pub struct Reporter {
    /// The public half of the boot key.
    pub key: PublicKey,
    /// Whether firmware booted this machine for swarmboot; false for the agent as an ordinary process.
    pub booted: bool,
    /// The Ethernet address of the interface that the machine booted from; none where that is not known.
    pub boot_mac: Option<Mac>,
    /// The interface that has an IP address, and the address with its prefix length; none where nobody asked for one.
    pub address: Option<(String, String)>,
    /// A name to show, from `--name`; none for a machine.
    pub name: Option<String>,
    /// The site, from `--site`; none where the server finds it by the address.
    pub site: Option<String>,
}

/// The report of the hardware under `root` (`/`, or a test's tree), within every bound of the server.
#[must_use]
pub fn report(root: &Path, reporter: &Reporter) -> HardwareReport {
    let mut truncated = vec![];
    let mut report = HardwareReport {
        version: REPORT_VERSION,
        reporter: env!("CARGO_PKG_VERSION").to_owned(),
        key: reporter.key,
        firmware: system::firmware(root, reporter.booted),
        system: system::names(root),
        cpu: system::cpu(root),
        memory_bytes: system::memory_bytes(root),
        disks: shorten(List::Disks, disks::list(root), REPORT_LIST_MAX, &mut truncated),
        nics: shorten(
            List::Nics,
            booted_first(nics::list(root, reporter.boot_mac, reporter.address.as_ref())),
            REPORT_NICS_MAX,
            &mut truncated,
        ),
        devices: shorten(List::Devices, devices::list(root), REPORT_LIST_MAX, &mut truncated),
        drivers: system::drivers(root, reporter.booted),
        name: reporter.name.as_deref().map(|name| cut(name, MACHINE_NAME_MAX)).and_then(plain_name),
        site: reporter.site.as_deref().map(tidy),
        truncated,
    };
    fit(&mut report);
    report
}

fn shorten<T>(what: List, mut list: Vec<T>, most: usize, truncated: &mut Vec<String>) -> Vec<T> {
    if list.len() > most {
        truncated.push(what.cut(&format!("{} of {} left out", list.len() - most, list.len())));
        list.truncate(most);
    }
    list
}

/// Puts the interface that the machine booted from in front, so that it is never among those that are left out.
fn booted_first(mut nics: Vec<Nic>) -> Vec<Nic> {
    nics.sort_by_key(|nic| !nic.boot);
    nics
}

/// Drops devices until the report fits its bound when signed, which doubles its quotes and backslashes.
fn fit(report: &mut HardwareReport) {
    let all = report.devices.len();
    while !report.devices.is_empty()
        && serde_json::to_vec(report).is_ok_and(|json| json.len() > REPORT_BYTES_MAX / 2 - 1024)
    {
        report.devices.truncate(report.devices.len() / 2);
    }
    if report.devices.len() < all {
        let left_out = all - report.devices.len();
        let cut = List::Devices.cut(&format!("{left_out} of {all} left out, the report was too long"));
        report.truncated.push(cut);
    }
}
