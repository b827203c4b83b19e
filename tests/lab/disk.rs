//! Owns the machines' disks: raw, sparse files. Makes them blank, random or as copies, and afterwards compares them, by
//! hash or byte for byte. Touches files only.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Bytes of a MiB.
pub const MIB: u64 = 1 << 20;

/// Makes a blank disk of `bytes`.
///
/// # Errors
/// When the file cannot be made.
pub fn blank(path: &Path, bytes: u64) -> Result<PathBuf> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    file.set_len(bytes)?;
    Ok(path.to_owned())
}

/// Makes a disk of `bytes` zeros whose space is allocated already, like a real disk's: so only the writing itself is
/// measured. The zeros are written: of a file in memory, `fallocate` reserves pages that nobody has touched yet, and
/// where the computer is itself a virtual machine, its host provides each at the first touch, at up to 5 s per GiB, ten
/// times as slowly as a program writes.
///
/// # Errors
/// When the file cannot be made, or there is no room for it.
pub fn allocated(path: &Path, bytes: u64) -> Result<PathBuf> {
    let mut file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    std::io::copy(&mut std::io::repeat(0).take(bytes), &mut file)
        .with_context(|| format!("no room for {} ({bytes} bytes)", path.display()))?;
    Ok(path.to_owned())
}

/// Makes a file of `bytes` that do not compress. The same seed gives the same bytes, whatever the length.
///
/// # Errors
/// When the file cannot be made.
pub fn random(path: &Path, bytes: u64, seed: u64) -> Result<PathBuf> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    std::io::copy(&mut hasher.finalize_xof().take(bytes), &mut out)?;
    out.flush()?;
    Ok(path.to_owned())
}

/// Makes a disk of `bytes` that begins with the bytes of `image`, as if somebody had written it there by hand.
///
/// # Errors
/// When the image is larger than the disk, or a file cannot be read or written.
pub fn holding(path: &Path, image: &Path, bytes: u64) -> Result<PathBuf> {
    let length = std::fs::metadata(image).with_context(|| format!("no image {}", image.display()))?.len();
    ensure!(length <= bytes, "{} does not fit on a disk of {bytes} bytes", image.display());
    let sparse = ["--sparse=always", "--no-target-directory"].map(std::ffi::OsStr::new);
    crate::process::output("cp", sparse.into_iter().chain([image.as_os_str(), path.as_os_str()]))?;
    File::options().write(true).open(path)?.set_len(bytes)?;
    Ok(path.to_owned())
}

/// Makes a disk of `bytes` that holds only the first `start` bytes of `image`: it looks as if it would boot.
///
/// # Errors
/// When a file cannot be read or written.
pub fn holding_start(path: &Path, image: &Path, start: u64, bytes: u64) -> Result<PathBuf> {
    let source = File::open(image).with_context(|| format!("no image {}", image.display()))?;
    let mut disk = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    std::io::copy(&mut source.take(start), &mut disk)?;
    disk.set_len(bytes)?;
    Ok(path.to_owned())
}

/// The BLAKE3 hash of a whole file.
///
/// # Errors
/// When it cannot be read.
pub fn hash(path: &Path) -> Result<String> {
    hash_range(path, 0, u64::MAX)
}

/// The BLAKE3 hash of at most `bytes` of a file from `offset` on.
///
/// # Errors
/// When it cannot be read.
pub fn hash_range(path: &Path, offset: u64, bytes: u64) -> Result<String> {
    use std::io::{Seek as _, SeekFrom};
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.seek(SeekFrom::Start(offset))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.take(bytes))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// The offsets of the MiB in which a disk differs from an image, ascending. Bytes behind the image's end are not
/// compared. Personalising changes the partition table and the CIDATA partition, and nothing else.
///
/// # Errors
/// When one of them cannot be read, or the disk is shorter than the image.
pub fn differences(disk: &Path, image: &Path) -> Result<Vec<u64>> {
    let open = |path: &Path| File::open(path).with_context(|| format!("cannot read {}", path.display()));
    let (disk, image) = (open(disk)?, open(image)?);
    let length = image.metadata()?.len();
    ensure!(disk.metadata()?.len() >= length, "the disk is shorter than the image");
    let (mut disk, mut image) = (BufReader::new(disk), BufReader::new(image));
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut offsets = vec![];
    let mut offset = 0;
    while offset < length {
        let count = usize::try_from(MIB.min(length - offset))?;
        disk.read_exact(&mut left[..count])?;
        image.read_exact(&mut right[..count])?;
        if left[..count] != right[..count] {
            offsets.push(offset);
        }
        offset += MIB;
    }
    Ok(offsets)
}

/// Whether every byte of a file is zero: nothing was written to this disk.
///
/// # Errors
/// When it cannot be read.
pub fn is_blank(path: &Path) -> Result<bool> {
    is_blank_until(path, u64::MAX)
}

/// Whether the first `bytes` of a file are zeros.
///
/// # Errors
/// When it cannot be read.
pub fn is_blank_until(path: &Path, bytes: u64) -> Result<bool> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut file = file.take(bytes);
    let mut piece = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Ok(true);
        }
        if piece[..count].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_compared_with_its_image() {
        let folder = tempfile::tempdir().unwrap();
        let image = random(&folder.path().join("image"), 3 * MIB + 5, 1).unwrap();
        let disk = holding(&folder.path().join("disk"), &image, 5 * MIB).unwrap();
        assert_eq!(differences(&disk, &image).unwrap(), Vec::<u64>::new());
        assert_eq!(hash(&image).unwrap(), hash_range(&disk, 0, 3 * MIB + 5).unwrap());
        let mut bytes = std::fs::read(&disk).unwrap();
        bytes[usize::try_from(MIB).unwrap()] ^= 1;
        std::fs::write(&disk, bytes).unwrap();
        assert_eq!(differences(&disk, &image).unwrap(), [MIB]);
        assert!(holding(&disk, &image, MIB).is_err());
    }

    #[test]
    fn blank_is_blank_and_random_is_not() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_blank(&blank(&folder.path().join("a"), 2 * MIB).unwrap()).unwrap());
        assert!(!is_blank(&random(&folder.path().join("b"), 10, 7).unwrap()).unwrap());
    }
}
