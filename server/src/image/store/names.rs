//! The names of images: which are allowed, and the records that are stored under them. Touches the blobs.

use std::collections::BTreeMap;

use common::id::Hash;

use super::super::blobs::Blobs;
use super::super::error::ImageError;
use super::super::info::ImageInfo;
use super::super::keys::name_key;

/// The longest name in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Reads the records of all names; true when any of them is unreadable.
pub(super) fn read_names(blobs: &dyn Blobs) -> Result<(BTreeMap<String, ImageInfo>, bool), ImageError> {
    let read = |source| blobs.not_read("the images' names", source);
    let (mut names, mut doubtful) = (BTreeMap::new(), false);
    for key in blobs.list("names").map_err(read)? {
        let record = blobs.get(&key).map_err(read)?.unwrap_or_default();
        match serde_json::from_slice::<ImageInfo>(&record) {
            Ok(image) if key == name_key(&image.name) => {
                names.insert(image.name.clone(), image);
            }
            Ok(_) => doubtful = true,
            Err(error) => {
                tracing::warn!(key, %error, "the record of an image is damaged; it is left out");
                doubtful = true;
            }
        }
    }
    Ok((names, doubtful))
}

/// Checks that a name is allowed: it becomes a file name, an argument of commands and a part of profiles.
pub(super) fn check_name(name: &str) -> Result<(), ImageError> {
    let bad = |why| Err(ImageError::Name { name: common::limits::cut(name, 80).to_owned(), why });
    if name.is_empty() {
        return bad("it is empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return bad("it is too long");
    }
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return bad("it does not begin with a letter or a digit");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return bad("it has characters that names do not have");
    }
    if name.parse::<Hash>().is_ok() {
        return bad("it looks like an image's id");
    }
    Ok(())
}
