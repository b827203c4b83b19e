//! What a kernel module says of itself: an ELF file of a kit's source, and its `.modinfo` section.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| server::kit::try_module(bytes));
