//! A rebuilt image gets deltas over the old one, which give its bytes; they stay when the old one is removed, go with
//! the new one, and are made anew when they are damaged or else dropped. Touches nothing but a folder.

use common::chunk::ChunkIndex;
use common::deltas::{DeltaTable, decode};
use common::id::Hash;

use super::super::keys::chunk_key;
use super::*;

/// An image of 8 MiB, and a later build of it: everything lies 100,001 bytes behind where it lay, one MiB is new and
/// one is as it was.
fn builds() -> (Vec<u8>, Vec<u8>) {
    let old = noise(1, 8 * MIB);
    let mut new = [&noise(2, 100_001)[..], &old].concat();
    new.truncate(8 * MIB);
    new[3 * MIB..4 * MIB].copy_from_slice(&noise(3, MIB));
    new[6 * MIB..7 * MIB].copy_from_slice(&old[6 * MIB..7 * MIB]);
    (old, new)
}

fn table(images: &Images, id: ImageId) -> DeltaTable {
    let (bytes, hash) = images.delta_table(id).unwrap();
    assert_eq!(Hash::of(&bytes), hash);
    DeltaTable::from_bytes(&bytes).unwrap()
}

#[test]
fn a_rebuilt_image_costs_its_difference_and_its_deltas_give_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(dir.path()).unwrap();
    let (old_raw, new_raw) = builds();
    add(&images, "strange", noise(9, 5 * MIB)).unwrap();
    let old = add(&images, "old", old_raw.clone()).unwrap().image;
    assert!(images.delta_table(old.id).is_none(), "it is like no other");
    let new = add(&images, "new", new_raw.clone()).unwrap().image;
    let [set] = &table(&images, new.id).sets[..] else { panic!("one set") };
    assert_eq!(set.from, old.id);
    let with: Vec<u32> = set.deltas.keys().map(|chunk| chunk.0).collect();
    assert_eq!(with, [0, 1, 2, 4, 5, 7], "one is new, and one is on the old disk at its place");
    let of = |raw: &[u8], at: ChunkIndex| raw[at.at() * MIB..(at.at() + 1) * MIB].to_vec();
    for (chunk, delta) in &set.deltas {
        let bases = delta.bases.iter().map(|base| set.bases[*base as usize]);
        let prefix = bases.flat_map(|base| {
            let bytes = of(&old_raw, base.place);
            assert_eq!(Hash::of(&bytes), base.raw);
            bytes
        });
        let frame = images.delta_frame(new.id, *chunk, delta.wire).unwrap();
        assert_eq!(frame.len(), delta.wire_len as usize);
        let raw = decode(&frame, &prefix.collect::<Vec<u8>>(), common::limits::CHUNK_BYTES).unwrap();
        assert!(raw == of(&new_raw, *chunk), "chunk {}", chunk.0);
        assert!(images.delta_frame(new.id, ChunkIndex(3), delta.wire).is_none(), "another chunk's");
    }
    let [update] = &images.updates(new.id)[..] else { panic!("what it costs over the old one") };
    let deltas: u64 = set.deltas.values().map(|delta| u64::from(delta.wire_len)).sum();
    assert_eq!((update.from.as_str(), update.wire_bytes), ("old", deltas + MIB as u64));
    assert!(deltas < 120_000, "{deltas}");
}

#[test]
fn deltas_outlive_the_old_image_and_go_with_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(dir.path()).unwrap();
    let (old, new) = builds();
    add(&images, "old", old).unwrap();
    let new = add(&images, "new", new).unwrap().image.id;
    let before = table(&images, new);
    images.remove("old", None).unwrap();
    drop(images);
    let images = Images::open(dir.path()).unwrap();
    assert_eq!(table(&images, new), before);
    for (chunk, delta) in &before.sets[0].deltas {
        assert!(images.delta_frame(new, *chunk, delta.wire).is_some(), "machines still have its base");
    }
    images.remove("new", None).unwrap();
    assert_eq!(files(dir.path()), [""; 0], "nothing is left");
}

#[test]
fn a_damaged_delta_is_not_sent_and_is_made_anew_by_adding_again() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(dir.path()).unwrap();
    let (old, new_raw) = builds();
    add(&images, "old", old).unwrap();
    let new = add(&images, "new", new_raw.clone()).unwrap().image.id;
    let (chunk, wire) = spoil(&images, dir.path(), new, Some(b"something else"));
    assert!(images.delta_frame(new, chunk, wire).is_none());
    add(&images, "new", new_raw.clone()).unwrap();
    assert!(images.delta_frame(new, chunk, wire).is_some());
    // A table that cannot be read is as good as none, and is made anew as well.
    std::fs::write(dir.path().join(format!("images/deltas/{new}")), b"SBDT of another time").unwrap();
    drop(images);
    let images = Images::open(dir.path()).unwrap();
    assert!(images.delta_table(new).is_none());
    add(&images, "new", new_raw).unwrap();
    assert!(images.delta_table(new).is_some());
}

/// Damages, or deletes, the first delta's frame of the image.
fn spoil(images: &Images, dir: &Path, id: ImageId, bytes: Option<&[u8]>) -> (ChunkIndex, Hash) {
    let (chunk, delta) = table(images, id).sets[0].deltas.pop_first().unwrap();
    let path = dir.join("images").join(chunk_key(&delta.wire));
    match bytes {
        Some(bytes) => std::fs::write(path, bytes).unwrap(),
        None => std::fs::remove_file(path).unwrap(),
    }
    (chunk, delta.wire)
}

#[test]
fn verifying_makes_a_damaged_delta_anew_or_drops_it() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(dir.path()).unwrap();
    let (old, new_raw) = builds();
    add(&images, "old", old).unwrap();
    let new = add(&images, "new", new_raw.clone()).unwrap().image.id;
    let verified = || images.verify(new, &mut |_| {}).unwrap();
    assert!(verified().notes.is_empty(), "all is well");
    let before = table(&images, new);
    for bytes in [Some(&b"something else"[..]), Some(&b""[..]), None] {
        let (chunk, wire) = spoil(&images, dir.path(), new, bytes);
        let report = verified();
        assert!(report.damaged.is_empty(), "the image itself is whole");
        assert_eq!(report.notes, ["1 damaged deltas were made anew"]);
        assert!(images.delta_frame(new, chunk, wire).is_some());
        assert_eq!(table(&images, new), before, "plans that name it stay right");
    }
    // Without the old image it cannot be made.
    images.remove("old", None).unwrap();
    let (chunk, wire) = spoil(&images, dir.path(), new, Some(b"something else"));
    let [note] = &verified().notes[..] else { panic!("one note") };
    assert!(note.starts_with("1 of 6 deltas over earlier images are damaged: they are dropped"), "{note}");
    assert!(images.delta_frame(new, chunk, wire).is_none());
    assert!(!dir.path().join("images").join(chunk_key(&wire)).exists(), "what was left of it is deleted");
    let after = table(&images, new);
    assert!(!after.sets[0].deltas.contains_key(&chunk) && after.sets[0].deltas.len() == 5);
    for (chunk, delta) in &after.sets[0].deltas {
        assert!(images.delta_frame(new, *chunk, delta.wire).is_some(), "the others stay");
    }
    let report = verified();
    assert!(report.notes.is_empty() && report.damaged.is_empty(), "{report:?}");
    drop(images);
    let images = Images::open(dir.path()).unwrap();
    assert_eq!(table(&images, new), after, "it was kept");
    assert!(export(&images, new) == new_raw);
}

#[test]
fn an_image_whose_deltas_are_all_lost_has_none_and_can_be_given_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(dir.path()).unwrap();
    let (old, new_raw) = builds();
    add(&images, "old", old.clone()).unwrap();
    let new = add(&images, "new", new_raw.clone()).unwrap().image.id;
    images.remove("old", None).unwrap();
    for delta in table(&images, new).sets[0].deltas.values() {
        std::fs::remove_file(dir.path().join("images").join(chunk_key(&delta.wire))).unwrap();
    }
    assert_eq!(images.verify(new, &mut |_| {}).unwrap().notes.len(), 1);
    assert!(images.delta_table(new).is_none(), "an empty table is none");
    add(&images, "old", old).unwrap();
    add(&images, "new", new_raw).unwrap();
    assert_eq!(table(&images, new).sets[0].deltas.len(), 6);
}
