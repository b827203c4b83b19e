//! A file that is on its way into the cache, for one machine: it gets what is there, each piece as soon as it has come,
//! and the rest straight from the server when the disk takes no more. Touches one file, and the server in that case.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::fill::{NoFile, Progress, stopping};
use super::passed::{HELD_BACK, Passed, Source};
use crate::http::content::{Growing, Pieces};

/// Bytes of one read from the file.
const READ_BYTES: u64 = 256 << 10;

/// A file that is on its way.
#[derive(Debug)]
pub(super) struct Coming {
    progress: watch::Receiver<Progress>,
    file: Arc<File>,
    bytes: u64,
    source: Source,
}

impl Coming {
    /// Waits until the file's length is known.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(super) async fn begun(
        mut progress: watch::Receiver<Progress>,
        source: Source,
    ) -> Result<Self, NoFile> {
        let known = |progress: &Progress| progress.file.is_some() || progress.ended.is_some();
        let at = progress.wait_for(known).await.map_err(|_| stopping())?.clone();
        match (at.file, at.ended) {
            (_, Some(Err(failed))) => Err(failed.into()),
            (Some((file, bytes)), _) => Ok(Self { progress, file, bytes, source }),
            (None, _) => Err(stopping()),
        }
    }
}

impl Growing for Coming {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, start: u64, len: u64) -> Pieces {
        let reading = Reading {
            progress: self.progress.clone(),
            file: Arc::clone(&self.file),
            at: start,
            end: start + len,
            bytes: self.bytes,
            source: self.source.clone(),
            passed: None,
        };
        Box::pin(futures::stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.next().await?.map(|piece| (piece, reading)))
        }))
    }
}

/// How far one machine has read.
struct Reading {
    progress: watch::Receiver<Progress>,
    file: Arc<File>,
    at: u64,
    end: u64,
    bytes: u64,
    source: Source,
    /// The rest from the server, once the disk takes no more.
    passed: Option<Passed>,
}

impl Reading {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let mut piece = match &mut self.passed {
            Some(passed) => passed.next().await?,
            None => match there(&mut self.progress, self.at, self.bytes).await? {
                Ok(there) => self.read(there).await?,
                Err(error) if error.is_disk() => {
                    let extent = (self.at, self.progress.borrow().written, self.bytes);
                    let passed = Passed::begin(&self.source, Arc::clone(&self.file), extent).await?;
                    self.passed.insert(passed).next().await?
                }
                Err(error) => return Err(io::Error::other(error)),
            },
        };
        piece.truncate(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        self.at += piece.len() as u64;
        Ok(Some(piece))
    }

    /// What the file has, of its first `there` bytes.
    async fn read(&self, there: u64) -> io::Result<Bytes> {
        let (file, at) = (Arc::clone(&self.file), self.at);
        let count = (there - at).min(self.end - at).min(READ_BYTES);
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; usize::try_from(count).unwrap_or(0)];
            file.read_exact_at(&mut piece, at).map(|()| Bytes::from(piece))
        });
        read.await.map_err(io::Error::other)?
    }
}

/// Waits until more than `at` bytes can be given, and says how many; or why there will be no more.
async fn there(
    progress: &mut watch::Receiver<Progress>,
    at: u64,
    bytes: u64,
) -> io::Result<Result<u64, NoFile>> {
    let given = |progress: &Progress| match progress.ended {
        Some(Ok(())) => bytes,
        _ => progress.written.min(bytes.saturating_sub(HELD_BACK)),
    };
    let more = |progress: &Progress| given(progress) > at || progress.ended.is_some();
    let now = progress.wait_for(more).await.map_err(io::Error::other)?;
    Ok(match &now.ended {
        Some(Err(failed)) => Err(NoFile::from(failed.clone())),
        _ => Ok(given(&now)),
    })
}
