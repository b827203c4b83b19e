//! Where an image's raw bytes come from: a file or a stream, as it is or compressed, told by its first bytes
//! and not by its name. Owns the input and its decompressor. A stream that ends early, breaks, or goes on
//! after its end is an error that names the byte: half an image must never pass for one. Touches files.
//!
//! A qcow2 image is read out of order, so one that comes as a stream or compressed is first put into a
//! temporary file that the store gives.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use super::foreign;
use super::format::{Format, ImageFormat};
use super::hint::io_hint;
use super::input::{Input, READ_BYTES};
use super::qcow2::{self, Qcow2, QcowError};
use super::window::{HEADER_BYTES, xz_dictionary, zstd_frame};

/// What is looked at to tell the format; the farthest magic is tar's.
const HEAD_BYTES: usize = 512;
/// xz -9 needs 65 MiB; a file may ask for up to 4 GiB.
const XZ_MEMORY_MAX: u64 = 1 << 30;
/// A window of 128 MiB: what `zstd -d` takes too unless it is told otherwise.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Where an image comes from.
pub enum ImageSource {
    /// A file or block device of this host.
    File(PathBuf),
    /// Bytes as they come: standard input, or the body of a request.
    Stream {
        /// The bytes.
        reader: Box<dyn Read + Send>,
        /// What to call it.
        name: String,
        /// How many bytes will come, if that is known.
        length: Option<u64>,
    },
}

impl std::fmt::Debug for ImageSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl ImageSource {
    /// What to call it: the file's name without its folder.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            Self::Stream { name, .. } => name.clone(),
        }
    }

    /// Where it is, if it is a file that stays there.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => std::fs::canonicalize(path).ok(),
            Self::Stream { .. } => None,
        }
    }
}

/// A source that cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be opened.
    #[error("cannot open it")]
    Open(#[source] io::Error),
    /// It is a folder, a character device or a socket.
    #[error("it is neither a file nor a block device")]
    Kind,
    /// The input itself gave an error.
    #[error("reading failed after byte {offset}")]
    Read {
        /// How many bytes had come.
        offset: u64,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// The input ended before the end of what it holds.
    #[error("it is cut short: the {format} data ends at byte {offset} before its end")]
    CutShort {
        /// The format that expects more.
        format: Format,
        /// Where the input ends.
        offset: u64,
    },
    /// The input breaks its own format.
    #[error("its {format} data is corrupt near byte {offset}")]
    Corrupt {
        /// The format that is broken.
        format: Format,
        /// Where, within the 256 KiB that are read at once.
        offset: u64,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// The input is sound and needs more memory than is given.
    #[error(
        "its {format} data needs a window of {} MiB, and {} MiB are allowed", window.div_ceil(1 << 20), limit >> 20
    )]
    Window {
        /// The format.
        format: Format,
        /// Bytes that it needs.
        window: u64,
        /// Bytes that it may have.
        limit: u64,
    },
    /// The input was compressed with a dictionary that is kept elsewhere.
    #[error("its zst data was compressed with a dictionary (number {0}), which is not in it")]
    Dictionary(u32),
    /// The input goes on after its end.
    #[error("something that is not {format} follows the {format} data at byte {offset}")]
    Trailing {
        /// The format that ended.
        format: Format,
        /// Where it ended.
        offset: u64,
    },
    /// A format that is not read.
    #[error("it is {what}, which is not an image that can be written to a disk")]
    Foreign {
        /// The format.
        what: &'static str,
        /// How to make something else of it.
        hint: &'static str,
    },
    /// A qcow2 image that is not read.
    #[error("it is a qcow2 image that cannot be used")]
    Qcow2(#[source] QcowError),
    /// The room for a streamed qcow2 image ran out.
    #[error("cannot keep the qcow2 image while it is read")]
    Spool(#[source] io::Error),
}

impl SourceError {
    /// What an admin can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Open(source) | Self::Read { source, .. } | Self::Spool(source) => io_hint(source),
            Self::Kind => Some("name a file, or pipe the image into standard input".to_owned()),
            Self::CutShort { .. } => {
                Some("get the image again: the download or copy did not reach its end".to_owned())
            }
            Self::Corrupt { .. } => Some("get the image again, and compare its checksum".to_owned()),
            Self::Window { format: Format::Xz, .. } => {
                Some("decompress it into swarmboot: xz -dc FILE | swarmboot image add NAME -".to_owned())
            }
            Self::Window { .. } => Some(
                "decompress it into swarmboot: zstd -dc --long=31 FILE | swarmboot image add NAME -".to_owned(),
            ),
            Self::Dictionary(_) => Some(
                "decompress it where the dictionary is: zstd -dc -D DICTIONARY FILE | swarmboot image add NAME -"
                    .to_owned(),
            ),
            Self::Trailing { .. } => {
                Some("get the image again, or decompress it first and add the result".to_owned())
            }
            Self::Foreign { hint, .. } => Some((*hint).to_owned()),
            Self::Qcow2(error) => error.hint(),
        }
    }
}

/// An open source: raw bytes, in order.
pub(super) struct Source {
    head: Vec<u8>,
    head_at: usize,
    body: Body,
    total: Option<u64>,
    wrapped_in: Option<Format>,
    /// The dictionary of the xz stream that is read, in bytes.
    dictionary: u64,
}

enum Body {
    Raw(Input),
    Gz(flate2::bufread::GzDecoder<Input>),
    Xz(liblzma::bufread::XzDecoder<Input>),
    Zst(zstd::stream::read::Decoder<'static, Input>),
    Qcow2(Qcow2),
    Over(Input),
}

impl Source {
    /// Opens `from` and finds out what it is. `scratch` gives an empty file for a streamed qcow2 image; `progress` is
    /// told how far into the input that has come.
    pub(super) fn open(
        from: ImageSource,
        scratch: &dyn Fn() -> io::Result<File>,
        progress: &mut dyn FnMut(u64, Option<u64>) -> Result<(), io::Error>,
    ) -> Result<Self, SourceError> {
        let (reader, total): (Box<dyn Read + Send>, _) = match from {
            ImageSource::Stream { reader, length, .. } => (reader, length),
            ImageSource::File(path) => {
                let (file, length) = open_file(&path)?;
                let mut magic = [0; 4];
                if length.is_some() && read_magic(&file, &mut magic).is_ok() && magic == *qcow2::MAGIC {
                    return Self::qcow2(file, None);
                }
                (Box::new(file), length)
            }
        };
        let mut input = Input::new(reader);
        let format = wrapper(&mut input).map_err(|source| SourceError::Read { offset: 0, source })?;
        let dictionary = dictionary(&mut input);
        let body = match format {
            Some(format) => unwrap(input, format)?,
            None => Body::Raw(input),
        };
        let mut source = Self { dictionary, ..Self::new(body, total, format) };
        let mut head = vec![0; HEAD_BYTES];
        let got = source.fill(&mut head)?;
        head.truncate(got);
        if let Some((what, hint)) = foreign::by_start(&head) {
            return Err(SourceError::Foreign { what, hint });
        }
        source.head = head;
        if source.head.starts_with(qcow2::MAGIC) {
            let wrapped_in = source.wrapped_in;
            return Self::qcow2(source.spool(scratch, progress)?, wrapped_in);
        }
        Ok(source)
    }

    fn new(body: Body, total: Option<u64>, wrapped_in: Option<Format>) -> Self {
        Self { head: Vec::new(), head_at: 0, body, total, wrapped_in, dictionary: 0 }
    }

    fn qcow2(file: File, wrapped_in: Option<Format>) -> Result<Self, SourceError> {
        let image = Qcow2::open(file).map_err(SourceError::Qcow2)?;
        let total = Some(image.size());
        Ok(Self::new(Body::Qcow2(image), total, wrapped_in))
    }

    /// Copies everything into a file that `scratch` gives.
    fn spool(
        mut self,
        scratch: &dyn Fn() -> io::Result<File>,
        progress: &mut dyn FnMut(u64, Option<u64>) -> Result<(), io::Error>,
    ) -> Result<File, SourceError> {
        let mut file = scratch().map_err(SourceError::Spool)?;
        let mut buf = vec![0; READ_BYTES];
        loop {
            let n = self.fill(&mut buf)?;
            file.write_all(&buf[..n]).map_err(SourceError::Spool)?;
            progress(self.position(), self.total).map_err(SourceError::Spool)?;
            if n < buf.len() {
                break;
            }
        }
        file.rewind().map_err(SourceError::Spool)?;
        Ok(file)
    }

    /// The next raw bytes: as many as fit into `buf`, fewer only at the end.
    pub(super) fn fill(&mut self, buf: &mut [u8]) -> Result<usize, SourceError> {
        let early = (self.head.len() - self.head_at).min(buf.len());
        buf[..early].copy_from_slice(&self.head[self.head_at..self.head_at + early]);
        self.head_at += early;
        if let Body::Qcow2(image) = &mut self.body {
            return image.fill(&mut buf[early..]).map(|n| early + n).map_err(SourceError::Qcow2);
        }
        let mut filled = early;
        while filled < buf.len() {
            match self.some(&mut buf[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    /// Some of the next raw bytes; none only at the end.
    fn some(&mut self, buf: &mut [u8]) -> Result<usize, SourceError> {
        loop {
            let read = match &mut self.body {
                Body::Raw(input) => input.read(buf),
                Body::Gz(decoder) => decoder.read(buf),
                Body::Xz(decoder) => decoder.read(buf),
                Body::Zst(decoder) => decoder.read(buf),
                Body::Qcow2(_) | Body::Over(_) => return Ok(0),
            };
            match read {
                Ok(0) => self.next_member()?,
                Ok(n) => return Ok(n),
                Err(error) => return Err(self.explain(error)),
            }
        }
    }

    /// Decides what it means that the decompressor has no more: another member follows (pigz, pixz and
    /// `cat a.zst b.zst` make such files), padding, something foreign, or that is all.
    fn next_member(&mut self) -> Result<(), SourceError> {
        let (mut input, format) = match std::mem::replace(&mut self.body, Body::Over(Input::none())) {
            Body::Gz(decoder) => (decoder.into_inner(), Format::Gz),
            Body::Xz(decoder) => (decoder.into_inner(), Format::Xz),
            Body::Zst(decoder) => (decoder.finish(), Format::Zst),
            Body::Raw(input) => {
                // A pipe or a request that was to be longer, or a file that shrank while it was read.
                if self.total.is_some_and(|total| input.consumed() < total) {
                    return Err(SourceError::CutShort { format: Format::Raw, offset: input.consumed() });
                }
                self.body = Body::Over(input);
                return Ok(());
            }
            other => {
                self.body = other;
                return Ok(());
            }
        };
        let offset = input.consumed();
        let failed = |source| SourceError::Read { offset, source };
        // xz allows zeros between and after streams (its specification, 2.2), gzip skips those of tapes.
        if format != Format::Zst {
            input.skip_zeros().map_err(failed)?;
        }
        self.body = if input.peek(1).map_err(failed)?.is_empty() {
            Body::Over(input)
        } else if wrapper(&mut input).map_err(failed)? == Some(format) {
            self.dictionary = dictionary(&mut input);
            unwrap(input, format)?
        } else {
            return Err(SourceError::Trailing { format, offset });
        };
        Ok(())
    }

    /// Tells an input that failed from one that ended and one that is broken.
    fn explain(&self, source: io::Error) -> SourceError {
        let format = self.wrapped_in.unwrap_or(Format::Raw);
        let offset = self.position();
        match self.input() {
            Some(input) if input.failed() => SourceError::Read { offset, source },
            _ if is_memory_limit(&source) => SourceError::Window {
                format,
                window: self.dictionary.max(XZ_MEMORY_MAX),
                limit: XZ_MEMORY_MAX,
            },
            _ if source.kind() == io::ErrorKind::UnexpectedEof => SourceError::CutShort { format, offset },
            _ => SourceError::Corrupt { format, offset, source },
        }
    }

    fn input(&self) -> Option<&Input> {
        match &self.body {
            Body::Raw(input) | Body::Over(input) => Some(input),
            Body::Gz(decoder) => Some(decoder.get_ref()),
            Body::Xz(decoder) => Some(decoder.get_ref()),
            Body::Zst(decoder) => Some(decoder.get_ref()),
            Body::Qcow2(_) => None,
        }
    }

    /// How many bytes have been taken from the input.
    pub(super) fn position(&self) -> u64 {
        match &self.body {
            Body::Qcow2(image) => image.position(),
            _ => self.input().map_or(0, |input| input.consumed()),
        }
    }

    /// How many bytes the input has, if that is known.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// What it is.
    pub(super) fn format(&self) -> ImageFormat {
        let packed = self.wrapped_in.unwrap_or(Format::Raw);
        if matches!(self.body, Body::Qcow2(_)) {
            ImageFormat::Qcow2(packed)
        } else {
            ImageFormat::Raw(packed)
        }
    }
}

/// What the next bytes are compressed by, if they are.
fn wrapper(input: &mut Input) -> io::Result<Option<Format>> {
    Ok(match input.peek(6)? {
        [0x1f, 0x8b, ..] => Some(Format::Gz),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Some(Format::Xz),
        // A frame, or one to be skipped (RFC 8878, 3.1.2).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Format::Zst),
        _ => None,
    })
}

/// The dictionary that the next xz stream asks for; 0 where it cannot be told.
fn dictionary(input: &mut Input) -> u64 {
    input.peek(HEADER_BYTES).ok().and_then(xz_dictionary).unwrap_or(0)
}

fn is_memory_limit(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<liblzma::stream::Error>());
    inner == Some(&liblzma::stream::Error::MemLimit)
}

/// Whether a zstd frame can be read with what is allowed and what is there.
fn check_frame(input: &mut Input) -> Result<(), SourceError> {
    let limit = 1 << ZSTD_WINDOW_LOG_MAX;
    let head = input.peek(HEADER_BYTES).map_err(|source| SourceError::Read { offset: 0, source })?;
    match zstd_frame(head) {
        Some(frame) if frame.window > limit => {
            Err(SourceError::Window { format: Format::Zst, window: frame.window, limit })
        }
        Some(frame) if frame.dictionary != 0 => Err(SourceError::Dictionary(frame.dictionary)),
        _ => Ok(()),
    }
}

/// A reader of one member of `format`.
fn unwrap(mut input: Input, format: Format) -> Result<Body, SourceError> {
    match format {
        Format::Raw => Ok(Body::Raw(input)),
        Format::Gz => Ok(Body::Gz(flate2::bufread::GzDecoder::new(input))),
        Format::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, 0)
                .map_err(|error| SourceError::Open(error.into()))?;
            Ok(Body::Xz(liblzma::bufread::XzDecoder::new_stream(input, stream)))
        }
        Format::Zst => {
            check_frame(&mut input)?;
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(SourceError::Open)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(SourceError::Open)?;
            Ok(Body::Zst(decoder.single_frame()))
        }
    }
}

/// Opens a file with its length; a pipe by name has none.
fn open_file(path: &Path) -> Result<(File, Option<u64>), SourceError> {
    let mut file = File::open(path).map_err(SourceError::Open)?;
    let meta = file.metadata().map_err(SourceError::Open)?;
    let kind = meta.file_type();
    if kind.is_file() {
        Ok((file, Some(meta.len())))
    } else if kind.is_block_device() {
        let length = file.seek(io::SeekFrom::End(0)).map_err(SourceError::Open)?;
        file.rewind().map_err(SourceError::Open)?;
        Ok((file, Some(length)))
    } else if kind.is_fifo() {
        Ok((file, None))
    } else {
        Err(SourceError::Kind)
    }
}

fn read_magic(file: &File, magic: &mut [u8]) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    file.read_exact_at(magic, 0)
}
