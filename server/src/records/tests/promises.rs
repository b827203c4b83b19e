//! The contract of the fleet's stores, tried on SQLite.

use super::*;
use crate::fleet::store::Store;
use crate::fleet::testing::suite::{Bench, store_suite};

/// A temporary folder with a database in it.
struct Folder(tempfile::TempDir);

impl Bench for Folder {
    fn open(&self) -> Box<dyn Store> {
        Box::new(Records::open(&self.0.path().join("records.sqlite")).unwrap())
    }
}

store_suite!(Folder(tempfile::tempdir().unwrap()));
