//! Core: which modules and firmware of a boot kit one machine needs: the drivers of its network and its disks, and what
//! those depend on. Touches `common` and `kit::part_of`, which says what a module is for.

use std::collections::BTreeSet;

use common::hardware::{CheckedHardware, Firmware};
use common::modules::{ModuleIndex, alias_matches};
use serde::{Deserialize, Serialize};

use crate::kit::part_of;

/// Drivers that are needed only once another one has been loaded, for devices that the report cannot show before: a
/// disk behind a SCSI, ATA or USB controller, and a card behind its slot. The second is needed wherever the first is.
const BEHIND: [(&str, &str); 3] = [("scsi_mod", "sd_mod"), ("mmc_core", "mmc_block"), ("usb_storage", "uas")];

/// The contents of a machine's bundle besides the agent. Machines with equal needs share a bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Needs {
    /// Names of modules and of all that they depend on, ascending.
    pub modules: Vec<String>,
    /// Firmware files, as paths below the kit's `firmware` folder, ascending.
    pub firmware: Vec<String>,
}

/// What the machine that reported `hardware` needs of a kit with the modules `index` and the firmware files
/// `firmware`.
#[must_use]
pub fn needs<'a>(
    hardware: &CheckedHardware,
    index: &ModuleIndex,
    firmware: impl IntoIterator<Item = &'a str>,
) -> Needs {
    let report = hardware.report();
    // Machines have many devices of one kind; each kind is looked up once.
    let kinds: BTreeSet<&str> = report.devices.iter().map(|device| device.modalias.as_str()).collect();
    let mut wanted: BTreeSet<&str> = kinds.into_iter().flat_map(|alias| index.wanted(alias)).collect();
    let bound =
        report.devices.iter().map(|device| &device.driver).chain(report.nics.iter().map(|nic| &nic.driver));
    wanted.extend(bound.filter_map(|driver| index.get(driver)).map(|module| module.name.as_str()));
    // Modules that are in the kit only as dependencies may match devices of their own that no deployment needs.
    wanted.retain(|name| index.get(name).is_some_and(|module| part_of(&module.path).is_some()));
    if matches!(report.firmware, Firmware::Uefi | Firmware::UefiSecure | Firmware::Other) {
        wanted.extend(index.get("efivarfs").map(|module| module.name.as_str()));
    }
    let mut modules = closure(index, &wanted);
    for (before, behind) in BEHIND {
        if modules.contains(before) {
            wanted.extend(index.get(behind).map(|module| module.name.as_str()));
        }
    }
    modules = closure(index, &wanted);
    let named: Vec<&String> =
        modules.iter().filter_map(|name| index.get(name)).flat_map(|module| &module.firmware).collect();
    let fits = |name: &&str| named.iter().any(|pattern| alias_matches(pattern, name));
    let firmware: BTreeSet<&str> = firmware.into_iter().filter(fits).collect();
    Needs {
        modules: modules.into_iter().map(str::to_owned).collect(),
        firmware: firmware.into_iter().map(str::to_owned).collect(),
    }
}

impl Needs {
    /// Adds what hooks mount a root with `file_system` by: loop devices and that file system, with all they need.
    ///
    /// # Errors
    /// The module that the kit has not got and that is no part of its kernel.
    pub fn add_for_hooks(&mut self, index: &ModuleIndex, file_system: &str) -> Result<(), String> {
        let mut wanted: BTreeSet<&str> = self.modules.iter().map(String::as_str).collect();
        for name in ["loop", file_system] {
            match index.get(name) {
                Some(module) => drop(wanted.insert(&module.name)),
                None if index.is_builtin(name) => {}
                None => return Err(name.to_owned()),
            }
        }
        self.modules = closure(index, &wanted).into_iter().map(str::to_owned).collect();
        Ok(())
    }
}

fn closure<'a>(index: &'a ModuleIndex, wanted: &BTreeSet<&str>) -> BTreeSet<&'a str> {
    index.load_order_of(wanted.iter().copied()).into_iter().map(|module| module.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use common::modules::Module;

    use super::*;

    fn module(name: &str, depends: &[&str], pre: &[&str], aliases: &[&str]) -> Module {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let path = format!("kernel/{name}.ko");
        let (depends, pre, aliases) = (owned(depends), owned(pre), owned(aliases));
        Module { name: name.to_owned(), path, depends, pre, aliases, ..Module::default() }
    }

    /// As Debian's kernel has them.
    fn kit(without: &str) -> ModuleIndex {
        let mut modules = vec![
            module("loop", &[], &[], &[]),
            module("xfs", &["libcrc32c"], &[], &["fs-xfs"]),
            module(
                "btrfs",
                &["zstd_compress", "raid6_pq", "xor", "libcrc32c"],
                &["blake2b-256", "crypto-crc32c"],
                &[],
            ),
            module("libcrc32c", &[], &["crc32c"], &[]),
            module("zstd_compress", &[], &[], &[]),
            module("raid6_pq", &[], &[], &[]),
            module("xor", &[], &[], &[]),
            module("blake2b_generic", &[], &[], &["blake2b-256"]),
            module("crc32c_generic", &[], &[], &["crc32c", "crypto-crc32c"]),
        ];
        modules.retain(|module| module.name != without);
        ModuleIndex::new("6.1".to_owned(), modules, ["ext4".to_owned()]).unwrap()
    }

    #[test]
    fn a_root_is_mounted_by_its_file_system_and_all_that_needs() {
        let with = |file_system| {
            let mut needs = Needs::default();
            needs.add_for_hooks(&kit(""), file_system).map(|()| needs.modules.join(" "))
        };
        assert_eq!(with("ext4").unwrap(), "loop", "ext4 is part of this kernel");
        assert_eq!(with("xfs").unwrap(), "crc32c_generic libcrc32c loop xfs");
        assert_eq!(
            with("btrfs").unwrap(),
            "blake2b_generic btrfs crc32c_generic libcrc32c loop raid6_pq xor zstd_compress"
        );
    }

    #[test]
    fn a_kit_that_cannot_mount_the_root_is_told_before_anything_is_written() {
        for (without, file_system) in [("xfs", "xfs"), ("btrfs", "btrfs"), ("loop", "ext4")] {
            let lacks = Needs::default().add_for_hooks(&kit(without), file_system);
            assert_eq!(lacks, Err(without.to_owned()));
        }
    }
}
