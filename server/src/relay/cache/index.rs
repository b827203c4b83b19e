//! Core: which files the cache keeps, and which goes first when there is no room. Owns the sum of their bytes; touches
//! `id`.

use std::collections::{BTreeMap, HashMap};

use super::name::Name;

/// The kept files by name, bounded in bytes: the one not used for the longest time goes first.
#[derive(Debug)]
pub(super) struct Index {
    kept: HashMap<Name, (u64, u64)>,
    order: BTreeMap<u64, Name>,
    uses: u64,
    bytes: u64,
    bytes_max: u64,
}

impl Index {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { kept: HashMap::new(), order: BTreeMap::new(), uses: 0, bytes: 0, bytes_max }
    }

    /// The most bytes that are kept.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// The length of a kept file, in bytes.
    pub(super) fn get(&self, name: &Name) -> Option<u64> {
        self.kept.get(name).map(|(bytes, _)| *bytes)
    }

    /// Notes that the file is used now.
    pub(super) fn used(&mut self, name: &Name) {
        if let Some((_, used)) = self.kept.get_mut(name) {
            self.uses += 1;
            self.order.remove(used);
            self.order.insert(self.uses, *name);
            *used = self.uses;
        }
    }

    /// Adds a file of `bytes`, used now, whether there is room or not.
    pub(super) fn insert(&mut self, name: Name, bytes: u64) {
        self.remove(&name);
        self.uses += 1;
        self.bytes += bytes;
        self.kept.insert(name, (bytes, self.uses));
        self.order.insert(self.uses, name);
    }

    pub(super) fn remove(&mut self, name: &Name) {
        if let Some((bytes, used)) = self.kept.remove(name) {
            self.order.remove(&used);
            self.bytes -= bytes;
        }
    }

    /// Drops files until there is room for `bytes` more, and gives those that were dropped; `None`, and drops nothing,
    /// when there could never be.
    pub(super) fn make_room(&mut self, bytes: u64) -> Option<Vec<Name>> {
        let most = self.bytes_max.checked_sub(bytes)?;
        let mut dropped = vec![];
        while self.bytes > most {
            let oldest = *self.order.first_key_value()?.1;
            self.remove(&oldest);
            dropped.push(oldest);
        }
        Some(dropped)
    }
}

#[cfg(test)]
mod tests {
    use common::id::Hash;

    use super::super::name::Form;
    use super::*;

    #[test]
    fn what_was_not_used_for_the_longest_time_goes_first() {
        let hash = |name: &str| Name { hash: Hash::of(name.as_bytes()), form: Form::Plain };
        let mut index = Index::new(30);
        for name in ["a", "b", "c"] {
            assert_eq!(index.make_room(10), Some(vec![]));
            index.insert(hash(name), 10);
        }
        index.used(&hash("a"));
        assert_eq!(index.make_room(10), Some(vec![hash("b")]));
        index.insert(hash("d"), 10);
        assert_eq!(index.make_room(31), None, "it could never fit, and nothing is dropped for it");
        assert_eq!((index.get(&hash("a")), index.get(&hash("b"))), (Some(10), None));
        index.insert(hash("a"), 5);
        assert_eq!(index.bytes, 25, "a file that is put again counts once");
        assert_eq!(index.make_room(30).map(|dropped| dropped.len()), Some(3));
        assert_eq!((index.bytes, index.order.len()), (0, 0));
    }
}
