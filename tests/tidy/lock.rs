//! Where the crates come from that are built in: the lock file names crates.io and a checksum for each that is not
//! ours. Owns that rule; licences and duplicates are checked by `cargo deny`, with `tests/deny.toml`.

use std::fs;

use super::{none, root};

const SOURCE: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
/// The crates of this repository.
const OURS: [&str; 4] = ["swarmboot", "swarmboot-agent", "swarmboot-common", "swarmboot-tests"];

fn strange_sources(lock: &str) -> Vec<String> {
    let mut findings = vec![];
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| package.lines().find(|line| line.starts_with(key));
        let name = value("name = ").and_then(|line| line.split('"').nth(1)).unwrap_or_default();
        let is_checked = value("source") == Some(SOURCE) && value("checksum = ").is_some();
        if !is_checked && !OURS.contains(&name) {
            findings.push(format!(
                "Cargo.lock: {name} is not from crates.io with a checksum: nobody could build what you built; use a release"
            ));
        }
    }
    findings
}

#[test]
fn crates_come_from_one_place() {
    none(&strange_sources(&fs::read_to_string(root().join("Cargo.lock")).unwrap()));
}

#[test]
fn a_strange_source_is_found() {
    let package =
        |rest: &str| format!("version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n{rest}\n");
    assert!(strange_sources(&package(&format!("{SOURCE}\nchecksum = \"00\""))).is_empty());
    assert_eq!(strange_sources(&package("source = \"git+https://example.org/a\"")).len(), 1);
    assert_eq!(strange_sources(&package(SOURCE)).len(), 1, "without a checksum");
    assert_eq!(strange_sources(&package("")).len(), 1, "from a folder");
}
