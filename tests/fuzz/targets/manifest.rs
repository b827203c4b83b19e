//! Fuzzes a manifest as a machine fetches it: what is read has to be written as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

use common::manifest::Manifest;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::from_bytes(bytes) {
        assert_eq!(manifest.to_bytes(), bytes);
        let _ = (manifest.places().len(), manifest.wire_bytes());
    }
});
