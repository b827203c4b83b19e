//! The rest of a file that the disk could not take, from the server to one machine. The line pays for each machine, but
//! the machine boots. Touches the server, and the file for what it has.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use common::id::Hash;
use hyper::StatusCode;
use hyper::body::Incoming;

use crate::relay::upstream::{Upstream, extent, piece};

/// Bytes that are held back until the hash of all is right, so that a wrong file never arrives whole. Any number does.
pub(super) const HELD_BACK: u64 = 4096;

/// Bytes of one read while what the disk has is hashed.
const READ_BYTES: usize = 256 << 10;

/// A file on the server.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) upstream: Upstream,
    pub(super) path: String,
    /// The hash of its bytes; `None` where it is of something else, and only the machine can check it.
    pub(super) hash: Option<Hash>,
}

/// The rest of a file, as it comes.
pub(super) struct Passed {
    body: Incoming,
    at: u64,
    bytes: u64,
    /// The hash of all before `at`, and the one that all must have; `None` when it cannot be checked here.
    checked: Option<(blake3::Hasher, Hash)>,
    held: BytesMut,
}

impl Passed {
    /// Asks for the bytes from `at` on of the file of `bytes` bytes, of which `file` has the first `written`.
    ///
    /// # Errors
    /// When the server cannot be asked, or has another file there.
    pub(super) async fn begin(
        source: &Source,
        file: Arc<File>,
        (at, written, bytes): (u64, u64, u64),
    ) -> io::Result<Self> {
        let checked = match source.hash.filter(|_| at <= written) {
            Some(hash) => Some((hashed(file, at).await?, hash)),
            None => None,
        };
        let answer = source.upstream.get(&source.path, at).await.map_err(io::Error::other)?;
        let is_whole = matches!(answer.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT);
        if !is_whole || extent(&answer, at) != Some((at, bytes)) {
            return Err(io::Error::other("the server has another file by now"));
        }
        Ok(Self { body: answer.into_body(), at, bytes, checked, held: BytesMut::new() })
    }

    /// The next bytes.
    ///
    /// # Errors
    /// When the line breaks, or the whole has another hash.
    pub(super) async fn next(&mut self) -> io::Result<Bytes> {
        loop {
            let ends = || io::Error::new(io::ErrorKind::UnexpectedEof, "the server's answer broke off");
            let mut got = piece(&mut self.body).await.map_err(io::Error::other)?.ok_or_else(ends)?;
            let Some((hasher, wanted)) = &mut self.checked else {
                self.at += got.len() as u64;
                return Ok(got);
            };
            hasher.update(&got);
            let free = self.bytes.saturating_sub(HELD_BACK).saturating_sub(self.at);
            let free = usize::try_from(free).unwrap_or(usize::MAX).min(got.len());
            self.at += got.len() as u64;
            self.held.extend_from_slice(&got.split_off(free));
            if self.at >= self.bytes {
                let sum = Hash(*hasher.finalize().as_bytes());
                if sum != *wanted || self.at > self.bytes {
                    let why =
                        format!("what the server sent has the hash {}, not {}", sum.short(), wanted.short());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                return Ok([got, self.held.split().freeze()].concat().into());
            }
            if !got.is_empty() {
                return Ok(got);
            }
        }
    }
}

/// The hash so far of the first `bytes` bytes of a file.
async fn hashed(file: Arc<File>, bytes: u64) -> io::Result<blake3::Hasher> {
    let read = tokio::task::spawn_blocking(move || {
        let (mut hasher, mut at, mut buffer) = (blake3::Hasher::new(), 0, vec![0; READ_BYTES]);
        while at < bytes {
            let len = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(READ_BYTES);
            file.read_exact_at(&mut buffer[..len], at)?;
            hasher.update(&buffer[..len]);
            at += len as u64;
        }
        Ok(hasher)
    });
    read.await.map_err(io::Error::other)?
}
