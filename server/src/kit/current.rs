//! The default kit, kept in memory and read again when it has changed on the disk: its index is MiBs of JSON, and a
//! rack that powers on asks for it once for each machine. Touches files, of which it mostly reads only the times.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use super::error::{KitError, Result};
use super::store::{DEFAULT_MARK, INDEX, Kit, Kits};

/// The kit that was read last, and what the disk looked like then.
#[derive(Debug)]
pub(super) struct Known {
    choice: Choice,
    index: Stamp,
    kit: Arc<Kit>,
}

/// What tells one state of a file or folder from the next; none when it is not there. What is replaced by a rename has
/// another number, and a folder's time changes with each name in it.
type Stamp = Option<(u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.ctime(), file.ctime_nsec()))
}

/// What decides which kit is the default: the mark, and which kits there are.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    mark: Option<Vec<u8>>,
    kits: Stamp,
}

impl Choice {
    fn now(dir: &Path) -> Self {
        Self { mark: fs::read(dir.join(DEFAULT_MARK)).ok(), kits: stamp(dir) }
    }
}

impl Kits {
    /// The kit that machines are booted with when nothing else is said: the marked one, else the newest. Read once for
    /// all who ask until something changes, whoever changes it.
    ///
    /// # Errors
    /// When there is no kit, or it cannot be read.
    pub fn default_kit(&self) -> Result<Arc<Kit>> {
        // Held while reading: who comes meanwhile waits for that instead of reading it too.
        let mut known = self.current.lock();
        // Looked at before the kit is read, so that a change in between is seen by the next who asks.
        let choice = Choice::now(self.dir());
        let index = |name: &str| stamp(&self.dir().join(name).join(INDEX));
        if let Some(known) = &*known
            && known.choice == choice
            && known.index == index(known.kit.name())
        {
            return Ok(Arc::clone(&known.kit));
        }
        let name = self.default_name()?.ok_or(KitError::None)?;
        let index = index(&name);
        let kit = Arc::new(self.get(&name)?);
        *known = Some(Known { choice, index, kit: Arc::clone(&kit) });
        Ok(kit)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use super::*;

    /// Puts what a kit's file holds into a new file of its name, as the kits' own changes do.
    fn replace(kit: &Path, file: &str) {
        let bytes = fs::read(kit.join(file)).unwrap();
        super::super::replace_file(&kit.join(file), &bytes).unwrap();
    }

    #[test]
    fn the_default_kit_is_read_when_it_changes() {
        let bench = Bench::imported();
        let (kits, first) = (bench.kits.clone(), bench.kits.default_kit().unwrap());
        let dir = kits.dir().join(first.name());
        // In place, which nobody does: an index that is read again would not be understood.
        let modules = fs::read(dir.join("modules.json")).unwrap();
        fs::write(dir.join("modules.json"), "").unwrap();
        for _ in 0..1000 {
            assert!(Arc::ptr_eq(&first, &kits.default_kit().unwrap()));
        }
        fs::write(dir.join("modules.json"), modules).unwrap();

        replace(&dir, INDEX);
        let again = bench.kits.default_kit().unwrap();
        assert!(!Arc::ptr_eq(&first, &again), "its index was replaced");

        // As another process would: beside, and then under its name.
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
