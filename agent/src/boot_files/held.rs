//! The files that are held, in memory, and the addresses that may have them. Touches nothing but the system's count of
//! free memory.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use common::id::Hash;
use common::wire::objects::Object;
use common::wire::swarm::OBJECTS_HELD_MAX;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

/// The most that is held: kernel, loaders and bundles of a site with a few kinds of machine have 40 MiB.
const ROOM_MAX: u64 = 128 << 20;

/// Free memory below which everything is dropped: the image comes first.
const LOW: u64 = 64 << 20;

/// An address and a prefix length.
pub type Net = (Ipv4Addr, u8);

/// What the server says: hold these files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The files.
    pub objects: Vec<Object>,
    /// Neighbours that have them.
    pub peers: Vec<SocketAddr>,
    /// The site's subnets.
    pub nets: Vec<Net>,
}

/// The files. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct BootFiles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The most bytes that are held.
    room: u64,
    port: u16,
    files: Mutex<BTreeMap<Hash, Bytes>>,
    nets: Mutex<Vec<Net>>,
    held: watch::Sender<Vec<Hash>>,
    orders: mpsc::Sender<Hold>,
}

/// The part of `available` bytes of memory that files may take.
pub(super) fn room(available: u64) -> u64 {
    (available / 4).min(ROOM_MAX)
}

/// Bytes of memory that can be used without swapping; 0 where the system does not say.
pub(super) fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

impl BootFiles {
    pub(super) fn new(room: u64, nets: Vec<Net>, port: u16, orders: mpsc::Sender<Hold>) -> Self {
        let (held, _) = watch::channel(vec![]);
        Self(Arc::new(Inner { room, port, files: Mutex::default(), nets: Mutex::new(nets), held, orders }))
    }

    /// The TCP port at which they are given out.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// The hashes of the files that are held, now and after each change.
    #[must_use]
    pub fn held(&self) -> watch::Receiver<Vec<Hash>> {
        let mut held = self.0.held.subscribe();
        held.mark_changed();
        held
    }

    /// Holds `bytes` from now on, if there is room. Its hash is computed here: nothing is held under a wrong name.
    pub fn put(&self, bytes: Vec<u8>) {
        let hash = Hash::of(&bytes);
        let mut files = self.0.files.lock();
        let used: u64 = files.values().map(|file| file.len() as u64).sum();
        let fits = used + bytes.len() as u64 <= self.0.room && files.len() < OBJECTS_HELD_MAX;
        if fits && files.insert(hash, bytes.into()).is_none() {
            self.0.held.send_replace(files.keys().copied().collect());
        }
    }

    /// Whether so many more bytes would be held.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let files = self.0.files.lock();
        let used: u64 = files.values().map(|file| file.len() as u64).sum();
        used.saturating_add(bytes) <= self.0.room && files.len() < OBJECTS_HELD_MAX
    }

    /// The file of this hash.
    pub(super) fn get(&self, hash: Hash) -> Option<Bytes> {
        self.0.files.lock().get(&hash).cloned()
    }

    /// Takes an order of the server; one too many is dropped.
    pub fn order(&self, hold: Hold) {
        let _ = self.0.orders.try_send(hold);
    }

    /// Gives out files to machines in these networks too.
    pub(super) fn allow(&self, nets: Vec<Net>) {
        let mut allowed = self.0.nets.lock();
        for net in nets {
            if allowed.len() < 16 && !allowed.contains(&net) {
                allowed.push(net);
            }
        }
    }

    /// Whether a machine at `address` may have files.
    pub(super) fn serves(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address.to_canonical() else { return false };
        self.0.nets.lock().iter().any(|(net, prefix)| {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub((*prefix).into())).unwrap_or(0);
            (net.to_bits() ^ address.to_bits()) & mask == 0
        })
    }

    /// Drops everything when memory is low, `available` bytes; they are told to the server as gone.
    pub(super) fn under(&self, available: u64) {
        let mut files = self.0.files.lock();
        if available < LOW && available > 0 && !files.is_empty() {
            files.clear();
            self.0.held.send_replace(vec![]);
        }
    }
}

/// The next list of `held`, which is there at once the first time; none where nothing is given out.
pub async fn changed(held: &mut Option<watch::Receiver<Vec<Hash>>>) -> Option<Vec<Hash>> {
    let held = held.as_mut()?;
    match held.changed().await {
        Ok(()) => Some(held.borrow_and_update().clone()),
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(room: u64, nets: &[Net]) -> BootFiles {
        BootFiles::new(room, nets.to_vec(), 1, mpsc::channel(1).0)
    }

    #[test]
    fn what_is_held_is_bounded_by_memory() {
        assert_eq!(room(0), 0);
        assert_eq!(room(400 << 20), 100 << 20);
        assert_eq!(room(64 << 30), 128 << 20);
        let files = files(10, &[]);
        files.put(b"12345678".to_vec());
        files.put(b"abc".to_vec());
        files.put(b"ab".to_vec());
        let held = files.held();
        assert_eq!(held.borrow().len(), 2, "eleven bytes do not fit into ten");
        assert!(files.get(Hash::of(b"ab")).is_some() && files.get(Hash::of(b"abc")).is_none());
        assert!(!files.has_room(1) && files.has_room(0));
        files.under(LOW);
        assert_eq!(held.borrow().len(), 2);
        files.under(LOW - 1);
        assert!(held.borrow().is_empty() && files.get(Hash::of(b"ab")).is_none());
    }

    #[test]
    fn only_the_site_is_served() {
        let files = files(10, &[([10, 1, 2, 3].into(), 24)]);
        let serves = |ip: &str| files.serves(ip.parse().unwrap());
        assert!(serves("10.1.2.200") && serves("::ffff:10.1.2.9"));
        assert!(!serves("10.1.3.1") && !serves("127.0.0.1") && !serves("fe80::1"));
        files.allow(vec![([10, 1, 0, 0].into(), 16)]);
        assert!(serves("10.1.3.1") && !serves("10.2.0.1"));
        files.allow(vec![([0, 0, 0, 0].into(), 0), ([9, 9, 9, 9].into(), 99)]);
        assert!(serves("192.0.2.1"));
    }

    #[test]
    fn the_networks_of_orders_are_bounded() {
        let files = files(10, &[([10, 0, 0, 0].into(), 24)]);
        files.allow((1..=200).map(|n| ([10, 0, n, 0].into(), 24)).collect());
        let served = (0..=200).filter(|n| files.serves(IpAddr::from([10, 0, *n, 9]))).count();
        assert_eq!(served, 16);
    }
}
