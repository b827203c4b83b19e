//! Reads qcow2 images, in order and read-only: the format of `qemu-img` and of the distributions' cloud images.
//! Versions 2 and 3, plain, zlib- and zstd-compressed clusters. What would need a second file, a key or a repair is
//! refused with the command that makes a plain image of it. Touches one file.
//!
//! The file is not trusted: tables are bounded before they are allocated, and every offset must lie in the
//! file. Field names and bits are those of QEMU's docs/interop/qcow2.txt.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use common::limits::{CHUNK_BYTES, CHUNKS_MAX};

/// The first four bytes of a qcow2 file.
pub(super) const MAGIC: &[u8; 4] = b"QFI\xfb";
/// QEMU's own limit on the L1 table, in bytes.
const L1_BYTES_MAX: u64 = 32 << 20;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

/// Why a qcow2 file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum QcowError {
    /// Reading the file failed.
    #[error("cannot read the qcow2 file at byte {offset}")]
    Read {
        /// The place in the file, in bytes.
        offset: u64,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// The file ends before something that its header or tables refer to.
    #[error("the qcow2 file is cut short: {what} at byte {offset} is past its end at {end}")]
    CutShort {
        /// What is missing, in words.
        what: &'static str,
        /// Its place in the file, in bytes.
        offset: u64,
        /// The file's length in bytes.
        end: u64,
    },
    /// The version is neither 2 nor 3.
    #[error("qcow2 version {0} is not known")]
    Version(u32),
    /// It uses a feature that is not supported here, in words.
    #[error("the qcow2 image {0}")]
    Unsupported(String),
    /// It is marked as not cleanly closed, or as corrupt.
    #[error("the qcow2 image is marked as {0}")]
    Marked(&'static str),
    /// It has a value that no sound image has.
    #[error("the qcow2 image is corrupt: {0}")]
    Corrupt(String),
}

impl QcowError {
    /// What an admin can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Unsupported(_) => "make a plain image of it: qemu-img convert -O qcow2 OLD NEW",
            Self::Marked(_) => "shut the machine down that uses it, then: qemu-img check -r all FILE",
            Self::CutShort { .. } | Self::Corrupt(_) => "get the image again, or try: qemu-img check FILE",
            Self::Version(_) => "make a plain image of it: qemu-img convert -O raw OLD NEW",
            Self::Read { .. } => return None,
        };
        Some(text.to_owned())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Zlib,
    Zstd,
}

/// Where the bytes of a cluster are in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Zeros,
    Plain(u64),
    Compressed { offset: u64, len: u64 },
}

/// An open qcow2 image, read from its first byte to its last.
#[derive(Debug)]
pub(super) struct Qcow2 {
    file: File,
    end: u64,
    version: u32,
    cluster_bits: u32,
    size: u64,
    compression: Compression,
    l1: Vec<u64>,
    /// The L2 table that was used last, with its index in the L1 table.
    l2: Option<(u64, Vec<u8>)>,
    /// The compressed cluster that was used last, with its number: with clusters larger than a read it is needed twice.
    inflated: Option<(u64, Vec<u8>)>,
    at: u64,
}

/// The entry point of `tests/fuzz`: reads an image to its end, or to `most` bytes.
#[cfg(fuzzing)]
pub fn try_qcow2(file: File, most: u64) {
    let Ok(mut image) = Qcow2::open(file) else { return };
    let mut buf = vec![0; 64 << 10];
    while image.position() < most {
        match image.fill(&mut buf) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

impl Qcow2 {
    /// Reads and checks the header and the L1 table.
    pub(super) fn open(file: File) -> Result<Self, QcowError> {
        let end = file.metadata().map_err(|source| QcowError::Read { offset: 0, source })?.len();
        let mut header = [0u8; 112];
        let present = end.min(112) as usize;
        if present < 72 {
            return Err(QcowError::CutShort { what: "the header", offset: 72, end });
        }
        read_at(&file, end, "the header", 0, &mut header[..present])?;
        let (u32_at, u64_at) = (|at: usize| be32(&header, at), |at: usize| be64(&header, at));
        let version = u32_at(4);
        if !header.starts_with(MAGIC) || !(2..=3).contains(&version) {
            return Err(QcowError::Version(version));
        }
        if u64_at(8) != 0 {
            return Err(backed(&file, end, u64_at(8), u32_at(16)));
        }
        if u32_at(32) != 0 {
            return Err(QcowError::Unsupported("is encrypted".to_owned()));
        }
        let mut compression = Compression::Zlib;
        if version == 3 {
            compression = features(u64_at(72), if u32_at(100) > 104 { header[104] } else { 0 })?;
        }
        let (cluster_bits, size) = (u32_at(20), u64_at(24));
        if !(9..=21).contains(&cluster_bits) {
            return Err(QcowError::Corrupt(format!("clusters of 2^{cluster_bits} bytes")));
        }
        if size > u64::from(CHUNKS_MAX) * u64::from(CHUNK_BYTES) {
            return Err(QcowError::Unsupported(format!("is {size} bytes large, more than any disk")));
        }
        let tables = size.div_ceil(1 << (2 * cluster_bits - 3));
        let (l1_at, l1_has) = (u64_at(40), u64::from(u32_at(36)));
        if l1_has < tables || tables * 8 > L1_BYTES_MAX {
            return Err(QcowError::Corrupt(format!(
                "an L1 table of {l1_has} entries where {tables} are needed"
            )));
        }
        if !l1_at.is_multiple_of(1 << cluster_bits) || l1_at.saturating_add(tables * 8) > end {
            return Err(QcowError::CutShort { what: "the L1 table", offset: l1_at, end });
        }
        let mut bytes = vec![0; usize::try_from(tables * 8).unwrap_or(0)];
        read_at(&file, end, "the L1 table", l1_at, &mut bytes)?;
        let l1 = bytes.chunks_exact(8).map(|entry| be64(entry, 0)).collect();
        Ok(Self { file, end, version, cluster_bits, size, compression, l1, l2: None, inflated: None, at: 0 })
    }

    /// The size of the image inside, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes of the image have been read.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// The next bytes of the image: as many as fit into `buf`, fewer only at the end.
    pub(super) fn fill(&mut self, buf: &mut [u8]) -> Result<usize, QcowError> {
        let mut filled = 0;
        while filled < buf.len() && self.at < self.size {
            let cluster = self.at >> self.cluster_bits;
            let inside = self.at & ((1 << self.cluster_bits) - 1);
            let left = ((1u64 << self.cluster_bits) - inside).min(self.size - self.at);
            let n = usize::try_from(left).map_or(buf.len(), |left| left).min(buf.len() - filled);
            self.part(cluster, inside, &mut buf[filled..filled + n])?;
            filled += n;
            self.at += n as u64;
        }
        Ok(filled)
    }

    /// Reads from byte `inside` of `cluster`.
    fn part(&mut self, cluster: u64, inside: u64, to: &mut [u8]) -> Result<(), QcowError> {
        match self.place(cluster)? {
            Place::Zeros => to.fill(0),
            Place::Plain(offset) => read_at(&self.file, self.end, "a cluster", offset + inside, to)?,
            Place::Compressed { offset, len } => {
                if self.inflated.as_ref().is_none_or(|(number, _)| *number != cluster) {
                    self.inflated = Some((cluster, self.inflate(offset, len)?));
                }
                let bytes = self.inflated.as_ref().map_or(&[][..], |(_, bytes)| bytes);
                let from = usize::try_from(inside).unwrap_or(usize::MAX);
                let part = bytes.get(from..).and_then(|rest| rest.get(..to.len()));
                to.copy_from_slice(part.ok_or_else(|| QcowError::Corrupt("a short cluster".to_owned()))?);
            }
        }
        Ok(())
    }

    /// Finds where `cluster` is in the file.
    fn place(&mut self, cluster: u64) -> Result<Place, QcowError> {
        let l2_bits = self.cluster_bits - 3;
        let table = cluster >> l2_bits;
        let l1 = usize::try_from(table).ok().and_then(|at| self.l1.get(at)).copied().unwrap_or(0) & OFFSET;
        if l1 == 0 {
            return Ok(Place::Zeros);
        }
        self.aligned("an L2 table", l1)?;
        if self.l2.as_ref().is_none_or(|(number, _)| *number != table) {
            let mut bytes = vec![0; 1 << self.cluster_bits];
            read_at(&self.file, self.end, "an L2 table", l1, &mut bytes)?;
            self.l2 = Some((table, bytes));
        }
        let at = usize::try_from(cluster & ((1 << l2_bits) - 1)).unwrap_or(0) * 8;
        let entry = self.l2.as_ref().map_or(0, |(_, bytes)| be64(bytes, at));
        if entry & COMPRESSED != 0 {
            let bits = 62 - (self.cluster_bits - 8);
            let offset = entry & ((1 << bits) - 1);
            let sectors = ((entry & (COMPRESSED - 1)) >> bits) + 1;
            return Ok(Place::Compressed { offset, len: sectors * 512 - (offset & 511) });
        }
        let offset = entry & OFFSET;
        if offset == 0 || (self.version >= 3 && entry & ZERO != 0) {
            return Ok(Place::Zeros);
        }
        self.aligned("a cluster", offset)?;
        Ok(Place::Plain(offset))
    }

    fn aligned(&self, what: &str, offset: u64) -> Result<(), QcowError> {
        if offset.is_multiple_of(1 << self.cluster_bits) {
            Ok(())
        } else {
            Err(QcowError::Corrupt(format!("{what} at byte {offset}, which is not on a cluster's border")))
        }
    }

    /// Decompresses one cluster. What follows it in its last sector belongs to other clusters.
    fn inflate(&self, offset: u64, len: u64) -> Result<Vec<u8>, QcowError> {
        if offset >= self.end {
            return Err(QcowError::CutShort { what: "a compressed cluster", offset, end: self.end });
        }
        // The last sector of the last cluster need not be complete in the file.
        let len = usize::try_from(len.min(self.end - offset)).unwrap_or(0);
        let mut packed = vec![0; len];
        read_at(&self.file, self.end, "a compressed cluster", offset, &mut packed)?;
        let mut bytes = vec![0; 1 << self.cluster_bits];
        let filled = match self.compression {
            Compression::Zlib => inflate_zlib(&packed, &mut bytes),
            Compression::Zstd => inflate_zstd(&packed, &mut bytes),
        };
        match filled {
            Ok(filled) if filled == bytes.len() => Ok(bytes),
            Ok(filled) => Err(format!("it holds {filled} of {} bytes", bytes.len())),
            Err(why) => Err(why),
        }
        .map_err(|why| QcowError::Corrupt(format!("the compressed cluster at byte {offset}: {why}")))
    }
}

fn inflate_zlib(packed: &[u8], to: &mut [u8]) -> Result<usize, String> {
    let mut stream = flate2::Decompress::new(false);
    stream.decompress(packed, to, flate2::FlushDecompress::Finish).map_err(|error| error.to_string())?;
    Ok(usize::try_from(stream.total_out()).unwrap_or(0))
}

fn inflate_zstd(packed: &[u8], to: &mut [u8]) -> Result<usize, String> {
    use zstd::stream::raw::{Decoder, InBuffer, Operation as _, OutBuffer};
    let mut decoder = Decoder::new().map_err(|error| error.to_string())?;
    let (mut input, mut output) = (InBuffer::around(packed), OutBuffer::around(to));
    loop {
        let before = (input.pos(), output.pos());
        let hint = decoder.run(&mut input, &mut output).map_err(|error| error.to_string())?;
        if hint == 0 || before == (input.pos(), output.pos()) {
            return Ok(output.pos());
        }
    }
}

/// Checks the incompatible features of a version 3 header; returns its compression type.
fn features(incompatible: u64, kind: u8) -> Result<Compression, QcowError> {
    if incompatible & 2 != 0 {
        return Err(QcowError::Marked("corrupt"));
    }
    if incompatible & 1 != 0 {
        return Err(QcowError::Marked("not cleanly closed"));
    }
    if incompatible & 4 != 0 {
        return Err(QcowError::Unsupported("keeps its data in another file".to_owned()));
    }
    if incompatible & 16 != 0 {
        return Err(QcowError::Unsupported("has subclusters (extended L2 entries)".to_owned()));
    }
    if incompatible & !0b1_1111 != 0 {
        return Err(QcowError::Unsupported(format!("has unknown features ({incompatible:#x})")));
    }
    match (incompatible & 8 != 0, kind) {
        (_, 0) => Ok(Compression::Zlib),
        (true, 1) => Ok(Compression::Zstd),
        (_, other) => Err(QcowError::Unsupported(format!("has clusters of compression type {other}"))),
    }
}

/// The error for an image that has a backing file.
fn backed(file: &File, end: u64, offset: u64, len: u32) -> QcowError {
    // The format bounds the name to 1023 bytes.
    let mut name = vec![0; len.min(1023) as usize];
    match read_at(file, end, "the backing file's name", offset, &mut name) {
        Ok(()) => QcowError::Unsupported(format!(
            "is only the difference to its backing file `{}`",
            String::from_utf8_lossy(&name)
        )),
        Err(error) => error,
    }
}

fn read_at(file: &File, end: u64, what: &'static str, offset: u64, to: &mut [u8]) -> Result<(), QcowError> {
    if offset.checked_add(to.len() as u64).is_none_or(|last| last > end) {
        return Err(QcowError::CutShort { what, offset, end });
    }
    file.read_exact_at(to, offset).map_err(|source| QcowError::Read { offset, source })
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_be_bytes(*word))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_be_bytes(*word))
}
