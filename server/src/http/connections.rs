//! Core: counts the connections of each address, so that one host cannot use up those of all others. Touches `std` and
//! a mutex only.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// The bounds on the connections of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionBounds {
    /// Connections at once, from all addresses together.
    pub all: usize,
    /// Connections at once from one address.
    pub per_address: usize,
}

/// How many connections are open, by address.
#[derive(Debug, Default)]
pub(super) struct CountsByAddress {
    inside: Mutex<HashMap<IpAddr, usize>>,
}

impl CountsByAddress {
    /// Counts one more connection from `address`, until the result is dropped; `None` when it has `most` already.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Place> {
        let mut inside = self.inside.lock();
        let count = inside.entry(address).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { counts: Arc::clone(self), address })
    }

    /// How many connections are open, of all addresses.
    pub(super) fn all(&self) -> usize {
        self.inside.lock().values().sum()
    }

    fn leave(&self, address: IpAddr) {
        let mut inside = self.inside.lock();
        if let Some(count) = inside.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inside.remove(&address);
            }
        }
    }

    #[cfg(test)]
    fn addresses(&self) -> usize {
        self.inside.lock().len()
    }
}

/// One counted connection; dropping it lowers the count again.
#[derive(Debug)]
pub(super) struct Place {
    counts: Arc<CountsByAddress>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.leave(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_the_places_of_others() {
        let counts = Arc::new(CountsByAddress::default());
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut places: Vec<_> = (0..3).map(|_| counts.enter(one, 3)).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(counts.enter(one, 3).is_none());
        let beside = counts.enter(other, 3);
        assert!(beside.is_some());
        places.pop();
        assert!(counts.enter(one, 3).is_some());
        drop((places, beside));
        assert_eq!(counts.addresses(), 0, "nothing is kept of who has left");
    }
}
