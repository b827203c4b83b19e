//! Deterministic archives: newc cpio, compressed. The same content gives the same bytes, on any host and at any time,
//! because a bundle is named by its hash and machines with equal hardware must share it. Owns the order of entries,
//! their modes and their times, which are zero. Touches nothing: it is given the bytes of the files.

use std::collections::BTreeMap;
use std::io::{self, Write};

use cpio::newc;
use serde::{Deserialize, Serialize};

/// The compression of an archive. The kernel must be able to decompress the loader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// zstd at level 19.
    Zstd,
    /// xz, for a kernel that was built without zstd.
    Xz,
    /// gzip, for a kernel that was built with nothing else.
    Gzip,
}

/// The entry at one path of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Folder,
    File { mode: u32, bytes: Vec<u8> },
    CharDevice { major: u32, minor: u32 },
}

/// An archive that is being filled.
#[derive(Debug, Clone, Default)]
pub struct Archive {
    nodes: BTreeMap<String, Node>,
}

impl Archive {
    /// An archive without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder, and those above it. Paths are relative to the root, without a leading `/`.
    pub fn folder(&mut self, path: &str) {
        self.parents(path);
        self.nodes.entry(path.to_owned()).or_insert(Node::Folder);
    }

    /// Adds a file that everybody may read, and the folders above it.
    pub fn file(&mut self, path: &str, bytes: Vec<u8>) {
        self.parents(path);
        self.nodes.insert(path.to_owned(), Node::File { mode: 0o644, bytes });
    }

    /// Adds an executable file, and the folders above it.
    pub fn program(&mut self, path: &str, bytes: Vec<u8>) {
        self.parents(path);
        self.nodes.insert(path.to_owned(), Node::File { mode: 0o755, bytes });
    }

    /// Adds a character device, and the folders above it.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.parents(path);
        self.nodes.insert(path.to_owned(), Node::CharDevice { major, minor });
    }

    /// Whether there is something at this path.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    /// When the kernel unpacks, it creates no folder by itself: each must come before its entries.
    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.nodes.entry(path[..at].to_owned()).or_insert(Node::Folder);
        }
    }

    /// Bytes of all files together, before compression.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        self.nodes
            .values()
            .map(|node| if let Node::File { bytes, .. } = node { bytes.len() as u64 } else { 0 })
            .sum()
    }

    /// Packs and compresses the archive. Calls `progress` with how many bytes of content are done.
    ///
    /// # Errors
    /// When a file is longer than 4 GiB, or a compressor fails.
    pub fn pack(self, compression: Compression, progress: &mut dyn FnMut(u64)) -> io::Result<Vec<u8>> {
        match compression {
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(Vec::new(), 19)?;
                encoder.include_checksum(true)?;
                self.write(encoder, progress)?.finish()
            }
            Compression::Xz => {
                // The kernel's xz decoder supports CRC32 as the only check.
                let mut options = liblzma::stream::LzmaOptions::new_preset(9)?;
                options.dict_size(8 << 20);
                let mut filters = liblzma::stream::Filters::new();
                filters.x86().lzma2(&options);
                let stream =
                    liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32)?;
                self.write(liblzma::write::XzEncoder::new_stream(Vec::new(), stream), progress)?.finish()
            }
            Compression::Gzip => {
                let encoder = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::best());
                self.write(encoder, progress)?.finish()
            }
        }
    }

    fn write<W: Write>(self, mut out: W, progress: &mut dyn FnMut(u64)) -> io::Result<W> {
        let mut done = 0;
        for (ino, (path, node)) in (1u32..).zip(self.nodes) {
            let entry = newc::Builder::new(&path).ino(ino).nlink(1).mtime(0);
            out = match node {
                Node::Folder => entry.nlink(2).mode(0o040_755).write(out, 0).finish()?,
                Node::CharDevice { major, minor } => {
                    entry.mode(0o020_600).rdev_major(major).rdev_minor(minor).write(out, 0).finish()?
                }
                Node::File { mode, bytes } => {
                    let len = u32::try_from(bytes.len())
                        .map_err(|_| io::Error::other(format!("{path} is longer than 4 GiB")))?;
                    let mut file = entry.mode(0o100_000 | mode).write(out, len);
                    file.write_all(&bytes)?;
                    done += u64::from(len);
                    progress(done);
                    file.finish()?
                }
            };
        }
        newc::trailer(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_folder_stands_before_what_is_in_it() {
        let mut archive = Archive::new();
        archive.file("lib/modules/kernel/a.ko", b"module".to_vec());
        archive.program("init", b"program".to_vec());
        archive.device("dev/console", 5, 1);
        let packed = archive.pack(Compression::Zstd, &mut |_| {}).unwrap();
        let bytes = zstd::decode_all(&packed[..]).unwrap();
        let mut rest = &bytes[..];
        let mut names = Vec::new();
        loop {
            let reader = newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            assert_eq!(reader.entry().mtime(), 0);
            names.push(reader.entry().name().to_owned());
            rest = reader.finish().unwrap();
        }
        let wanted = ["dev", "dev/console", "init", "lib", "lib/modules", "lib/modules/kernel"];
        assert_eq!(names[..6], wanted);
        assert_eq!(names[6], "lib/modules/kernel/a.ko");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_order_of_adding_changes_nothing(
            files in proptest::collection::btree_map("[a-c]/[a-z]{1,4}", ".{0,20}", 0..8),
            kind in 0usize..3,
        ) {
            let kind = [Compression::Zstd, Compression::Xz, Compression::Gzip][kind];
            let (mut one, mut other) = (Archive::new(), Archive::new());
            for (path, text) in &files {
                one.file(path, text.clone().into_bytes());
            }
            for (path, text) in files.iter().rev() {
                other.file(path, text.clone().into_bytes());
            }
            prop_assert_eq!(one.pack(kind, &mut |_| {}).unwrap(), other.pack(kind, &mut |_| {}).unwrap());
        }
    }
}
