//! The hardware report of a machine: as it is sent, and as it is trusted once every bound has been checked. Version 1.
//! Owns the schema; touches `disks`, `id`, `limits`, `list`, `text`, `trust`.
//!
//! The report is a JSON document. A list that is longer than its bound is cut by the reporter and named in `truncated`;
//! the server never guesses what was left out. A longer list is refused while it is read, so that an entry of two bytes
//! on the wire never becomes one of twenty-four in memory.
//!
//! A report is refused for what would harm the server, never for odd hardware: a disk that nobody wants to install to
//! must not hide a machine. A value that only a later reporter knows is read as unknown.

// The lists that may be cut, and how that is said.
mod lists;

use serde::{Deserialize, Serialize};

pub use crate::disks::{Bus, Contents, Disk, Kinship, Unusable};
pub use lists::List;

use crate::id::{Hash, Mac};
use crate::limits::{
    MACHINE_NAME_MAX, REPORT_CUTS_MAX, REPORT_FOUND_MAX, REPORT_LIST_MAX, REPORT_NICS_MAX, REPORT_STRING_MAX,
    cut,
};
use crate::list;
use crate::text::{is_format, plain_name};
use crate::trust::{PublicKey, Signable};

/// The version of the report that this program writes and reads.
pub const REPORT_VERSION: u32 = 1;

/// The kind of firmware that started the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// Legacy BIOS.
    Bios,
    /// UEFI, with Secure Boot off or absent.
    Uefi,
    /// UEFI with Secure Boot enforced.
    UefiSecure,
    /// Not booted by firmware: the agent as an ordinary process.
    None,
    /// A value of a later reporter.
    #[serde(other)]
    Other,
}

/// The machine's own names, from SMBIOS tables 1 to 3. Empty where the firmware gives none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct System {
    /// The manufacturer, as the firmware spells it.
    pub manufacturer: String,
    /// The product's name, which many machines share.
    pub product: String,
    /// The system's serial number.
    pub serial: String,
    /// The system's UUID, in the byte order that `dmidecode` and iPXE show.
    pub uuid: String,
    /// The main board's serial number.
    pub board_serial: String,
    /// The chassis' serial number.
    pub chassis_serial: String,
    /// The owner's asset tag.
    pub asset_tag: String,
}

/// The processors, all of which are of the first one's model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Cpu {
    /// The architecture as the kernel names it: `x86_64`, `aarch64`.
    pub architecture: String,
    /// The model's name, as the first processor gives it; empty where it gives none.
    pub model: String,
    /// How many logical processors are online.
    pub threads: u32,
}

/// One network interface that a cable can be plugged into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Nic {
    /// The kernel's name of it on this boot.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The kernel driver bound to it; empty when none is.
    #[serde(default)]
    pub driver: String,
    /// Link speed in Mbit/s; none when the driver does not tell.
    #[serde(default)]
    pub speed_mbit: Option<u32>,
    /// Whether it has a link.
    #[serde(default)]
    pub link: bool,
    /// Its IPv4 address with prefix length, such as `10.0.0.7/24`; none when the reporter gave it none.
    #[serde(default)]
    pub address: Option<String>,
    /// Whether the machine network-booted from it.
    #[serde(default)]
    pub boot: bool,
    /// Whether it is on USB: an adapter that is carried from machine to machine, or a gadget of a BMC.
    #[serde(default)]
    pub usb: bool,
}

/// One device on a bus for which drivers are chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Device {
    /// Its address on its bus, such as `0000:00:1f.2`.
    pub address: String,
    /// The text by which the kernel chooses drivers: `pci:v00008086d…`, `virtio:d00000001v…`.
    pub modalias: String,
    /// The PCI class (24 bits), 0 where there is none.
    #[serde(default)]
    pub class: u32,
    /// The driver that is bound, empty when none is.
    #[serde(default)]
    pub driver: String,
}

/// A machine's hardware, as its loader (or an agent as an ordinary process) reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HardwareReport {
    /// The version of this document: 1.
    pub version: u32,
    /// The version of the program that reports.
    pub reporter: String,
    /// The public half of the key that the machine made at this boot.
    pub key: PublicKey,
    /// The kind of firmware that started the machine, which decides what it can boot.
    pub firmware: Firmware,
    /// The machine's names from SMBIOS; empty for an agent as an ordinary process.
    #[serde(default)]
    pub system: System,
    /// Its processors, all sockets together.
    #[serde(default)]
    pub cpu: Cpu,
    /// Memory that the kernel can use, in bytes.
    pub memory_bytes: u64,
    /// Its disks, in the order of the kernel's names.
    #[serde(default, deserialize_with = "list::read::<_, _, REPORT_LIST_MAX>")]
    pub disks: Vec<Disk>,
    /// Its network interfaces, the one that it booted from first.
    #[serde(default, deserialize_with = "list::read::<_, _, REPORT_NICS_MAX>")]
    pub nics: Vec<Nic>,
    /// Its devices on PCI, virtio and USB.
    #[serde(default, deserialize_with = "list::read::<_, _, REPORT_LIST_MAX>")]
    pub devices: Vec<Device>,
    /// The hash of the index of drivers that the loader has or can fetch by itself; none where it is not told. A bundle
    /// for this machine need not have any of a kit with that index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drivers: Option<Hash>,
    /// A name to show, from `--name`; none where the reporter was given none.
    #[serde(default)]
    pub name: Option<String>,
    /// The site, from `--site`; none where the reporter was not told.
    #[serde(default)]
    pub site: Option<String>,
    /// The lists that were cut, each with how much was left out; empty when the report is whole.
    #[serde(default, deserialize_with = "list::read::<_, _, REPORT_CUTS_MAX>")]
    pub truncated: Vec<String>,
}

impl HardwareReport {
    /// The report's text about `list` having been cut; none when it is complete.
    #[must_use]
    pub fn cut_of(&self, list: List) -> Option<&str> {
        self.truncated.iter().map(String::as_str).find(|text| text.starts_with(list.name()))
    }

    /// A copy without the devices, for lists of machines: devices are most of a report, so they are not even copied.
    /// Every field is named here, so that a later one cannot be forgotten.
    #[must_use]
    pub fn without_devices(&self) -> Self {
        let Self {
            version,
            reporter,
            key,
            firmware,
            system,
            cpu,
            memory_bytes,
            disks,
            nics,
            devices: _,
            drivers,
            name,
            site,
            truncated,
        } = self;
        Self {
            version: *version,
            reporter: reporter.clone(),
            key: *key,
            firmware: *firmware,
            system: system.clone(),
            cpu: cpu.clone(),
            memory_bytes: *memory_bytes,
            disks: disks.clone(),
            nics: nics.clone(),
            devices: vec![],
            drivers: *drivers,
            name: name.clone(),
            site: site.clone(),
            truncated: truncated.clone(),
        }
    }
}

/// A report as it is signed and sent. Server and machine each put something new into it, so that neither an old report
/// nor an old answer can be taken for a new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentReport {
    /// The server's nonce for this report.
    pub nonce: String,
    /// The machine's random salt for this report; the verdict names the hash of the whole.
    pub salt: String,
    /// The hardware report itself.
    pub hardware: HardwareReport,
}

impl Signable for SentReport {
    const DOMAIN: &'static str = "swarmboot hardware report 2";
}

/// Why a report was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReport {
    /// A version that this program does not read.
    #[error("hardware report version {0}; this server reads version {REPORT_VERSION}")]
    Version(u32),
    /// A value outside its bounds.
    #[error("hardware report with {0}")]
    Value(String),
}

/// A report within every bound. Made only by [`CheckedHardware::check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct CheckedHardware(HardwareReport);

impl CheckedHardware {
    /// Checks `report` against every bound. Format characters are dropped from its texts, and its name is made plain:
    /// neither is a reason to leave a machine unknown.
    ///
    /// # Errors
    /// When a bound is exceeded, or a text holds control characters (it would reach an admin's terminal).
    pub fn check(mut report: HardwareReport) -> Result<Self, BadReport> {
        if report.version != REPORT_VERSION {
            return Err(BadReport::Version(report.version));
        }
        check_lists(&report)?;
        for text in texts_of(&mut report) {
            check_text(text)?;
        }
        report.name = report.name.as_deref().map(|name| cut(name, MACHINE_NAME_MAX)).and_then(plain_name);
        Ok(Self(report))
    }

    /// The report in at most `most` bytes of JSON: without its devices, then also without what is on its disks, then
    /// also without the disks, each time with a text in `truncated`. None when it is short enough already.
    #[must_use]
    pub fn shortened(&self, most: usize) -> Option<Self> {
        let fits = |report: &HardwareReport| serde_json::to_vec(report).is_ok_and(|json| json.len() <= most);
        if fits(&self.0) {
            return None;
        }
        let mut short = self.0.without_devices();
        let left_out = |report: &mut HardwareReport, list: List| {
            report.truncated.truncate(REPORT_CUTS_MAX - 3);
            report.truncated.push(list.cut("not kept of a long report before the machine is approved"));
        };
        left_out(&mut short, List::Devices);
        if !fits(&short) {
            for disk in &mut short.disks {
                disk.found.clear();
                disk.volumes.clear();
            }
            left_out(&mut short, List::OnDisks);
        }
        if !fits(&short) {
            short.disks.clear();
            left_out(&mut short, List::Disks);
        }
        Some(Self(short))
    }

    /// The report, within all bounds.
    #[must_use]
    pub fn report(&self) -> &HardwareReport {
        &self.0
    }
}

fn check_lists(report: &HardwareReport) -> Result<(), BadReport> {
    let lists = [
        ("disks", report.disks.len(), REPORT_LIST_MAX),
        ("network interfaces", report.nics.len(), REPORT_NICS_MAX),
        ("devices", report.devices.len(), REPORT_LIST_MAX),
        ("truncated lists", report.truncated.len(), REPORT_CUTS_MAX),
    ];
    let found = report.disks.iter().map(|disk| ("words about a disk", disk.found.len(), REPORT_FOUND_MAX));
    let volumes =
        report.disks.iter().map(|disk| ("file systems of a disk", disk.volumes.len(), REPORT_FOUND_MAX));
    for (what, len, most) in lists.into_iter().chain(found).chain(volumes) {
        if len > most {
            return Err(BadReport::Value(format!("{len} {what}, more than {most}")));
        }
    }
    Ok(())
}

/// Every text of a report, also those inside its lists.
fn texts_of(report: &mut HardwareReport) -> impl Iterator<Item = &mut String> {
    let system = &mut report.system;
    let own = [
        &mut report.reporter,
        &mut system.manufacturer,
        &mut system.product,
        &mut system.serial,
        &mut system.uuid,
        &mut system.board_serial,
        &mut system.chassis_serial,
        &mut system.asset_tag,
        &mut report.cpu.architecture,
        &mut report.cpu.model,
    ];
    let disks = report.disks.iter_mut().flat_map(|disk| {
        let own = [&mut disk.name, &mut disk.model, &mut disk.serial, &mut disk.wwn, &mut disk.path];
        let volumes = disk.volumes.iter_mut();
        let names = volumes.flat_map(|volume| [&mut volume.kind, &mut volume.label, &mut volume.uuid]);
        own.into_iter().chain(&mut disk.found).chain(names)
    });
    let nics = report
        .nics
        .iter_mut()
        .flat_map(|nic| [&mut nic.name, &mut nic.driver].into_iter().chain(&mut nic.address));
    let devices = report
        .devices
        .iter_mut()
        .flat_map(|device| [&mut device.address, &mut device.modalias, &mut device.driver]);
    let given = report.name.iter_mut().chain(&mut report.site).chain(&mut report.truncated);
    own.into_iter().chain(disks).chain(nics).chain(devices).chain(given)
}

fn check_text(text: &mut String) -> Result<(), BadReport> {
    if text.len() > REPORT_STRING_MAX {
        return Err(BadReport::Value(format!("a text of {} bytes", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(BadReport::Value("control characters in a text".to_owned()));
    }
    text.retain(|c| !is_format(c));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, nic, report};

    fn network_card() -> Device {
        let modalias = "pci:v00008086d0000100E".to_owned();
        Device { address: "0000:00:03.0".to_owned(), modalias, class: 0x02_0000, driver: String::new() }
    }

    #[test]
    fn what_exceeds_a_bound_is_not_believed() {
        assert!(CheckedHardware::check(report()).is_ok());

        let mut later = report();
        later.version = 2;
        assert_eq!(CheckedHardware::check(later), Err(BadReport::Version(2)));

        let mut long = report();
        long.system.serial = "x".repeat(REPORT_STRING_MAX + 1);
        assert!(CheckedHardware::check(long).is_err());

        let mut escape = report();
        escape.system.product = "\u{1b}[2J".to_owned();
        assert!(CheckedHardware::check(escape).is_err());
    }

    #[test]
    fn every_list_has_its_bound() {
        let disk = |found: usize| Disk { found: vec![String::new(); found], ..testing::disk("sda") };
        let taken = |change: &dyn Fn(&mut HardwareReport)| {
            let mut report = report();
            change(&mut report);
            let text = serde_json::to_string(&report).unwrap();
            let read = serde_json::from_str::<HardwareReport>(&text).is_ok();
            assert_eq!(read, CheckedHardware::check(report).is_ok(), "reading and checking agree");
            read
        };
        let nics = |count: usize| taken(&|report| report.nics = vec![nic(Mac([2, 0, 0, 0, 0, 1])); count]);
        assert!(nics(REPORT_NICS_MAX) && !nics(REPORT_NICS_MAX + 1));
        let found = |count: usize| taken(&|report| report.disks = vec![disk(count)]);
        assert!(found(REPORT_FOUND_MAX) && !found(REPORT_FOUND_MAX + 1) && !found(500_000));
        let cuts = |count: usize| taken(&|report| report.truncated = vec![String::new(); count]);
        assert!(cuts(REPORT_CUTS_MAX) && !cuts(REPORT_CUTS_MAX + 1));
        let disks = |count: usize| taken(&|report| report.disks = (0..count).map(|_| disk(0)).collect());
        assert!(disks(REPORT_LIST_MAX) && !disks(REPORT_LIST_MAX + 1));
    }

    #[test]
    fn a_long_report_is_kept_short_and_says_so() {
        let disk = |number: usize, found: usize| Disk {
            serial: format!("S{number}"),
            contents: Contents::Data,
            found: vec!["x".repeat(500); found],
            ..testing::disk(&format!("sd{number}"))
        };
        let device = network_card();
        let shortened = |disks: Vec<Disk>, devices: usize| {
            let whole = HardwareReport { disks, devices: vec![device.clone(); devices], ..report() };
            CheckedHardware::check(whole).unwrap().shortened(64 << 10).map(|short| short.0)
        };
        assert_eq!(shortened(vec![disk(0, 8)], 150), None, "an ordinary machine");
        let short = shortened(vec![disk(0, 8)], 4000).unwrap();
        assert_eq!((short.devices.len(), short.disks[0].found.len(), short.truncated.len()), (0, 8, 1));
        let short = shortened((0..10).map(|number| disk(number, 64)).collect(), 4000).unwrap();
        assert_eq!((short.disks.len(), short.disks[0].found.len(), short.truncated.len()), (10, 0, 2));
        let short = shortened((0..4000).map(|number| disk(number, 1)).collect(), 4000).unwrap();
        assert_eq!((short.disks.len(), short.truncated.len()), (0, 3));
        assert!(serde_json::to_vec(&short).unwrap().len() < 64 << 10);
    }

    #[test]
    fn texts_are_made_harmless_and_names_plain() {
        let mut odd = report();
        odd.system.product = "Opti\u{202e}Plex".to_owned();
        odd.name = Some("rack1\u{200b} 05\u{202e}".to_owned());
        let checked = CheckedHardware::check(odd).unwrap();
        assert_eq!(checked.report().system.product, "OptiPlex");
        assert_eq!(checked.report().name.as_deref(), Some("rack1-05"));
        let mut empty = report();
        empty.name = Some("\u{202e} ".to_owned());
        assert_eq!(CheckedHardware::check(empty).unwrap().report().name, None);
    }

    #[test]
    fn without_devices_all_else_is_kept() {
        let mut whole = report();
        whole.system.serial = "s1".to_owned();
        (whole.name, whole.site) = (Some("a".to_owned()), Some("b".to_owned()));
        whole.truncated = vec!["disks: 3".to_owned()];
        whole.devices = vec![network_card()];
        let shown = whole.without_devices();
        whole.devices.clear();
        assert_eq!(shown, whole);
    }

    #[test]
    fn a_field_or_word_of_a_later_reporter_is_no_error() {
        let mut value = serde_json::to_value(report()).unwrap();
        value["lldp"] = serde_json::json!({"port": "eth7"});
        value["firmware"] = "coreboot".into();
        let disk = |bus: &str, contents: &str| serde_json::json!({"name": "a", "bus": bus, "size": 1, "sector_bytes": 512, "contents": contents});
        value["disks"] = vec![disk("ufs", "encrypted"), disk("nvme", "blank")].into();
        let report = serde_json::from_value::<HardwareReport>(value).unwrap();
        assert_eq!(report.firmware, Firmware::Other);
        let report = CheckedHardware::check(report).unwrap();
        let contents: Vec<Contents> = report.report().disks.iter().map(|disk| disk.contents).collect();
        assert_eq!(contents, [Contents::Unknown, Contents::Blank]);
    }

    /// Seen: a medium of 2048 (util-linux#396), a drive left at 528 (openSeaChest#156), 8192 and more from Linux 6.15.
    #[test]
    fn an_odd_disk_does_not_hide_its_machine() {
        for sector_bytes in [0, 1, 520, 528, 1024, 2048, 4160, 8192, 16384, 65536, u32::MAX] {
            let disk =
                serde_json::json!({"name": "a", "bus": "ata", "size": 1 << 20, "sector_bytes": sector_bytes});
            let disk: Disk = serde_json::from_value(disk).unwrap();
            let checked = CheckedHardware::check(HardwareReport { disks: vec![disk], ..report() }).unwrap();
            assert_eq!(checked.report().disks[0].unusable(), Some(Unusable::SectorBytes(sector_bytes)));
        }
    }
}
