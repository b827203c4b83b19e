//! Fetches modules and firmware that a small loader lacks, each checked by its hash. Touches the network.

use std::io::Read as _;

use common::id::Hash;
use common::limits::DRIVER_BYTES_MAX;
use common::modules::RemoteFile;
use common::wire::http::DRIVER;

use super::{FetchError, Server};

impl Server {
    /// Fetches a module or firmware file of the boot kit, decompressed.
    ///
    /// # Errors
    /// When it cannot be fetched, is longer than `DRIVER_BYTES_MAX`, or has another length or hash.
    pub fn driver(&self, file: RemoteFile) -> Result<Vec<u8>, FetchError> {
        let (what, max) = ("a driver", DRIVER_BYTES_MAX);
        if file.bytes > max {
            return Err(FetchError::TooLong { what, bytes: file.bytes, max });
        }
        // zstd makes nothing much longer than it was.
        let frame = self.get_all(what, &format!("{DRIVER}/{}", file.hash), file.bytes + (64 << 10))?;
        let spoiled = |_| FetchError::Driver { wanted: file.hash };
        let mut bytes = Vec::new();
        let plain = zstd::stream::read::Decoder::new(&frame[..]).map_err(spoiled)?;
        plain.take(file.bytes + 1).read_to_end(&mut bytes).map_err(spoiled)?;
        let right = bytes.len() as u64 == file.bytes && Hash::of(&bytes) == file.hash;
        if right { Ok(bytes) } else { Err(FetchError::Driver { wanted: file.hash }) }
    }
}
