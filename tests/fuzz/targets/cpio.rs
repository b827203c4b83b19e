//! Fuzzes the loader's unpacking of bundles, with and without their compression.
#![no_main]

use libfuzzer_sys::fuzz_target;

use agent::boot::bundle::unpack;

fuzz_target!(|bytes: &[u8]| {
    let Ok(dir) = tempfile::tempdir() else { return };
    let _ = unpack(bytes, &dir.path().join("plain"));
});
