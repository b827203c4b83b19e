//! A kit that the version before issue 16 imported: it opens without loss. One of a later version is refused and left
//! as it is. The fixture was written by commit aa0dcaf's own code. Touches a copy of it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{KitError, Kits};

const NAME: &str = "6.1.0-9-amd64";

/// Every file below `folder`, with its bytes.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut folders) = (vec![], vec![folder.to_owned()]);
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(inside).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name != ".lock") {
                found.push((path.strip_prefix(folder).unwrap().to_owned(), fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The kits as aa0dcaf wrote them, copied to a folder that can be written.
fn fixture() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kit/written-by-aa0dcaf");
    for (file, bytes) in contents(&from) {
        let to = dir.path().join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, bytes).unwrap();
    }
    dir
}

#[test]
fn a_kit_of_the_version_before_opens_without_loss() {
    let dir = fixture();
    let before = contents(dir.path());
    let kits = Kits::open(dir.path()).unwrap();
    let info = kits.info(NAME).unwrap();
    assert_eq!(
        (info.kernel.as_str(), info.architecture.as_str(), info.imported_at),
        (NAME, "x86_64", 1_795_794_357)
    );
    assert_eq!((info.modules, info.firmware, info.boot_programs.len(), info.warnings.len()), (6, 1, 2, 2));
    let kit = kits.get(NAME).unwrap();
    let modules: Vec<&str> = kit.modules().modules().iter().map(|module| module.name.as_str()).collect();
    assert_eq!(modules, ["crct_generic", "libphy", "r8169", "realtek", "scsi_mod", "sd_mod"]);
    // The module that was left out is in the folder all the same, but no part of the kit.
    let is_part = |file: &Path| !file.ends_with("kit.json") && !file.ends_with("broken.ko");
    for (file, bytes) in before.iter().filter(|(file, _)| is_part(file)) {
        let file = file.strip_prefix(Path::new("kits").join(NAME)).unwrap().to_str().unwrap();
        assert_eq!(kit.mark(file).map(|mark| mark.blake3), Some(common::id::Hash::of(bytes)), "{file}");
    }
    kit.save_record().unwrap();
    assert_eq!(contents(dir.path()), before, "the same bytes when it is written again");
}

#[test]
fn a_kit_of_a_later_version_is_refused_and_left_untouched() {
    let dir = fixture();
    let path = dir.path().join("kits").join(NAME).join("kit.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"format\": 1", "\"format\": 99");
    fs::write(&path, text).unwrap();
    let before = contents(dir.path());
    let kits = Kits::open(dir.path()).unwrap();
    let Err(error) = kits.get(NAME) else { panic!("it was opened") };
    assert!(matches!(error, KitError::Index { .. }));
    let told = common::causes::with_causes(&error);
    assert!(told.contains("format 99") && told.contains("format 1"), "{told}");
    assert_eq!(contents(dir.path()), before);
}
