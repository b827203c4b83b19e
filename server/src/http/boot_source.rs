//! What HTTP serves and other modules make: kits, boot programs, bundles, manifests. A trait, so that the machines'
//! routes can be tested without a kit, and its implementation over the server's stores. Touches the kits, bundles and
//! images.

use std::sync::Arc;

use bytes::Bytes;
use common::id::{Hash, ImageId};
use common::wire::relay::SiteBoot;

use super::content::{Bytestore, Content};
use crate::boot::BootKits;
use crate::boot::from_peers::Hashed;
use crate::image::Images;
use crate::tailor::{Bundles, PciId};

/// Where the files come from that machines fetch. Any method may block on a disk, so they are called on blocking
/// threads.
pub trait BootSource: Send + Sync + 'static {
    /// The name of the kit that machines are booted with, if there is one.
    fn kit(&self) -> Option<String>;

    /// A file that machines boot with: `vmlinuz` or a loader of a kit, and nothing else.
    fn kit_file(&self, kit: &str, file: &str) -> Option<Content>;

    /// The file name of the loader for machines with this NIC; the general one's where it is not known.
    fn loader_for(&self, nic: Option<PciId>) -> String;

    /// The zstd frame of a module or firmware file, by the hash of the file.
    fn driver(&self, hash: Hash) -> Option<Content>;

    /// The bytes of a network boot program, by the name that DHCP gave.
    fn boot_program(&self, file: &str) -> Option<Bytes>;

    /// The agent bundle of this hash, while it is kept.
    fn bundle(&self, hash: Hash) -> Option<Content>;

    /// What a relay is told of the files that machines boot with; its name and its site are filled in by the caller.
    fn site_boot(&self) -> SiteBoot {
        SiteBoot::default()
    }

    /// The encoded manifest of an image.
    fn manifest(&self, image: ImageId) -> Option<Bytes>;

    /// Kernel and loader of a kit, the latter by its file name, with the hashes by which neighbours give them out.
    fn hashed(&self, kit: &str, loader: &str) -> Option<(Hashed, Hashed)>;

    /// The kernel, loader, bundle or manifest of this hash.
    fn object(&self, hash: Hash) -> Option<Content>;

    /// The table of an image's deltas, and its hash; none (the default) when it has no deltas.
    fn deltas(&self, _image: ImageId) -> Option<(Bytes, Hash)> {
        None
    }
}

/// The server's stores as a [`BootSource`].
#[derive(Debug)]
pub struct Stores {
    /// Serves the kernel, the loader and the boot programs.
    pub kits: Arc<BootKits>,
    /// Serves the agent's bundles.
    pub bundles: Arc<Bundles>,
    /// Serves manifests; chunks go through the swarm instead.
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

    fn loader_for(&self, nic: Option<PciId>) -> String {
        self.kits.loader_for(nic)
    }

    fn driver(&self, hash: Hash) -> Option<Content> {
        let (path, tag) = (self.kits.driver(hash)?, Some(hash.to_string()));
        Some(Content { bytes: Bytestore::File(path), media: "application/zstd", tag })
    }

    fn boot_program(&self, file: &str) -> Option<Bytes> {
        self.kits.boot_program(file)
    }

    fn bundle(&self, hash: Hash) -> Option<Content> {
        let path = self.bundles.path(hash)?;
        let tag = Some(hash.to_string());
        Some(Content { bytes: Bytestore::File(path), media: "application/octet-stream", tag })
    }

    fn site_boot(&self) -> SiteBoot {
        self.kits.site_boot()
    }

    fn manifest(&self, image: ImageId) -> Option<Bytes> {
        self.images.manifest_bytes(image).ok()
    }

    fn hashed(&self, kit: &str, loader: &str) -> Option<(Hashed, Hashed)> {
        Some((self.kits.hashed(kit, "vmlinuz")?, self.kits.hashed(kit, loader)?))
    }

    fn object(&self, hash: Hash) -> Option<Content> {
        let file = self.kits.by_hash(hash).or_else(|| self.bundles.path(hash)).map(Bytestore::File);
        let bytes = file.or_else(|| self.manifest(ImageId(hash)).map(Bytestore::Memory))?;
        Some(Content { bytes, media: "application/octet-stream", tag: Some(hash.to_string()) })
    }

    fn deltas(&self, image: ImageId) -> Option<(Bytes, Hash)> {
        self.images.delta_table(image)
    }
}
