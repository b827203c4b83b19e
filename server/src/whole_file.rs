//! Owns writing a file whole or not at all: whoever reads it, also after a power cut, finds what was there before or all
//! of what was written. Touches the file, one beside it that ends in `.part`, and their folder. Blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes `bytes` to `path` in the place of what is there, with the permissions `mode`. What an earlier try left behind is
/// removed first: it may have other permissions, or be a link.
///
/// # Errors
/// When the folder cannot be written; then the file is as before.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let part = path.with_extension("part");
    drop(fs::remove_file(&part));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    // Without it a power cut could bring back the old name.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leftovers_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("key.pem"), folder.path().join("other"));
        fs::write(&other, "somebody else's").unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join("key.part")).unwrap();
        for text in ["first", "second"] {
            write(&path, text.as_bytes(), 0o600).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_to_string(&other).unwrap(), "somebody else's");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_cannot_be_written_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.json");
        write(&path, b"old", 0o644).unwrap();
        fs::create_dir(folder.path().join("site.part")).unwrap();
        write(&path, b"new", 0o644).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
