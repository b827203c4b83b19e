//! Fuzzes the query with which iPXE asks for its script.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|query: &str| server::http::try_query(query));
