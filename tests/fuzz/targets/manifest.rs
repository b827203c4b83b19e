//! Fuzzes a manifest and a table of deltas as a machine fetches them: what is read has to be written as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

use common::deltas::DeltaTable;
use common::manifest::Manifest;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::from_bytes(bytes) {
        assert_eq!(manifest.to_bytes(), bytes);
        let _ = (manifest.places().len(), manifest.wire_bytes());
    }
    if let Ok(table) = DeltaTable::from_bytes(bytes) {
        assert_eq!(table.to_bytes(), bytes);
    }
});
