//! Where leases are kept across a restart: the seam that `records` implements over SQLite. It names no path and no
//! database. Touches `fleet::store`.

use super::lease::Lease;
use crate::fleet::store::Stored;

/// The leases that outlive the process. It is called by one task at a time, and never by the one that answers DHCP: a
/// lease must not wait for a disk.
pub trait LeaseStore: Send + 'static {
    /// All of them, by address. One in words that this version does not know is left out.
    ///
    /// # Errors
    /// When they cannot be read.
    fn load(&mut self) -> Stored<'_, Vec<Lease>>;

    /// Keeps `lease`; it replaces an older one of the same address.
    ///
    /// # Errors
    /// When it cannot be written.
    fn save<'a>(&'a mut self, lease: &'a Lease) -> Stored<'a, ()>;
}
