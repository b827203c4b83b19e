//! Reads the machine's names, its firmware, processors and memory. Touches `/sys/class/dmi`, `/sys/firmware`,
//! `/proc/cpuinfo`, `/proc/meminfo` and the loader's `/lib/kit.json` under the root it is given.

use std::fs;
use std::path::Path;

use common::hardware::{Cpu, Firmware, System};
use common::id::Hash;
use common::modules::{LOADER_KIT, LoaderKit};

use super::files::{text, tidy};

/// The UEFI variable that says whether Secure Boot is enforced: four bytes of attributes, then 0 or 1.
const SECURE_BOOT: &str = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// The machine's names, as the kernel read them from SMBIOS; empty where firmware gives none.
#[must_use]
pub fn names(root: &Path) -> System {
    let dmi = root.join("sys/class/dmi/id");
    let name = |file: &str| text(&dmi.join(file));
    System {
        manufacturer: name("sys_vendor"),
        product: name("product_name"),
        serial: name("product_serial"),
        uuid: name("product_uuid").to_ascii_lowercase(),
        board_serial: name("board_serial"),
        chassis_serial: name("chassis_serial"),
        asset_tag: name("chassis_asset_tag"),
    }
}

/// The kind of firmware; none for a program that firmware did not boot (`booted` false).
#[must_use]
pub fn firmware(root: &Path, booted: bool) -> Firmware {
    if !booted {
        Firmware::None
    } else if !root.join("sys/firmware/efi").is_dir() {
        Firmware::Bios
    } else if fs::read(root.join(SECURE_BOOT)).is_ok_and(|bytes| bytes.get(4) == Some(&1)) {
        Firmware::UefiSecure
    } else {
        Firmware::Uefi
    }
}

/// The processors that are online: their count, and the model of the first.
#[must_use]
pub fn cpu(root: &Path) -> Cpu {
    let info = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    let values = |name: &'static str| {
        info.lines().filter_map(move |line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then_some(value)
        })
    };
    Cpu {
        architecture: std::env::consts::ARCH.to_owned(),
        model: values("model name").next().map(tidy).unwrap_or_default(),
        threads: u32::try_from(values("processor").count()).unwrap_or(u32::MAX),
    }
}

/// Memory that the kernel can use, in bytes; 0 if `/proc/meminfo` cannot be read.
#[must_use]
pub fn memory_bytes(root: &Path) -> u64 {
    let info = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map_or(0, |kib| kib.saturating_mul(1024))
}

/// The hash of the index of drivers of the kit that the loader is of; none for a program that firmware did not boot.
#[must_use]
pub fn drivers(root: &Path, booted: bool) -> Option<Hash> {
    let text = fs::read(root.join(LOADER_KIT)).ok().filter(|_| booted)?;
    serde_json::from_slice::<LoaderKit>(&text).ok()?.drivers
}
