//! Fuzzes packets at the TFTP port; a packet that is passed on has to be a valid request.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|packet: &[u8]| server::boot::tftp::try_request(packet));
