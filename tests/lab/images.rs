//! Owns the paths of what is installed and booted: the two operating systems that `image.sh` builds and the packages
//! that `kernel.sh` fetches. Both keep their results under `target/lab`, or where `SWARMBOOT_LAB` says.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The text above image A's login prompt.
pub const BANNER_A: &str = "swarmboot lab image A";
/// The text above image B's login prompt.
pub const BANNER_B: &str = "swarmboot lab image B";

/// Two real operating systems that share all but a few chunks.
#[derive(Debug, Clone)]
pub struct Images {
    /// Image A, which shows [`BANNER_A`].
    pub a: PathBuf,
    /// Image B, which shows [`BANNER_B`].
    pub b: PathBuf,
}

/// The paths of the two images; building them the first time takes a minute or three and fetches packages.
///
/// # Errors
/// When they cannot be built; the script has printed why on standard error.
pub fn debian() -> Result<Images> {
    match script("image.sh")?.as_slice() {
        [a, b] => Ok(Images { a: a.clone(), b: b.clone() }),
        other => bail!("image.sh named {} images instead of two", other.len()),
    }
}

/// An earlier build of image A: from the release alone, without its updates, and with a file system of another UUID.
///
/// # Errors
/// When it cannot be built; the script has printed why on standard error.
pub fn earlier() -> Result<PathBuf> {
    let images = script_with("image.sh", "earlier", &["earlier"])?;
    images.into_iter().next().context("image.sh named no image")
}

/// Image A with other roots: with XFS, and with btrfs in the subvolume `@`, which is not its default one.
///
/// # Errors
/// When they cannot be built; the script has printed why on standard error.
pub fn other_roots() -> Result<(PathBuf, PathBuf)> {
    match script("roots.sh")?.as_slice() {
        [xfs, btrfs] => Ok((xfs.clone(), btrfs.clone())),
        other => bail!("roots.sh named {} images instead of two", other.len()),
    }
}

/// The packages for `kit import --deb …`: a kernel with all its drivers, and iPXE.
///
/// # Errors
/// When they cannot be fetched; the script has printed why on standard error.
pub fn kit_packages() -> Result<Vec<PathBuf>> {
    script("kernel.sh")
}

/// The package with iPXE 2.0, which can check a file's hash, for `kit import --deb`.
///
/// # Errors
/// When it cannot be fetched; the script has printed why on standard error.
pub fn ipxe() -> Result<PathBuf> {
    script("ipxe.sh")?.pop().context("ipxe.sh named no package")
}

/// As [`kit_packages`], but with the iPXE of the package `ipxe`.
///
/// # Errors
/// When they cannot be fetched.
pub fn kit_packages_with(ipxe: &Path) -> Result<Vec<PathBuf>> {
    let mut packages = kit_packages()?;
    packages.pop();
    packages.push(ipxe.to_owned());
    Ok(packages)
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

/// Image A with one thing changed (`tests/lab/variant.sh` has the kinds), written to `out`.
///
/// # Errors
/// When it cannot be made.
pub fn variant(kind: &str, out: &Path) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/variant.sh");
    let image = debian()?.a;
    let words = [script.as_os_str(), image.as_os_str(), std::ffi::OsStr::new(kind), out.as_os_str()];
    crate::process::output("bash", words)?;
    Ok(out.to_owned())
}

/// Runs one of our scripts and returns the paths that it prints.
fn script(name: &str) -> Result<Vec<PathBuf>> {
    script_with(name, "", &[])
}

/// The same, with its results in `folder` of the cache, and more arguments.
fn script_with(name: &str, folder: &str, more: &[&str]) -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cache = std::env::var_os("SWARMBOOT_LAB").map_or_else(|| root.join("target/lab"), PathBuf::from);
    let path = root.join("tests/lab").join(name);
    let result = Command::new("bash")
        .arg(&path)
        .arg(cache.join(folder))
        .args(more)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", path.display()))?;
    if !result.status.success() {
        bail!("{name} failed ({})", result.status);
    }
    Ok(String::from_utf8_lossy(&result.stdout).lines().map(PathBuf::from).collect())
}
