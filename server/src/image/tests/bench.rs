//! Where the tests keep their images: in memory, or in files of a temporary folder. Both must behave the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::blobs::{Blobs, Files};
use super::super::error::ImageError;
use super::suite::Bench;

/// Blobs in memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    blobs: BTreeMap<String, Vec<u8>>,
    /// Keys whose blobs cannot be read until they are put again.
    damaged: BTreeSet<String>,
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
        let kept = self.0.0.lock();
        if kept.damaged.contains(key) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its memory is worn out"));
        }
        Ok(kept.blobs.get(key).cloned())
    }

    fn put(&self, key: &str, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.0.0.lock();
        if kept.refuses_chunks && key.starts_with("chunks/") {
            return Err(io::Error::other("no chunk is taken"));
        }
        kept.damaged.remove(key);
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

    fn hint(&self, _: &io::Error) -> Option<String> {
        Some("look at the memory".to_owned())
    }

    fn to_check(&self) -> &'static str {
        "the memory"
    }
}

impl Memory {
    /// Lets a blob be known as damaged until it is put again.
    pub(super) fn damage(&self, key: &str) {
        self.0.lock().damaged.insert(key.to_owned());
    }
}

impl Bench for Memory {
    fn blobs(&self) -> Result<Box<dyn Blobs>, ImageError> {
        if std::mem::replace(&mut self.0.lock().is_open, true) {
            return Err(ImageError::Locked { place: "memory".to_owned(), hint: None });
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
