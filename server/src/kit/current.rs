//! A cache of the default kit, read again when it has changed on the disk: its index is MiBs of JSON, and a rack that
//! powers on needs it once for each machine. Owns the test for changes. Touches files, of which it mostly reads only
//! the times.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::Result;

/// The kit that was read last, and the state of the disk at that time.
#[derive(Debug)]
pub(super) struct Current<T>(Mutex<Option<Known<T>>>);

#[derive(Debug)]
struct Known<T> {
    choice: Choice,
    name: String,
    index: Stamp,
    kit: Arc<T>,
}

impl<T> Default for Current<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Current<T> {
    /// The kit below `dir` that `choose` names and `read` reads. Both are called only when the file `mark` beside the
    /// kits, the kits' folder or the kit's own file `index` has changed since the last time, no matter which process
    /// changed it.
    pub(super) fn get(
        &self,
        dir: &Path,
        (mark, index): (&str, &str),
        choose: impl FnOnce() -> Result<String>,
        read: impl FnOnce(&str) -> Result<T>,
    ) -> Result<Arc<T>> {
        // Held while reading: a second caller waits for the result instead of reading it too.
        let mut known = self.0.lock();
        // Taken before the kit is read, so that a change in between is noticed by the next call.
        let choice = Choice::now(dir, mark);
        let index = |name: &str| stamp(&dir.join(name).join(index));
        if let Some(known) = &*known
            && known.choice == choice
            && known.index == index(&known.name)
        {
            return Ok(Arc::clone(&known.kit));
        }
        let name = choose()?;
        let index = index(&name);
        let kit = Arc::new(read(&name)?);
        *known = Some(Known { choice, name, index, kit: Arc::clone(&kit) });
        Ok(kit)
    }
}

/// Tells one state of a file or folder from the next: inode number and time; `None` when it does not exist. A file that
/// is replaced by a rename has another inode, and a folder's time changes with each name in it.
type Stamp = Option<(u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.ctime(), file.ctime_nsec()))
}

/// The state that decides which kit is the default: the mark, and which kits exist.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    mark: Option<Vec<u8>>,
    kits: Stamp,
}

impl Choice {
    fn now(dir: &Path, mark: &str) -> Self {
        Self { mark: fs::read(dir.join(mark)).ok(), kits: stamp(dir) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::KitError;
    use super::super::store::INDEX;
    use super::super::tests::Bench;
    use super::*;

    /// Writes the bytes of a kit's file into a new file of its name, as the kits' own changes do.
    fn replace(kit: &Path, file: &str) {
        let bytes = fs::read(kit.join(file)).unwrap();
        super::super::replace_file(&kit.join(file), &bytes).unwrap();
    }

    #[test]
    fn the_default_kit_is_read_when_it_changes() {
        let bench = Bench::imported();
        let (kits, first) = (bench.kits.clone(), bench.kits.default_kit().unwrap());
        let dir = kits.dir().join(first.name());
        // Changed in place, which the program never does: if this index were read again, it could not be parsed.
        let modules = fs::read(dir.join("modules.json")).unwrap();
        fs::write(dir.join("modules.json"), "").unwrap();
        for _ in 0..1000 {
            assert!(Arc::ptr_eq(&first, &kits.default_kit().unwrap()));
        }
        fs::write(dir.join("modules.json"), modules).unwrap();

        replace(&dir, INDEX);
        let again = bench.kits.default_kit().unwrap();
        assert!(!Arc::ptr_eq(&first, &again), "its index was replaced");

        // As another process would: copied, and then renamed.
        let copy = kits.dir().join(".copy");
        let status = std::process::Command::new("cp").arg("-r").args([&dir, &copy]).status().unwrap();
        assert!(status.success());
        let text = fs::read_to_string(copy.join(INDEX)).unwrap();
        fs::write(copy.join(INDEX), text.replace(&format!("\"{}\"", first.name()), "\"other\"")).unwrap();
        fs::rename(&copy, kits.dir().join("other")).unwrap();
        kits.set_default("other").unwrap();
        assert_eq!(kits.default_kit().unwrap().name(), "other");
        kits.set_default(first.name()).unwrap();
        assert_eq!(kits.default_kit().unwrap().name(), first.name());
        kits.remove(first.name()).unwrap();
        assert_eq!(kits.default_kit().unwrap().name(), "other");
        kits.remove("other").unwrap();
        assert!(matches!(kits.default_kit(), Err(KitError::None)));
    }
}
