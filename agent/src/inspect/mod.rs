//! Step 3, `inspect`: what this machine is made of, as a hardware report. Reads sysfs, procfs and parts
//! of disks under a given root, so that tests give it a tree; opens nothing for writing, ever.
//!
//! Texts come from firmware and disks and may hold anything: control characters become spaces, format characters
//! (which turn or hide what follows) are dropped, long ones and
//! long lists are cut, and what was cut is named in `truncated`. The kernel has parsed the SMBIOS tables
//! already (`/sys/class/dmi/id`): a second parser of whatever a firmware left there, inside PID 1, would buy
//! nothing.

use std::path::Path;

use common::hardware::{HardwareReport, List, Nic, REPORT_VERSION};
use common::id::Mac;
use common::limits::{MACHINE_NAME_MAX, REPORT_BYTES_MAX, REPORT_LIST_MAX, REPORT_NICS_MAX, cut};
use common::text::plain_name;
use common::trust::PublicKey;

use files::tidy;

// Small files, links and names of sysfs and procfs, as they may stand in a report.
mod files;

// Core: what a signature stands for, and its word.
pub mod signature;

// Core: the marks of file systems, RAIDs, volume groups and pools.
pub mod marks;

// Core: what the bytes at a disk's start and end mean.
pub mod contents;

// Reads what is on disks, all at once.
pub mod reading;

// Devices on PCI, virtio and USB.
pub mod devices;

// Disks, and what is on them.
pub mod disks;

// Physical network interfaces.
pub mod nics;

// Names, firmware, processors, memory.
pub mod system;

#[cfg(test)]
mod tests;

/// What the report says that the hardware cannot: who reports, and how the machine came here.
#[derive(Debug, Clone)]
pub struct Reporter {
    /// The public half of this boot's key.
    pub key: PublicKey,
    /// Whether firmware booted this machine for us; not so for the agent as an ordinary process.
    pub booted: bool,
    /// The interface that the machine network-booted from.
    pub boot_mac: Option<Mac>,
    /// The interface that has an address, and the address with its prefix length.
    pub address: Option<(String, String)>,
    /// A name to show (`--name`).
    pub name: Option<String>,
    /// The site that it is at (`--site`).
    pub site: Option<String>,
}

/// The hardware under `root` (`/`, or a tree that looks like it), within every bound of the server.
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

/// The interfaces with the one that the machine booted from in front: it is never among those that are left out.
fn booted_first(mut nics: Vec<Nic>) -> Vec<Nic> {
    nics.sort_by_key(|nic| !nic.boot);
    nics
}

/// Leaves devices out until the report fits its bound when signed, which doubles its quotes and backslashes.
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
