//! Delivers events into a file as JSON lines, which is opened anew when logrotate has moved it. A batch is synced before
//! it counts as delivered. Touches that file, on blocking threads.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::form::{Item, line};
use super::outlet::{Outcome, Outlet};

/// The file.
pub(super) struct ToFile {
    path: PathBuf,
    /// Held by one blocking thread while it writes.
    open: Arc<Mutex<Option<File>>>,
}

impl ToFile {
    /// The file at `path`, which is made when the first event comes.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, open: Arc::default() }
    }
}

impl Outlet for ToFile {
    fn deliver<'a>(&'a mut self, items: &'a [Item]) -> BoxFuture<'a, Outcome> {
        let text: String = items.iter().map(line).collect();
        let (path, open, count) = (self.path.clone(), Arc::clone(&self.open), items.len());
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || append(&path, &mut open.lock(), &text)).await;
            match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(()) => Outcome::all(count),
                Err(error) => Outcome::until(0, error.to_string()),
            }
        })
    }
}

/// Appends `text` to the file at `path`: all of it or nothing. `open` is what is open of it.
fn append(path: &Path, open: &mut Option<File>, text: &str) -> io::Result<()> {
    let mut file = match open.take().filter(|file| is_still(file, path)) {
        Some(file) => file,
        None => reopen(path)?,
    };
    let before = file.metadata()?.len();
    if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_data()) {
        // A full disk takes half of a line: the whole is written when there is room.
        drop(file.set_len(before));
        return Err(error);
    }
    *open = Some(file);
    Ok(())
}

/// Whether `file` is what `path` names now.
fn is_still(file: &File, path: &Path) -> bool {
    let same = || -> io::Result<bool> {
        let (own, there) = (file.metadata()?, std::fs::metadata(path)?);
        Ok((own.dev(), own.ino()) == (there.dev(), there.ino()))
    };
    same().unwrap_or(false)
}

fn reopen(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    // A power cut may have left half of a line, which must not become the beginning of the next one.
    if file.seek(SeekFrom::End(0))? > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use common::step::What;

    use super::super::tests::event;
    use super::*;

    fn items(ids: std::ops::Range<u64>) -> Vec<Item> {
        ids.map(|id| Item::Event(Box::new(event(id, What::Started)))).collect()
    }

    fn ids(path: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_u64().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn a_file_that_was_moved_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("events"), dir.path().join("events.1"));
        let mut file = ToFile::new(path.clone());
        assert_eq!(file.deliver(&items(1..4)).await, Outcome::all(3));
        std::fs::rename(&path, &moved).unwrap();
        assert_eq!(file.deliver(&items(4..6)).await, Outcome::all(2));
        assert_eq!((ids(&moved), ids(&path)), (vec![1, 2, 3], vec![4, 5]));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.deliver(&items(6..7)).await, Outcome::all(1));
        assert_eq!(ids(&path), [6]);
        // `copytruncate`: it goes on at the new end.
        std::fs::write(&path, "").unwrap();
        file.deliver(&items(7..8)).await;
        assert_eq!(ids(&path), [7]);
    }

    #[tokio::test]
    async fn half_a_line_is_not_gone_on_with_and_a_full_disk_leaves_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        std::fs::write(&path, "{\"id\":").unwrap();
        ToFile::new(path.clone()).deliver(&items(1..2)).await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\"id\":\n{\"id\":1,"), "{text}");
        // Linux's own full disk, and a folder: nothing is delivered, and the cause is told.
        for wrong in [Path::new("/dev/full"), dir.path(), &dir.path().join("no/such/folder")] {
            let outcome = ToFile::new(wrong.to_owned()).deliver(&items(1..2)).await;
            assert!(outcome.delivered == 0 && outcome.failure.is_some(), "{}", wrong.display());
        }
    }
}
