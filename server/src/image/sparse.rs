//! Raw images as files with holes: zeros are skipped instead of written, so that an exported image takes the
//! room of its content. Only for files made here: skipping zeros over old bytes would leave the old bytes.
//! Touches one file.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write};
use std::path::Path;

use common::chunk::is_zero;

/// The block size of common file systems; a smaller hole saves nothing.
const HOLE_BYTES: usize = 4096;

/// A new file that takes bytes in order and leaves holes for zeros. Call `finish` at the end: until then
/// the file may lack a tail of zeros.
#[derive(Debug)]
pub struct SparseFile {
    file: File,
    len: u64,
}

impl SparseFile {
    /// Makes a new file at `path`.
    ///
    /// # Errors
    /// When it cannot be made, or something is there already.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).open(path)?;
        Ok(Self { file, len: 0 })
    }

    /// Gives the file its full length and returns when it is on the disk.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn finish(self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.sync_all()
    }
}

impl Write for SparseFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for block in bytes.chunks(HOLE_BYTES) {
            if is_zero(block) {
                self.file.seek(SeekFrom::Current(i64::try_from(block.len()).unwrap_or(0)))?;
            } else {
                self.file.write_all(block)?;
            }
            self.len += block.len() as u64;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn zeros_become_holes_and_read_as_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let mut bytes = vec![0u8; 4 << 20];
        bytes[2 << 20] = 7;
        let mut file = SparseFile::create(&path).unwrap();
        file.write_all(&bytes).unwrap();
        file.finish().unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes);
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 <= 64 << 10);
        assert!(SparseFile::create(&path).is_err(), "never over something that is there");
    }
}
