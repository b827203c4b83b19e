//! Fuzzes the server's parser of DHCP packets.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|packet: &[u8]| {
    if let Ok(request) = server::dhcp4::request::BootRequest::parse(packet) {
        let _ = (request.mac(), request.asker(), request.relay(), request.link(), request.board());
    }
});
