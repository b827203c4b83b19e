//! Moves a new kit into its place, also over an old one. Owns that at each instant, and after a power cut at any, the
//! place has the whole old kit or the whole new one. Touches the kits' folder.
//!
//! The two are exchanged by one system call where the file system supports it (ext4, XFS, btrfs, tmpfs, not NFS).
//! Elsewhere the old kit is renamed first, and [`recover`] renames it back if the new one never came.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::error::{KitError, Result, reading, writing};
use super::store::sync_dir;

/// The prefix of the old kit's name between the two renames.
const REPLACED: &str = ".replaced-";

/// Makes the kit at `made`, a folder beside the kits, durable, and then visible as `name`.
pub(super) fn put(kits: &Path, made: &Path, name: &str) -> Result<()> {
    let dir = fs::File::open(made).map_err(reading(made))?;
    // One sync for all: a thousand small files synced one by one take half a minute on a spinning disk.
    nix::unistd::syncfs(&dir).map_err(|errno| writing(made)(errno.into()))?;
    let place = kits.join(name);
    if place.exists() {
        match renameat2(AT_FDCWD, made, AT_FDCWD, &place, RenameFlags::RENAME_EXCHANGE) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => in_two_steps(kits, made, name)?,
            Err(errno) => return Err(KitError::Write { path: place, source: errno.into() }),
        }
    } else {
        fs::rename(made, &place).map_err(writing(&place))?;
    }
    sync_dir(kits)
}

fn in_two_steps(kits: &Path, made: &Path, name: &str) -> Result<()> {
    let (place, old) = (kits.join(name), kits.join(format!("{REPLACED}{name}")));
    fs::rename(&place, &old).map_err(writing(&place))?;
    sync_dir(kits)?;
    fs::rename(made, &place).map_err(writing(&place))?;
    sync_dir(kits)?;
    remove(&old)
}

/// Repairs what a power cut, or a killed import, has left. The caller must hold the kits' lock.
pub(super) fn recover(kits: &Path) -> Result<()> {
    let mut left = Vec::new();
    for entry in fs::read_dir(kits).map_err(reading(kits))? {
        left.push(entry.map_err(reading(kits))?.path());
    }
    // First the old kits, which may have to be renamed back.
    left.sort_by_key(|path| !is(path, REPLACED));
    for path in left {
        let name =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(REPLACED));
        match name.map(|name| kits.join(name)) {
            Some(place) if !place.exists() => {
                tracing::warn!(kit = %place.display(), "the import that was to replace it was cut off; it is back");
                fs::rename(&path, &place).map_err(writing(&place))?;
                sync_dir(kits)?;
            }
            Some(_) => remove(&path)?,
            None if is(&path, ".import-") || is(&path, ".removed-") => remove(&path)?,
            None => {}
        }
    }
    Ok(())
}

fn is(path: &Path, prefix: &str) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
}

fn remove(path: &PathBuf) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(KitError::Write { path: path.clone(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kit(dir: &Path, what: &str) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("kit.json"), what).unwrap();
    }

    fn holds(kits: &Path) -> String {
        fs::read_to_string(kits.join("a/kit.json")).unwrap()
    }

    fn names(kits: &Path) -> Vec<String> {
        let entries = fs::read_dir(kits).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_kit_takes_the_place_of_another_at_once_or_in_two_steps() {
        for put in [put, in_two_steps] {
            let dir = tempfile::tempdir().unwrap();
            kit(&dir.path().join("a"), "old");
            let made = dir.path().join(".import-1/kit");
            kit(&made, "new");
            put(dir.path(), &made, "a").unwrap();
            assert_eq!(holds(dir.path()), "new");
            recover(dir.path()).unwrap();
            assert_eq!((holds(dir.path()).as_str(), names(dir.path())), ("new", vec!["a".to_owned()]));
        }
    }

    /// What a power cut between any two renames leaves, and which of the two kits is there after the next start.
    #[test]
    fn after_a_cut_at_any_point_there_is_one_whole_kit() {
        let points: [(&[(&str, &str)], &str); 6] = [
            (&[("a", "old"), (".import-1/kit", "new")], "old"),
            (&[("a", "new"), (".import-1/kit", "old")], "new"),
            (&[(".replaced-a", "old"), (".import-1/kit", "new")], "old"),
            (&[(".replaced-a", "old"), ("a", "new"), (".import-1/empty", "")], "new"),
            (&[(".replaced-a", "old"), ("a", "new")], "new"),
            (&[("a", "new"), (".removed-b", "old")], "new"),
        ];
        for (left, right) in points {
            let dir = tempfile::tempdir().unwrap();
            left.iter().for_each(|(at, what)| kit(&dir.path().join(at), what));
            recover(dir.path()).unwrap();
            assert_eq!(
                (holds(dir.path()).as_str(), names(dir.path())),
                (right, vec!["a".to_owned()]),
                "{left:?}"
            );
        }
    }
}
