//! Tests of bundles as the server packs them, and of archives with entries that are not allowed.

use std::io::Cursor;

use cpio::NewcBuilder;

use super::*;

/// An archive of (name, mode, bytes).
fn archive(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let inputs =
        entries.iter().map(|(name, mode, bytes)| (NewcBuilder::new(name).mode(*mode), Cursor::new(*bytes)));
    let plain = cpio::write_cpio(inputs, vec![]).unwrap();
    zstd::stream::encode_all(&plain[..], 3).unwrap()
}

#[test]
fn a_bundle_comes_out_as_it_went_in_and_replaces_an_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("bundle");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("older"), b"x").unwrap();
    let bytes = archive(&[
        (".", FOLDER | 0o755, b""),
        ("agent", FILE | 0o4755, b"\x7fELF"),
        ("lib/modules", FOLDER | 0o755, b""),
        ("lib/modules/a/b.ko", FILE | 0o600, b"module"),
    ]);
    let agent = unpack(&bytes, &place).unwrap();
    assert_eq!(fs::read(&agent).unwrap(), b"\x7fELF");
    let mode = |path: &str| fs::metadata(place.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("agent"), mode("lib/modules/a/b.ko")), (0o755, 0o644));
    assert!(!place.join("older").exists());
}

#[test]
fn what_must_not_be_in_a_bundle_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("bundle");
    let table: [(&str, u32); 6] = [
        ("../outside", FILE | 0o644),
        ("/outside", FILE | 0o644),
        ("a/../../outside", FILE | 0o644),
        ("link", 0o120_777),
        ("device", 0o020_600),
        ("pipe", 0o010_600),
    ];
    for (name, mode) in table {
        let bytes = archive(&[(name, mode, b"x"), ("agent", FILE | 0o755, b"x")]);
        assert!(matches!(unpack(&bytes, &place), Err(BundleError::Entry(_))), "{name}");
        assert!(!dir.path().join("outside").exists());
    }
}

#[test]
fn a_damaged_or_empty_bundle_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("bundle");
    let good = archive(&[("agent", FILE | 0o755, &[5; 5000])]);
    for cut in [0, 1, 10, good.len() / 2, good.len() - 6] {
        assert!(unpack(&good[..cut], &place).is_err(), "{cut}");
    }
    assert!(unpack(b"not an archive", &place).is_err());
    assert!(matches!(unpack(&archive(&[("x", FILE, b"")]), &place), Err(BundleError::NoAgent)));
    assert!(matches!(unpack(&archive(&[("agent", FOLDER | 0o755, b"")]), &place), Err(BundleError::NoAgent)));
}
