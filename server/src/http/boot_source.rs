//! What HTTP gives out and does not make itself: kits, boot programs, bundles, manifests. A seam, so that the machines'
//! routes can be tried without a kit; and what the server has behind it. Touches the kits, bundles and images.

use std::sync::Arc;

use bytes::Bytes;
use common::id::{Hash, ImageId};

use super::content::{Bytestore, Content};
use crate::boot::BootKits;
use crate::image::Images;
use crate::tailor::Bundles;

/// What machines take from. All calls may read a disk; they are made off the async threads.
pub trait BootSource: Send + Sync + 'static {
    /// The name of the kit that machines are booted with, if there is one.
    fn kit(&self) -> Option<String>;

    /// A file that machines boot with: `vmlinuz` or `loader.img` of a kit, and nothing else.
    fn kit_file(&self, kit: &str, file: &str) -> Option<Content>;

    /// The bytes of a network boot program, by the name that DHCP gave.
    fn boot_program(&self, file: &str) -> Option<Bytes>;

    /// The agent bundle of this hash, while it is kept.
    fn bundle(&self, hash: Hash) -> Option<Content>;

    /// The encoded manifest of an image.
    fn manifest(&self, image: ImageId) -> Option<Bytes>;
}

/// The server's own stores, as machines take from them.
#[derive(Debug)]
pub struct Stores {
    /// The boot kits.
    pub kits: Arc<BootKits>,
    /// The agent bundles.
    pub bundles: Arc<Bundles>,
    /// The images, of which machines fetch manifests here and chunks from the swarm.
    pub images: Images,
}

impl BootSource for Stores {
    fn kit(&self) -> Option<String> {
        self.kits.kit()
    }

    fn kit_file(&self, kit: &str, file: &str) -> Option<Content> {
        let (path, mark) = self.kits.kit_file(kit, file)?;
        let tag = mark.map(|mark| mark.blake3.to_string());
        Some(Content { bytes: Bytestore::File(path), media: "application/octet-stream", tag })
    }

    fn boot_program(&self, file: &str) -> Option<Bytes> {
        self.kits.boot_program(file)
    }

    fn bundle(&self, hash: Hash) -> Option<Content> {
        let path = self.bundles.path(hash)?;
        let tag = Some(hash.to_string());
        Some(Content { bytes: Bytestore::File(path), media: "application/octet-stream", tag })
    }

    fn manifest(&self, image: ImageId) -> Option<Bytes> {
        self.images.manifest_bytes(image).ok()
    }
}
