//! Fuzzes the messages of the swarm, in both directions of both streams.
#![no_main]

use libfuzzer_sys::fuzz_target;

use common::chunk::ChunkSet;
use common::swarm::frame::parse;
use common::swarm::manners::Told;
use common::wire::swarm::{FromHolder, FromPuller, ToAgent, ToServer};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(ToServer::Have { chunks }) = parse(bytes) {
        let told = Told::first(ChunkSet::new(64)).more(&chunks);
        assert!(told.is_err() || chunks.len() <= 64);
    }
    if let Ok(ToServer::Hello { held, .. }) = parse(bytes) {
        assert_eq!(held.iter().count(), held.count() as usize);
    }
    let _ = parse::<ToAgent>(bytes);
    let _ = parse::<FromPuller>(bytes);
    let _ = parse::<FromHolder>(bytes);
});
