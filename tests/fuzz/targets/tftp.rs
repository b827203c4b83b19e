//! A packet at the TFTP port; what is handed on of it is a request again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|packet: &[u8]| server::boot::tftp::try_request(packet));
