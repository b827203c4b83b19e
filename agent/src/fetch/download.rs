//! Downloads of bundles and manifests: whole, resumed where they broke, and with the hash that a signed plan names. Every
//! body is bounded before it is read. Touches the network.

use std::io::Read as _;
use std::time::Duration;

use common::deltas::DeltaTable;
use common::id::{Hash, ImageId};
use common::limits::{BUNDLE_BYTES_MAX, CHUNK_BYTES, CHUNKS_MAX, DELTA_TABLE_BYTES_MAX};
use common::manifest::Manifest;
use common::wire::http::{BUNDLE, DELTAS, MANIFEST};
use ureq::http::{StatusCode, header};

use super::{FetchError, Server, accept, unreachable};

/// The most tries of a download in a row that bring no new byte.
const FRUITLESS_TRIES: u32 = 4;

/// The most bytes of a manifest's header, and of one of its entries (hashes, length, encoding), rounded up: only a
/// bound for reading; the manifest itself is checked by its hash.
const MANIFEST_HEADER_BYTES: u64 = 256;
const MANIFEST_ENTRY_BYTES: u64 = 72;

impl Server {
    /// Downloads the agent bundle `hash` of `bytes` bytes into memory; resumes where a broken try stopped. `progress`
    /// is called with the count of bytes so far.
    ///
    /// # Errors
    /// When it is longer than `BUNDLE_BYTES_MAX`, cannot be fetched, or has another hash.
    pub fn bundle(
        &self,
        hash: Hash,
        bytes: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<u8>, FetchError> {
        self.download_whole("the agent bundle", &format!("{BUNDLE}/{hash}"), hash, bytes, progress)
    }

    pub(super) fn download_whole(
        &self,
        what: &'static str,
        path: &str,
        hash: Hash,
        bytes: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<u8>, FetchError> {
        if bytes > BUNDLE_BYTES_MAX {
            return Err(FetchError::TooLong { what, bytes, max: BUNDLE_BYTES_MAX });
        }
        let mut have = Vec::new();
        let mut fruitless = 0;
        let mut go_on = |done| {
            progress(done);
            true
        };
        while (have.len() as u64) < bytes {
            let before = have.len();
            let stopped = match self.download_on(what, path, bytes, &mut have, &mut go_on) {
                Ok(()) => continue,
                Err(refused @ (FetchError::Refused { .. } | FetchError::TooLong { .. })) => {
                    return Err(refused);
                }
                Err(stopped) => stopped,
            };
            fruitless = if have.len() > before { 0 } else { fruitless + 1 };
            if fruitless == FRUITLESS_TRIES {
                return Err(stopped);
            }
            std::thread::sleep(Duration::from_millis(500) * 2u32.pow(fruitless));
        }
        let got = Hash::of(&have);
        if got == hash { Ok(have) } else { Err(FetchError::WrongHash { got, wanted: hash }) }
    }

    /// Fetches the manifest of `image`, whose size is `image_bytes` bytes; with its bytes.
    ///
    /// # Errors
    /// When it cannot be fetched, is longer than an image of that size can need, or is another image's.
    pub fn manifest(&self, image: ImageId, image_bytes: u64) -> Result<(Manifest, Vec<u8>), FetchError> {
        self.manifest_at(&format!("{MANIFEST}/{image}"), image, image_bytes)
    }

    pub(super) fn manifest_at(
        &self,
        path: &str,
        image: ImageId,
        image_bytes: u64,
    ) -> Result<(Manifest, Vec<u8>), FetchError> {
        let what = "the manifest";
        let chunks = image_bytes.div_ceil(u64::from(CHUNK_BYTES)).min(u64::from(CHUNKS_MAX));
        let max = MANIFEST_HEADER_BYTES + chunks * MANIFEST_ENTRY_BYTES;
        let bytes = self.get_all(what, path, max)?;
        let manifest = Manifest::from_bytes_named(&bytes, image).map_err(FetchError::Manifest)?;
        Ok((manifest, bytes))
    }

    /// Fetches the table of deltas of `image`, whose hash a plan names.
    ///
    /// # Errors
    /// When it cannot be fetched, is too long, or another one.
    pub fn deltas(&self, image: ImageId, hash: Hash) -> Result<DeltaTable, FetchError> {
        let bytes =
            self.get_all("the table of deltas", &format!("{DELTAS}/{image}"), DELTA_TABLE_BYTES_MAX)?;
        if Hash::of(&bytes) != hash {
            return Err(FetchError::OtherDeltas);
        }
        DeltaTable::from_bytes(&bytes).map_err(FetchError::Deltas)
    }

    /// One try to extend `have` to `bytes` bytes, with a range request from its present length. `go_on` is called with
    /// the count of bytes so far, and ends it by saying no.
    pub(super) fn download_on(
        &self,
        what: &'static str,
        path: &str,
        bytes: u64,
        have: &mut Vec<u8>,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), FetchError> {
        let response = self.bases.ask(FetchError::is_silence, |base| {
            let url = format!("{base}{path}");
            let mut request = self.http.get(&url);
            if !have.is_empty() {
                request = request.header(header::RANGE, format!("bytes={}-", have.len()));
            }
            accept(what, request.call().map_err(|source| unreachable(what, &url, source))?)
        })?;
        let goes_on = response.status() == StatusCode::PARTIAL_CONTENT
            && starts_at(response.headers().get(header::CONTENT_RANGE)) == Some(have.len() as u64);
        if !goes_on {
            // A server without ranges sends the whole body again.
            have.clear();
        }
        if let Some(announced) = response.body().content_length()
            && announced > bytes - have.len() as u64
        {
            return Err(FetchError::TooLong { what, bytes: announced, max: bytes });
        }
        let mut body = response.into_body().into_reader();
        let mut block = [0; 16 << 10];
        loop {
            let room = usize::try_from(bytes - have.len() as u64).unwrap_or(usize::MAX).min(block.len());
            if room == 0 {
                return Ok(());
            }
            let stopped = match body.read(&mut block[..room]) {
                Ok(0) => std::io::Error::from(std::io::ErrorKind::UnexpectedEof),
                Ok(len) => {
                    have.extend_from_slice(&block[..len]);
                    if go_on(have.len() as u64) {
                        continue;
                    }
                    std::io::Error::from(std::io::ErrorKind::TimedOut)
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            return Err(FetchError::Broken { what, got: have.len() as u64, wanted: bytes, source: stopped });
        }
    }
}

/// The offset at which a `Content-Range: bytes 100-199/200` starts.
fn starts_at(range: Option<&header::HeaderValue>) -> Option<u64> {
    range?.to_str().ok()?.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
