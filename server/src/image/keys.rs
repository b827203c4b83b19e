//! Core: the keys under which the image store keeps its blobs. Touches `common`.

use common::id::{Hash, ImageId};

/// The key that is there while an add or a removal is under way.
pub(super) const UNCLEAN: &str = "unclean";

/// The key of a chunk in the store. Spread over 256 folders, so that a person can still list one.
pub(super) fn chunk_key(wire: &Hash) -> String {
    let name = wire.to_string();
    format!("chunks/{}/{name}", &name[..2])
}

/// The key of the manifest of an image.
pub(super) fn manifest_key(id: ImageId) -> String {
    format!("manifests/{id}")
}

/// The key of the record of a name.
pub(super) fn name_key(name: &str) -> String {
    format!("names/{name}.json")
}
