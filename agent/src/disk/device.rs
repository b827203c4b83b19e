//! The operations that a disk offers, and the kernel's implementation of them for block devices and plain files. Owns
//! the open file, and the only unsafe code of the disk: the ioctls.
//!
//! Writes are buffered, not `O_DIRECT`: one code path serves block devices, plain files and file systems without direct
//! writes, the page cache merges neighbouring chunks into the largest requests the device takes, and `sync_file_range`
//! starts the write-out at once so that the sync at the end of a batch finds little left to do. The price is one copy
//! in memory per byte. Reading back has to bypass the cache: [`Device::drop_cache`] first, or the answer would come
//! from memory.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};

/// The operations of a disk. Offsets and lengths are bytes, in whole sectors; every call blocks.
pub trait Device: Send + Sync + std::fmt::Debug {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Logical sector size in bytes.
    fn sector_bytes(&self) -> u32;

    /// A description for errors: name, model, serial number and the like.
    fn words(&self) -> String {
        "the disk".to_owned()
    }

    /// The identity of the open file or device, whatever its name was when it was opened.
    fn place(&self) -> Place {
        Place::Memory
    }

    /// The open file, for a loop device over a part of it.
    ///
    /// # Errors
    /// When there is none: a disk in memory.
    fn backing(&self) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Tells the kernel to read the partition table again, so that udev and an admin see the new one.
    fn reread_partitions(&self) {}

    /// Whether it is a spinning disk, which several readers at once would slow down.
    fn rotational(&self) -> bool {
        false
    }

    /// Fills `buf` with the bytes from `offset` on.
    ///
    /// # Errors
    /// When the device refuses, or ends before.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`. They survive a power loss only after [`Device::sync`].
    ///
    /// # Errors
    /// When the device refuses.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes `len` bytes at `offset` read as zeros.
    ///
    /// # Errors
    /// When the device refuses.
    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Asks the kernel to write this range out soon. A hint, without a promise or an error.
    fn start_writeout(&self, _offset: u64, _len: u64) {}

    /// Returns when every write before it survives a power loss.
    ///
    /// # Errors
    /// When the device lost a write.
    fn sync(&self) -> io::Result<()>;

    /// Drops cached bytes, so that the next reads come from the device itself.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn drop_cache(&self) -> io::Result<()>;
}

/// The kernel's identity of an open file or device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A block device, by its device numbers.
    Block {
        /// The major number, of its driver.
        major: u64,
        /// The minor number, by which the driver knows it.
        minor: u64,
    },
    /// A plain file, by its file system and its inode there.
    Plain {
        /// The device number of its file system.
        file_system: u64,
        /// The inode number.
        inode: u64,
    },
    /// A test's disk in memory.
    Memory,
}

impl Place {
    /// The identity of a file with `metadata`.
    #[must_use]
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        if metadata.file_type().is_block_device() {
            let device = metadata.rdev();
            Self::Block { major: nix::sys::stat::major(device), minor: nix::sys::stat::minor(device) }
        } else {
            Self::Plain { file_system: metadata.dev(), inode: metadata.ino() }
        }
    }
}

mod ioctl {
    use nix::libc::c_int;

    nix::ioctl_read!(size, 0x12, 114, u64);
    nix::ioctl_read_bad!(sector, nix::request_code_none!(0x12, 104), c_int);
    nix::ioctl_read_bad!(read_only, nix::request_code_none!(0x12, 94), c_int);
    nix::ioctl_none!(flush_buffers, 0x12, 97);
    nix::ioctl_none!(reread_partitions, 0x12, 95);
    nix::ioctl_write_ptr_bad!(zero_out, nix::request_code_none!(0x12, 127), [u64; 2]);
}

/// Zeros are written in pieces of this many bytes where the kernel has no cheaper way.
const ZERO_PIECE: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block,
    Plain,
}

/// The kernel's facts about a block device or a plain file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Size in bytes.
    pub size: u64,
    /// Logical sector size in bytes; 512 for a plain file.
    pub sector_bytes: u32,
    /// Whether it refuses writes.
    pub read_only: bool,
}

/// A block device or a plain file, opened exclusively.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    kind: Kind,
    facts: Facts,
    place: Place,
    rotational: bool,
    words: String,
}

impl FileDevice {
    /// Opens `path` exclusively for reading and writing: with `O_EXCL` on a block device, which the kernel refuses
    /// while anything of it is mounted, in a RAID or in LVM; with a lock on a plain file.
    ///
    /// # Errors
    /// When it is not there, in use, or neither a block device nor a plain file.
    pub fn open(path: &Path, rotational: bool) -> io::Result<Self> {
        let kind = kind_of(path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if kind == Kind::Block {
            options.custom_flags(nix::libc::O_EXCL);
        }
        let file = options.open(path)?;
        if kind == Kind::Plain {
            file.try_lock().map_err(io::Error::from)?;
        }
        let facts = facts_of(&file, kind)?;
        let place = Place::of(&file.metadata()?);
        Ok(Self { file, kind, facts, place, rotational, words: path.display().to_string() })
    }

    /// The same device, with `words` as its description in errors.
    #[must_use]
    pub fn called(self, words: String) -> Self {
        Self { words, ..self }
    }

    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = vec![0; ZERO_PIECE];
        let mut done = 0;
        while done < len {
            let piece = usize::try_from(len - done).unwrap_or(ZERO_PIECE).min(ZERO_PIECE);
            self.file.write_all_at(&zeros[..piece], offset + done)?;
            done += piece as u64;
        }
        Ok(())
    }
}

/// The facts of the file or device at `path`, without opening it for writing.
///
/// # Errors
/// When it is not there or neither a block device nor a plain file.
pub fn facts(path: &Path) -> io::Result<Facts> {
    let kind = kind_of(path)?;
    facts_of(&File::open(path)?, kind)
}

/// Whether `path` is a block device; false also when it is not there.
#[must_use]
pub fn is_block_device(path: &Path) -> bool {
    matches!(kind_of(path), Ok(Kind::Block))
}

fn kind_of(path: &Path) -> io::Result<Kind> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_block_device() {
        Ok(Kind::Block)
    } else if kind.is_file() {
        Ok(Kind::Plain)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a block device nor a plain file"))
    }
}

fn facts_of(file: &File, kind: Kind) -> io::Result<Facts> {
    if kind == Kind::Plain {
        let metadata = file.metadata()?;
        let read_only = metadata.permissions().readonly();
        return Ok(Facts { size: metadata.len(), sector_bytes: 512, read_only });
    }
    let descriptor = file.as_raw_fd();
    let (mut size, mut sector, mut read_only) = (0u64, 0, 0);
    // SAFETY: each of the three writes one integer of the type given, which outlives the call, and the
    // descriptor is that of an open block device.
    unsafe {
        ioctl::size(descriptor, &raw mut size)?;
        ioctl::sector(descriptor, &raw mut sector)?;
        ioctl::read_only(descriptor, &raw mut read_only)?;
    }
    let sector_bytes = u32::try_from(sector).map_err(io::Error::other)?;
    Ok(Facts { size, sector_bytes, read_only: read_only != 0 })
}

impl Device for FileDevice {
    fn size(&self) -> u64 {
        self.facts.size
    }

    fn sector_bytes(&self) -> u32 {
        self.facts.sector_bytes
    }

    fn words(&self) -> String {
        self.words.clone()
    }

    fn place(&self) -> Place {
        self.place
    }

    fn backing(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    fn reread_partitions(&self) {
        if self.kind == Kind::Block {
            // SAFETY: BLKRRPART takes no argument and the descriptor is open as long as `self`. Its failure
            // (a disk without partitions, a loop device) changes nothing that we wrote.
            let _ = unsafe { ioctl::reread_partitions(self.file.as_raw_fd()) };
        }
    }

    fn rotational(&self) -> bool {
        self.rotational
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        let cheap = match self.kind {
            // SAFETY: BLKZEROOUT reads two u64 (start, length) from the array, which outlives the call; the
            // kernel checks both against the device.
            Kind::Block => unsafe { ioctl::zero_out(self.file.as_raw_fd(), &[offset, len]) }.map(drop),
            // A hole reads as zeros by definition, and costs no space.
            Kind::Plain => {
                let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                match (i64::try_from(offset), i64::try_from(len)) {
                    (Ok(offset), Ok(len)) => fallocate(&self.file, flags, offset, len),
                    _ => Err(nix::errno::Errno::EFBIG),
                }
            }
        };
        // Not every device, kernel and file system has the cheap way; writing zero bytes always works.
        cheap.or_else(|_| self.write_zeros(offset, len))
    }

    fn start_writeout(&self, offset: u64, len: u64) {
        if let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) {
            let flags = nix::libc::SYNC_FILE_RANGE_WRITE;
            // SAFETY: passes integers only, and the descriptor is open as long as `self`.
            unsafe { nix::libc::sync_file_range(self.file.as_raw_fd(), offset, len, flags) };
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn drop_cache(&self) -> io::Result<()> {
        if self.kind == Kind::Block {
            // SAFETY: BLKFLSBUF takes no argument and the descriptor is open as long as `self`. It needs
            // CAP_SYS_ADMIN; without it the advice below drops the same clean pages.
            let _ = unsafe { ioctl::flush_buffers(self.file.as_raw_fd()) };
        }
        Ok(posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_file_is_ours_alone_and_reads_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![7; 3 << 20]).unwrap();
        let device = FileDevice::open(&path, false).unwrap();
        assert_eq!((device.size(), device.sector_bytes()), (3 << 20, 512));
        assert!(FileDevice::open(&path, false).is_err(), "locked");

        device.zero_at(1 << 20, 1 << 20).unwrap();
        device.write_at(512, &[9; 512]).unwrap();
        device.start_writeout(0, 1 << 20);
        device.sync().unwrap();
        device.drop_cache().unwrap();
        let mut back = vec![0; 3 << 20];
        device.read_at(0, &mut back).unwrap();
        assert!(back[512..1024].iter().all(|&byte| byte == 9));
        assert!(back[1 << 20..2 << 20].iter().all(|&byte| byte == 0));
        assert!(back[2 << 20..].iter().all(|&byte| byte == 7));
        assert!(device.read_at(3 << 20, &mut back).is_err());
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        assert!(FileDevice::open(Path::new("/dev/null"), false).is_err());
        assert!(FileDevice::open(Path::new("/nowhere/at/all"), false).is_err());
        assert!(!is_block_device(Path::new("/dev/null")));
    }
}
