//! Messages on a stream: a `u32` big-endian length, then that many bytes of CBOR; a chunk's bytes stand outside CBOR,
//! after the frame that announces them. Owns the bounds of both; touches `limits`. Every length from the other end is
//! checked against its bound before anything is allocated.

use std::io;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use serde::{Serialize, de::DeserializeOwned};

use crate::limits::{CONTROL_MESSAGE_BYTES_MAX, WIRE_CHUNK_BYTES_MAX};

/// Bytes written at once, between two checks of the progress.
pub const STRIDE: usize = 64 << 10;

/// Why a stream cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum BadStream {
    /// The other end closed the stream, or the connection is broken.
    #[error("the stream ended")]
    Ended(#[source] io::Error),
    /// A message longer than the bound, with its length in bytes.
    #[error("a message of {0} bytes, more than any such message has")]
    Long(u64),
    /// A chunk that is empty or longer than the bound, with its length in bytes.
    #[error("a chunk of {0} bytes")]
    ChunkLength(u32),
    /// Bytes that are not the expected kind of message, or a message that could not be written as CBOR.
    #[error("a message that cannot be read: {0}")]
    Message(String),
    /// A message against the protocol: out of turn, or asking for more than is allowed.
    #[error("{0}")]
    Manners(&'static str),
    /// The reader takes bytes, but so slowly that it keeps a slot which others wait for; after this many seconds.
    #[error("takes more than {0} s to read one chunk")]
    Slow(u64),
    /// No byte was read or written for this many seconds.
    #[error("no byte moved for {0} s")]
    Stalled(u64),
}

impl BadStream {
    /// Whether the other end is to blame, and not the network.
    #[must_use]
    pub fn breaks_the_protocol(&self) -> bool {
        match self {
            Self::Long(_) | Self::ChunkLength(_) | Self::Message(_) | Self::Manners(_) => true,
            Self::Ended(_) | Self::Slow(_) | Self::Stalled(_) => false,
        }
    }
}

/// Writes `message` as one frame, and flushes.
///
/// # Errors
/// When the connection is broken, or the message is longer than the bound.
pub async fn write<T: Serialize + Sync>(
    out: &mut (impl AsyncWrite + Unpin + Send),
    message: &T,
) -> Result<(), BadStream> {
    let mut bytes = vec![0; 4];
    ciborium::into_writer(message, &mut bytes).map_err(|error| BadStream::Message(error.to_string()))?;
    let len = bytes.len() - 4;
    let prefix = u32::try_from(len)
        .ok()
        .filter(|_| len <= CONTROL_MESSAGE_BYTES_MAX)
        .ok_or(BadStream::Long(len as u64))?;
    bytes[..4].copy_from_slice(&prefix.to_be_bytes());
    out.write_all(&bytes).await.map_err(BadStream::Ended)?;
    out.flush().await.map_err(BadStream::Ended)
}

/// Reads one message. Not cancel-safe: a reader that is dropped half-way leaves the stream useless.
///
/// # Errors
/// When the connection is broken, or the bytes are not a message within its bounds.
pub async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin + Send)) -> Result<T, BadStream> {
    read_at_most(from, CONTROL_MESSAGE_BYTES_MAX).await
}

/// As [`read`], for a message that is known to be no longer than `most` bytes.
///
/// # Errors
/// As [`read`].
pub async fn read_at_most<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin + Send),
    most: usize,
) -> Result<T, BadStream> {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix).await.map_err(BadStream::Ended)?;
    let len = u32::from_be_bytes(prefix);
    if len as usize > most.min(CONTROL_MESSAGE_BYTES_MAX) {
        return Err(BadStream::Long(u64::from(len)));
    }
    // Grown as bytes arrive, so that a large length alone allocates nothing.
    let mut bytes = Vec::new();
    let got = from.take(u64::from(len)).read_to_end(&mut bytes).await.map_err(BadStream::Ended)?;
    if got != len as usize {
        return Err(BadStream::Ended(io::ErrorKind::UnexpectedEof.into()));
    }
    parse(&bytes)
}

/// Parses the bytes of one frame, without its length, as one message.
///
/// # Errors
/// When they are not a message, or more than one.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BadStream> {
    let mut rest = bytes;
    let message = ciborium::from_reader(&mut rest).map_err(|error| BadStream::Message(error.to_string()))?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(BadStream::Message(format!("{} bytes after its end", rest.len())))
    }
}

/// Reads a chunk of `len` bytes; `progress` is called with the length of each piece as it arrives.
///
/// # Errors
/// When the connection is broken, or `len` is out of bounds.
pub async fn read_chunk(
    from: &mut (impl AsyncRead + Unpin + Send),
    len: u32,
    mut progress: impl FnMut(usize) + Send,
) -> Result<Vec<u8>, BadStream> {
    if len == 0 || len > WIRE_CHUNK_BYTES_MAX {
        return Err(BadStream::ChunkLength(len));
    }
    let mut bytes = vec![0; len as usize];
    let mut got = 0;
    // Piece by piece as they arrive: on a link that many share, even a few kilobytes show that the other end is alive.
    while got < bytes.len() {
        match from.read(&mut bytes[got..]).await.map_err(BadStream::Ended)? {
            0 => return Err(BadStream::Ended(io::ErrorKind::UnexpectedEof.into())),
            more => {
                got += more;
                progress(more);
            }
        }
    }
    Ok(bytes)
}

/// Writes a piece of a chunk, of [`STRIDE`] bytes at most by convention.
///
/// # Errors
/// When the connection is broken.
pub async fn write_piece(out: &mut (impl AsyncWrite + Unpin + Send), piece: &[u8]) -> Result<(), BadStream> {
    out.write_all(piece).await.map_err(BadStream::Ended)
}

/// Flushes what was written.
///
/// # Errors
/// When the connection is broken.
pub async fn flush(out: &mut (impl AsyncWrite + Unpin + Send)) -> Result<(), BadStream> {
    out.flush().await.map_err(BadStream::Ended)
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;
    use proptest::prelude::*;

    use super::*;
    use crate::chunk::{ChunkIndex, ChunkSet};
    use crate::wire::swarm::{Form, FromHolder, FromPuller};

    fn written<T: Serialize + Sync>(message: &T) -> Vec<u8> {
        let mut out = Vec::new();
        block_on(write(&mut out, message)).unwrap();
        out
    }

    fn message() -> impl Strategy<Value = FromHolder> {
        prop_oneof![
            (0u32..400, proptest::collection::vec(0u32..400, 0..40)).prop_map(|(len, picks)| {
                let mut held = ChunkSet::new(len);
                picks.into_iter().for_each(|pick| {
                    held.insert(ChunkIndex(pick));
                });
                FromHolder::Holding { held }
            }),
            proptest::collection::vec(any::<u32>(), 0..40)
                .prop_map(|list| FromHolder::Have { chunks: list.into_iter().map(ChunkIndex).collect() }),
            (any::<u32>(), any::<u32>()).prop_map(|(chunk, len)| FromHolder::Chunk {
                chunk: ChunkIndex(chunk),
                form: Form::Raw,
                len
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(messages in proptest::collection::vec(message(), 1..8)) {
            let bytes: Vec<u8> = messages.iter().flat_map(written).collect();
            let mut from = Cursor::new(bytes);
            for message in messages {
                prop_assert_eq!(block_on(read::<FromHolder>(&mut from)).unwrap(), message);
            }
            prop_assert!(block_on(read::<FromHolder>(&mut from)).is_err());
        }

        #[test]
        fn noise_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(block_on(read::<FromHolder>(&mut Cursor::new(bytes.clone()))));
            let mut framed = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
            framed.extend(&bytes);
            drop(block_on(read::<FromPuller>(&mut Cursor::new(framed))));
        }

        #[test]
        fn a_cut_message_is_an_error(message in message(), cut in any::<proptest::sample::Index>()) {
            let bytes = written(&message);
            let short = bytes[..cut.index(bytes.len())].to_vec();
            prop_assert!(block_on(read::<FromHolder>(&mut Cursor::new(short))).is_err());
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_it_is_believed() {
        let mut from = Cursor::new(u32::MAX.to_be_bytes().to_vec());
        assert!(matches!(block_on(read::<FromPuller>(&mut from)), Err(BadStream::Long(_))));
        for len in [0, WIRE_CHUNK_BYTES_MAX + 1, u32::MAX] {
            let mut from = Cursor::new(vec![]);
            let refused = block_on(read_chunk(&mut from, len, |_| {}));
            assert!(matches!(refused, Err(BadStream::ChunkLength(_))), "{len}");
        }
    }

    #[test]
    fn bytes_after_a_message_in_its_frame_are_refused() {
        let mut bytes = written(&FromPuller::Get { chunk: ChunkIndex(1) });
        let len = u32::try_from(bytes.len() - 4 + 1).unwrap();
        bytes[..4].copy_from_slice(&len.to_be_bytes());
        bytes.push(0);
        let refused = block_on(read::<FromPuller>(&mut Cursor::new(bytes)));
        assert!(matches!(refused, Err(BadStream::Message(_))));
    }

    #[test]
    fn a_chunk_arrives_as_it_was_sent() {
        let sent: Vec<u8> = (0..200_000u32).map(|at| at.to_le_bytes()[0]).collect();
        let mut out = Vec::new();
        for piece in sent.chunks(STRIDE) {
            block_on(write_piece(&mut out, piece)).unwrap();
        }
        let mut moved = 0;
        let got = block_on(read_chunk(&mut Cursor::new(out), 200_000, |piece| moved += piece)).unwrap();
        assert_eq!(moved, sent.len());
        assert_eq!(got, sent);
    }
}
