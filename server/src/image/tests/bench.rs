//! Where the tests keep their images: in memory, or in files of a temporary folder. Both must behave the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::blobs::{Blobs, Files};
use super::super::error::ImageError;
use super::super::store::Images;

/// Blobs that can be opened again, and changed behind the store's back.
pub(super) trait Bench {
    /// Opens the blobs without a store.
    fn blobs(&self) -> Result<Box<dyn Blobs>, ImageError>;
    /// All keys, sorted.
    fn keys(&self) -> Vec<String>;
    /// The bytes of the blob under a key.
    fn read(&self, key: &str) -> Vec<u8>;
    /// Writes a blob under a key, even while a store has the blobs open.
    fn write(&self, key: &str, bytes: &[u8]);
    /// Removes the blob under a key.
    fn remove(&self, key: &str);
    /// Makes every later write of a chunk fail.
    fn refuse_chunks(&self);

    /// Opens a store over the blobs.
    fn open(&self) -> Result<Images, ImageError> {
        Images::over(self.blobs()?)
    }
}

/// Blobs in memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    blobs: BTreeMap<String, Vec<u8>>,
    is_open: bool,
    refuses_chunks: bool,
}

/// The blobs while they are open.
#[derive(Debug)]
struct Opened(Memory);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.0.lock().is_open = false;
    }
}

impl Blobs for Opened {
    fn get(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.0.lock().blobs.get(key).cloned())
    }

    fn put(&self, key: &str, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.0.0.lock();
        if kept.refuses_chunks && key.starts_with("chunks/") {
            return Err(io::Error::other("no chunk is taken"));
        }
        kept.blobs.insert(key.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn delete(&self, key: &str) -> io::Result<u64> {
        Ok(self.0.0.lock().blobs.remove(key).map_or(0, |bytes| bytes.len() as u64))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let inside = format!("{folder}/");
        let kept = self.0.0.lock();
        Ok(kept.blobs.keys().filter(|key| key.starts_with(&inside)).cloned().collect())
    }

    fn scratch(&self) -> io::Result<File> {
        tempfile::tempfile()
    }
}

impl Bench for Memory {
    fn blobs(&self) -> Result<Box<dyn Blobs>, ImageError> {
        if std::mem::replace(&mut self.0.lock().is_open, true) {
            return Err(ImageError::Locked { path: "memory".into() });
        }
        Ok(Box::new(Opened(self.clone())))
    }

    fn keys(&self) -> Vec<String> {
        self.0.lock().blobs.keys().cloned().collect()
    }

    fn read(&self, key: &str) -> Vec<u8> {
        self.0.lock().blobs[key].clone()
    }

    fn write(&self, key: &str, bytes: &[u8]) {
        self.0.lock().blobs.insert(key.to_owned(), bytes.to_vec());
    }

    fn remove(&self, key: &str) {
        self.0.lock().blobs.remove(key).unwrap();
    }

    fn refuse_chunks(&self) {
        self.0.lock().refuses_chunks = true;
    }
}

/// Blobs in the folder `images` of a temporary folder.
pub(super) struct Folder(tempfile::TempDir);

impl Default for Folder {
    fn default() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Folder {
    fn path(&self, key: &str) -> PathBuf {
        self.0.path().join("images").join(key)
    }
}

impl Bench for Folder {
    fn blobs(&self) -> Result<Box<dyn Blobs>, ImageError> {
        Ok(Box::new(Files::open(&self.path(""))?))
    }

    fn keys(&self) -> Vec<String> {
        let key = |file: String| file.strip_prefix("images/").unwrap().to_owned();
        files(self.0.path()).into_iter().map(key).collect()
    }

    fn read(&self, key: &str) -> Vec<u8> {
        std::fs::read(self.path(key)).unwrap()
    }

    fn write(&self, key: &str, bytes: &[u8]) {
        let path = self.path(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn remove(&self, key: &str) {
        std::fs::remove_file(self.path(key)).unwrap();
    }

    fn refuse_chunks(&self) {
        std::fs::write(self.path("chunks"), b"in the way").unwrap();
    }
}

/// All files of the store except its lock.
pub(super) fn files(state: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![state.join("images")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_none_or(|name| name != "lock") {
                found.push(path.strip_prefix(state).unwrap().display().to_string());
            }
        }
    }
    found.sort_unstable();
    found
}

fn a_blob_is_replaced_whole_and_listed_once(bench: &impl Bench) {
    let blobs = bench.blobs().unwrap();
    assert_eq!(blobs.get("chunks/ab/abc").unwrap(), None);
    blobs.put("chunks/ab/abc", b"one").unwrap();
    blobs.put("chunks/ab/abc", b"three").unwrap();
    blobs.put("chunks/cd/cde", b"").unwrap();
    blobs.put("unclean", b"").unwrap();
    blobs.settle().unwrap();
    assert_eq!(blobs.get("chunks/ab/abc").unwrap().unwrap(), b"three");
    assert_eq!(blobs.get("unclean").unwrap().unwrap(), b"");
    assert_eq!(blobs.list("chunks").unwrap(), ["chunks/ab/abc", "chunks/cd/cde"]);
    assert!(blobs.list("nothing").unwrap().is_empty() && blobs.list("chun").unwrap().is_empty());
    assert_eq!((blobs.delete("chunks/ab/abc").unwrap(), blobs.delete("chunks/ab/abc").unwrap()), (5, 0));
    blobs.delete("unclean").unwrap();
    drop(blobs);
    let again = bench.blobs().unwrap();
    assert_eq!(
        again.list("chunks").unwrap(),
        ["chunks/cd/cde"],
        "what was put is there when it is opened again"
    );
}

fn one_has_the_blobs_at_a_time(bench: &impl Bench) {
    let blobs = bench.blobs().unwrap();
    assert!(matches!(bench.blobs(), Err(ImageError::Locked { .. })));
    drop(blobs);
    assert!(bench.blobs().is_ok());
}

fn scratch_is_empty_and_no_blob(bench: &impl Bench) {
    use std::io::{Read as _, Seek as _, Write as _};
    let blobs = bench.blobs().unwrap();
    let (mut one, mut other) = (blobs.scratch().unwrap(), blobs.scratch().unwrap());
    one.write_all(b"half an image").unwrap();
    one.rewind().unwrap();
    let mut text = String::new();
    one.read_to_string(&mut text).unwrap();
    assert_eq!(text, "half an image");
    assert_eq!(other.read(&mut [0]).unwrap(), 0, "each has its own");
    assert!(bench.keys().is_empty());
}

/// Runs each test over blobs in memory and over blobs in files.
macro_rules! over_both {
    ($($test:ident),+ $(,)?) => {
        mod in_memory {
            $(
                #[test]
                fn $test() {
                    super::$test(&$crate::image::tests::bench::Memory::default());
                }
            )+
        }

        mod in_files {
            $(
                #[test]
                fn $test() {
                    super::$test(&$crate::image::tests::bench::Folder::default());
                }
            )+
        }
    };
}
pub(super) use over_both;

over_both!(
    a_blob_is_replaced_whole_and_listed_once,
    one_has_the_blobs_at_a_time,
    scratch_is_empty_and_no_blob
);
