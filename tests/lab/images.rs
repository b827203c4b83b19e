//! Owns the way to what is installed and booted: the two operating systems that `image.sh` builds and the packages
//! that `kernel.sh` fetches. Both keep what they made under `target/lab`, or where `SWARMBOOT_LAB` says.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// What image A says above its login prompt.
pub const BANNER_A: &str = "swarmboot lab image A";
/// What image B says above its login prompt.
pub const BANNER_B: &str = "swarmboot lab image B";

/// Two real operating systems that share all but a few chunks.
#[derive(Debug, Clone)]
pub struct Images {
    /// Says [`BANNER_A`].
    pub a: PathBuf,
    /// Says [`BANNER_B`].
    pub b: PathBuf,
}

/// The two images; the first time this takes a minute or three and fetches packages.
///
/// # Errors
/// When they cannot be built; the script has said why on standard error.
pub fn debian() -> Result<Images> {
    match script("image.sh")?.as_slice() {
        [a, b] => Ok(Images { a: a.clone(), b: b.clone() }),
        other => bail!("image.sh named {} images instead of two", other.len()),
    }
}

/// The packages for `kit import --deb …`: a kernel with all its drivers, and iPXE.
///
/// # Errors
/// When they cannot be fetched; the script has said why on standard error.
pub fn kit_packages() -> Result<Vec<PathBuf>> {
    script("kernel.sh")
}

/// The arguments of a `kit import` of these packages.
#[must_use]
pub fn kit_import(packages: &[PathBuf]) -> Vec<String> {
    let mut words = vec!["kit".to_owned(), "import".to_owned()];
    for package in packages {
        words.extend(["--deb".to_owned(), package.display().to_string()]);
    }
    words
}

/// Runs one of our scripts and gives the paths it prints.
fn script(name: &str) -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cache = std::env::var_os("SWARMBOOT_LAB").map_or_else(|| root.join("target/lab"), PathBuf::from);
    let path = root.join("tests/lab").join(name);
    let result = Command::new("bash")
        .arg(&path)
        .arg(cache)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", path.display()))?;
    if !result.status.success() {
        bail!("{name} failed ({})", result.status);
    }
    Ok(String::from_utf8_lossy(&result.stdout).lines().map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::vm::{Bus, Firmware, Spec};
    use crate::{disk, dnsmasq::Dnsmasq, net::Net, scratch::Scratch};

    /// Both images reach their login prompt behind a DHCP server that has nothing to boot, so the firmware falls
    /// through from the network to the disk. Takes some minutes: `cargo test -p swarmboot-tests -- --ignored`.
    #[test]
    #[ignore = "boots two virtual machines"]
    fn the_images_reach_their_login_prompt() {
        let scratch = Scratch::new().unwrap();
        let (net, segment) = Net::with_segment().unwrap();
        let dnsmasq = Dnsmasq::start(&net, segment, scratch.path()).unwrap();
        let images = debian().unwrap();
        for (number, firmware, bus, image, banner) in [
            (1, Firmware::Uefi, Bus::Nvme, &images.b, BANNER_B),
            (2, Firmware::Bios, Bus::Sata, &images.a, BANNER_A),
        ] {
            let path = scratch.file(format!("disk{number}"));
            let disk = disk::holding(&path, image, 2 << 30).unwrap();
            let spec = Spec::new(number, firmware, segment).disk(bus, &disk);
            let mut vm = spec.power_on(&net, scratch.path()).unwrap();
            vm.wait_for(banner, Duration::from_secs(600)).unwrap();
            vm.wait_for("debian login:", Duration::from_secs(60)).unwrap();
            assert!(dnsmasq.log().contains(&spec.nics[0].mac), "the network was asked first");
        }
    }
}
