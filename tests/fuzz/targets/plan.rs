//! Fuzzes a verdict with its plan, as a machine reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;

use common::plan::Verdict;
use common::trust::{KeyPair, Signed};
use common::wire::http::EventsTaken;

fuzz_target!(|body: &[u8]| {
    let key = KeyPair::from_secret([7; 32]).public();
    if let Ok(signed) = serde_json::from_slice::<Signed<Verdict>>(body) {
        assert!(signed.open(&key).is_err(), "a signature by chance");
    }
    let _ = serde_json::from_slice::<Signed<EventsTaken>>(body);
    if let Ok(verdict) = serde_json::from_slice::<Verdict>(body) {
        let again =
            serde_json::to_vec(&verdict).ok().and_then(|text| serde_json::from_slice::<Verdict>(&text).ok());
        assert!(again.is_some());
    }
});
