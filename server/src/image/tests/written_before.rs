//! An image store that the version before issue 16 wrote: it opens without loss. A manifest of a later version is refused
//! and left as it is. The fixture was written by commit aa0dcaf's own code.

use common::chunk::ChunkIndex;

use super::*;

/// The store as aa0dcaf left it, copied to where it may be written.
fn fixture() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/image/tests/written-by-aa0dcaf");
    for file in files(&from) {
        let to = dir.path().join(&file);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from.join(&file), to).unwrap();
    }
    dir
}

fn contents(state: &Path) -> Vec<(String, Vec<u8>)> {
    files(state).into_iter().map(|file| (file.clone(), std::fs::read(state.join(file)).unwrap())).collect()
}

#[test]
fn an_image_store_of_the_version_before_opens_without_loss() {
    let dir = fixture();
    let before = contents(dir.path());
    assert_eq!(before.len(), 5);
    let images = Images::open(dir.path()).unwrap();
    assert_eq!(
        images.list().iter().map(|image| image.name.as_str()).collect::<Vec<_>>(),
        ["again", "debian"]
    );
    let image = images.get("debian").unwrap();
    assert_eq!(
        (image.size_bytes, image.chunks, image.zero_chunks, image.stored_chunks),
        (3_147_776, 4, 1, 2)
    );
    assert_eq!(
        (image.source.as_str(), image.format.to_string().as_str(), image.wire_bytes),
        ("disk.raw", "raw", 2161)
    );
    assert!(image.traits.is_some(), "what was seen in it need not be looked for again");
    assert!(images.verify(image.id, &mut |_| {}).unwrap().damaged.is_empty());
    let raw = export(&images, image.id);
    assert_eq!(raw[..16], *b"\x01\x02compresses \xff\xfe\x00");
    assert_eq!(raw.len(), 3_147_776);
    // The same image under the same name: its manifest and its chunks have the names that they had.
    let again = add(&images, "debian", raw).unwrap();
    assert_eq!((again.existed, again.new_chunks, again.image), (true, 0, image));
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn a_manifest_of_a_later_version_is_refused_and_left_untouched() {
    let dir = fixture();
    let manifest = files(dir.path()).into_iter().find(|file| file.contains("manifests/")).unwrap();
    let mut later = std::fs::read(dir.path().join(&manifest)).unwrap();
    later[4..6].copy_from_slice(&99_u16.to_le_bytes());
    // Its name is the hash of what it says.
    let id = ImageId(common::id::Hash::of(&later));
    std::fs::remove_file(dir.path().join(manifest)).unwrap();
    std::fs::write(dir.path().join(format!("images/manifests/{id}")), &later).unwrap();
    for name in ["debian", "again"] {
        let path = dir.path().join(format!("images/names/{name}.json"));
        let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        record["id"] = serde_json::to_value(id).unwrap();
        std::fs::write(path, record.to_string()).unwrap();
    }
    let before = contents(dir.path());
    let images = Images::open(dir.path()).unwrap();
    let told = told(&images.manifest(id).unwrap_err());
    assert!(told.contains("version 99") && told.contains("version 1"), "{told}");
    assert!(images.verify(id, &mut |_| {}).is_err());
    add(&images, "other", noise(7, MIB)).unwrap();
    images.remove("other", None).unwrap();
    let kept = contents(dir.path());
    assert!(before.iter().all(|file| kept.contains(file)), "something of a later version is gone");
}

#[test]
fn an_image_keeps_its_name_under_a_new_server() {
    let dir = fixture();
    let images = Images::open(dir.path()).unwrap();
    let image = images.get("debian").unwrap();
    let manifest = images.manifest(image.id).unwrap();
    assert_eq!(common::id::Hash::of(&manifest.to_bytes()), image.id.0);
    assert!(images.wire_chunk(&manifest.stored(ChunkIndex(3)).unwrap()).is_ok());
}
