//! The `swarmboot` program.
fn main() {}
