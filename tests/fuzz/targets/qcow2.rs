//! Fuzzes the reader of qcow2 images, which reads to the end or to 64 MiB.
#![no_main]

use libfuzzer_sys::fuzz_target;

use std::io::Write as _;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut file) = tempfile::tempfile() else { return };
    if file.write_all(bytes).is_ok() {
        server::image::try_qcow2(file, 64 << 20);
    }
});
