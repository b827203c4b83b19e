//! Fuzzes the `.modinfo` section of a kernel module: an ELF file of a kit's source.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| server::kit::try_module(bytes));
