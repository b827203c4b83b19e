//! What HTTP gives out and does not make itself: kits, boot programs, bundles, manifests. A seam, so that the
//! doors can be tried without a kit. Touches `common`.

use bytes::Bytes;
use common::id::{Hash, ImageId};

use super::content::Content;

/// The boot_source that machines take from. All calls may read a disk; they are made off the async threads.
pub trait BootSource: Send + Sync + 'static {
    /// The name of the kit that machines are booted with, if there is one.
    fn kit(&self) -> Option<String>;

    /// A file that machines boot with: `vmlinuz` or `loader.img` of a kit, and nothing else.
    fn kit_file(&self, kit: &str, file: &str) -> Option<Content>;

    /// A network boot program.
    fn boot_program(&self, file: &str) -> Option<Bytes>;

    /// An agent bundle.
    fn bundle(&self, hash: Hash) -> Option<Content>;

    /// A manifest.
    fn manifest(&self, image: ImageId) -> Option<Bytes>;
}
