//! Fuzzes a `.deb`, which is an ar archive with a compressed tar archive in it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(dir) = tempfile::tempdir() else { return };
    let (path, into) = (dir.path().join("a.deb"), dir.path().join("out"));
    if std::fs::write(&path, bytes).is_ok() && std::fs::create_dir(&into).is_ok() {
        server::kit::try_deb(&path, &into);
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).into_iter().flatten().flatten().collect();
    assert_eq!(left.len(), 2, "nothing beside the folder given");
});
