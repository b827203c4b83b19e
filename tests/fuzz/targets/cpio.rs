//! A bundle as a loader unpacks it, with and without its compression.
#![no_main]

use libfuzzer_sys::fuzz_target;

use agent::boot::bundle::unpack;

fuzz_target!(|bytes: &[u8]| {
    let Ok(dir) = tempfile::tempdir() else { return };
    let _ = unpack(bytes, &dir.path().join("plain"));
});
