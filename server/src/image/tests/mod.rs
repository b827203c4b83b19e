//! The tests of the image store, over blobs in memory, and over real files where these matter.

mod bench;
mod deltas;
mod qcow2;
mod refused;
mod source;
pub(super) mod store;
pub(super) mod suite;
mod traits;
mod written_before;

use std::io::{Cursor, Write as _};
use std::path::Path;

use common::id::ImageId;

use super::{AddSpec, Added, ImageError, ImageSource, Images};
use bench::{Memory, files};
use suite::Bench;

const MIB: usize = 1 << 20;

mod in_memory {
    super::suite::blobs_suite!(super::bench::Memory::default());
}

mod in_files {
    super::suite::blobs_suite!(super::bench::Folder::default());
}

fn from_bytes(bytes: Vec<u8>) -> ImageSource {
    let length = Some(bytes.len() as u64);
    ImageSource::Stream { reader: Box::new(Cursor::new(bytes)), name: "test image".to_owned(), length }
}

fn add(images: &Images, name: &str, bytes: Vec<u8>) -> Result<Added, ImageError> {
    add_from(images, name, from_bytes(bytes))
}

fn add_from(images: &Images, name: &str, source: ImageSource) -> Result<Added, ImageError> {
    images.add(AddSpec { name: name.to_owned(), source, sector_size: None, no_table: true }, &mut |_| {})
}

fn export(images: &Images, id: ImageId) -> Vec<u8> {
    let mut bytes = Vec::new();
    images.export(id, &mut bytes, &mut |_| {}).unwrap();
    bytes
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = liblzma::write::XzEncoder::new(Vec::new(), 0);
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// An error with its causes, as it is printed.
fn told(error: &ImageError) -> String {
    common::causes::with_causes(error)
}
