//! Images are exported as they were added; equal chunks are stored once; damage is found and repaired; nothing of a
//! failed add stays.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};

use common::chunk::ChunkIndex;
use common::manifest::Encoding;
use proptest::prelude::*;

use super::super::keys::chunk_key;
use super::*;

pub(crate) fn boundary_sizes(bench: &impl Bench) {
    let cases = [
        (1, 512, 1, true),
        (511, 512, 1, true),
        (512, 512, 1, false),
        (513, 1024, 1, true),
        (MIB - 1, MIB, 1, true),
        (MIB, MIB, 1, false),
        (MIB + 1, MIB + 512, 2, true),
        (2 * MIB, 2 * MIB, 2, false),
    ];
    let images = bench.open().unwrap();
    for (len, size, chunks, noted) in cases {
        let mut bytes = noise(len as u64, len);
        let added = add(&images, &format!("n{len}"), bytes.clone()).unwrap();
        assert_eq!((added.image.size_bytes, added.image.chunks), (size as u64, chunks), "{len}");
        assert_eq!(added.notes.iter().any(|note| note.contains("last sector was short")), noted, "{len}");
        bytes.resize(size, 0);
        assert!(export(&images, added.image.id) == bytes, "{len}");
    }
    let error = add(&images, "none", Vec::new()).unwrap_err();
    assert!(matches!(error, ImageError::Empty { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn what_goes_in_comes_out(
        runs in proptest::collection::vec((any::<u8>(), 0usize..700_000, any::<bool>()), 1..6), packed in 0..4,
    ) {
        let mut bytes = vec![1];
        for (value, len, random) in runs {
            if random { bytes.extend(noise(u64::from(value), len)) } else { bytes.resize(bytes.len() + len, value % 3) }
        }
        let input = match packed { 0 => bytes.clone(), 1 => gz(&bytes), 2 => xz(&bytes), _ => zst(&bytes) };
        let dir = tempfile::tempdir().unwrap();
        let id = {
            let images = Images::open(dir.path()).unwrap();
            add(&images, "any", input).unwrap().image.id
        };
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let images = Images::open(dir.path()).unwrap();
        prop_assert!(export(&images, id) == bytes);
    }
}

pub(crate) fn equal_chunks_rest_once_and_keep_their_wire_form(bench: &impl Bench) {
    let images = bench.open().unwrap();
    let text = b"compresses well ".repeat(MIB / 16);
    let base = [noise(1, MIB), text.clone(), vec![0; MIB], text.clone(), noise(2, MIB)].concat();
    let first = add(&images, "first", base.clone()).unwrap();
    assert_eq!((first.image.chunks, first.image.stored_chunks, first.image.zero_chunks), (5, 3, 1));
    assert_eq!((first.new_chunks, first.new_bytes), (3, first.image.wire_bytes));
    let manifest = images.manifest(first.image.id).unwrap();
    let kinds = [0, 1].map(|at| manifest.stored(ChunkIndex(at)).unwrap().encoding);
    assert_eq!(kinds, [Encoding::Raw, Encoding::Zstd]);

    let mut changed = base;
    changed[0] ^= 1;
    let second = add(&images, "second", changed).unwrap();
    assert_eq!((second.new_chunks, second.new_bytes), (1, MIB as u64));
    assert_eq!(
        images.manifest(second.image.id).unwrap().stored(ChunkIndex(1)),
        manifest.stored(ChunkIndex(1))
    );
    let rest = bench.keys().iter().filter(|key| key.starts_with("chunks/")).count();
    assert_eq!(rest, 5, "four chunks, and the delta of the changed one over what it was");

    let removed = images.remove("first", None).unwrap();
    assert!((MIB as u64..MIB as u64 + 4096).contains(&removed.freed_bytes), "{}", removed.freed_bytes);
    assert!(images.verify(second.image.id, &mut |_| {}).unwrap().damaged.is_empty());
    images.remove("second", None).unwrap();
    assert!(bench.keys().is_empty(), "{:?}", bench.keys());
}

pub(crate) fn damage_is_found_not_served_and_repaired_by_adding_again(bench: &impl Bench) {
    let images = bench.open().unwrap();
    let bytes = [noise(1, MIB), b"text".repeat(MIB / 4), noise(2, MIB)].concat();
    let image = add(&images, "a", bytes.clone()).unwrap().image;
    let manifest = images.manifest(image.id).unwrap();
    let chunk = |at| manifest.stored(ChunkIndex(at)).unwrap();
    let key = |at| chunk_key(&chunk(at).wire);
    let mut rotten = bench.read(&key(1));
    rotten[10] ^= 1;
    bench.write(&key(1), &rotten);
    bench.remove(&key(2));

    assert!(images.wire_chunk(&chunk(0)).is_ok());
    let error = images.wire_chunk(&chunk(1)).unwrap_err();
    assert!(error.to_string().contains(&chunk(1).wire.to_string()), "{error}");
    assert!(matches!(images.wire_chunk(&chunk(2)), Err(ImageError::ChunkMissing { .. })));
    let report = images.verify(image.id, &mut |_| {}).unwrap();
    assert_eq!(report.damaged.iter().map(|damaged| damaged.chunk).collect::<Vec<_>>(), [1, 2]);
    assert!(images.export(image.id, &mut std::io::sink(), &mut |_| {}).is_err());

    bench.write(&format!("manifests/{}", image.id), b"rotten");
    assert!(matches!(images.verify(image.id, &mut |_| {}), Err(ImageError::Manifest { .. })));
    let again = add(&images, "a", bytes.clone()).unwrap();
    assert_eq!((again.existed, again.repaired_chunks, again.new_chunks), (true, 2, 0));
    assert_eq!(again.image, image);
    assert!(images.verify(image.id, &mut |_| {}).unwrap().damaged.is_empty());
    assert!(export(&images, image.id) == bytes);
}

pub(crate) fn a_damaged_chunk_is_named_with_its_images_and_mended_from_the_source(bench: &impl Bench) {
    let images = bench.open().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (shared, source) = (noise(1, MIB), dir.path().join("disk.raw"));
    let bytes = [shared.clone(), noise(2, MIB)].concat();
    std::fs::write(&source, &bytes).unwrap();
    let image = add_from(&images, "a", ImageSource::File(source.clone())).unwrap().image;
    add(&images, "b", [shared, noise(3, MIB)].concat()).unwrap();
    add(&images, "c", noise(4, MIB)).unwrap();
    let chunk = images.manifest(image.id).unwrap().stored(ChunkIndex(0)).unwrap();
    let key = chunk_key(&chunk.wire);
    let spoil = || {
        let mut rotten = bench.read(&key);
        rotten[10] ^= 1;
        bench.write(&key, &rotten);
    };
    let damaged = || images.verify(image.id, &mut |_| {}).unwrap().damaged;
    spoil();
    assert_eq!(damaged()[0].images, ["a", "b"]);
    images.mend(image.id, ChunkIndex(0)).unwrap();
    assert!(damaged().is_empty() && export(&images, image.id) == bytes);

    spoil();
    std::fs::write(&source, noise(5, 2 * MIB)).unwrap();
    assert!(images.mend(image.id, ChunkIndex(0)).is_err(), "the source has other bytes by now");
    std::fs::remove_file(&source).unwrap();
    assert!(images.mend(image.id, ChunkIndex(0)).is_err());
    assert_eq!(damaged().len(), 1, "nothing wrong was taken");
}

pub(crate) fn a_name_stays_with_its_content(bench: &impl Bench) {
    let images = bench.open().unwrap();
    let first = add(&images, "a", noise(1, 2 * MIB)).unwrap().image;
    let before = bench.keys();
    for other in [noise(2, 2 * MIB), noise(1, MIB), noise(1, 3 * MIB), vec![0; 2 * MIB]] {
        let error = add(&images, "a", other).unwrap_err();
        assert!(matches!(&error, ImageError::Taken { has, .. } if *has == first.id), "{error}");
        assert!(error.hint().unwrap().contains("image remove a"));
        assert_eq!(bench.keys(), before);
    }
    let again = add(&images, "a", noise(1, 2 * MIB)).unwrap();
    assert!(again.existed && again.notes.iter().any(|note| note.contains("already")));
    assert_eq!(images.list(), [first]);
}

pub(crate) fn bad_names_are_refused_before_anything_is_read(bench: &impl Bench) {
    let images = bench.open().unwrap();
    let long = "x".repeat(65);
    let id = "a".repeat(64);
    for name in ["", ".", "..", "a/b", "-a", "a b", "ä", "a\n", "../../etc/passwd", &long, &id] {
        let error = add(&images, name, noise(1, 512)).unwrap_err();
        assert!(matches!(error, ImageError::Name { .. }), "{name}: {error}");
        assert!(error.hint().is_some());
    }
    let spec = AddSpec {
        name: "a".into(),
        source: from_bytes(noise(1, 512)),
        sector_size: Some(520),
        no_table: true,
    };
    assert!(matches!(images.add(spec, &mut |_| {}), Err(ImageError::SectorSize(520))));
    assert!(add(&images, "Debian-12.5_x64", noise(1, 512)).is_ok());
}

pub(crate) fn an_image_is_found_by_name_or_by_the_beginning_of_its_id(bench: &impl Bench) {
    let images = bench.open().unwrap();
    assert!(images.get("a").unwrap_err().hint().unwrap().contains("no images yet"));
    let image = add(&images, "a", noise(1, 512)).unwrap().image;
    add(&images, "b", noise(1, 512)).unwrap();
    let id = image.id.to_string();
    assert_eq!(images.get("a").unwrap(), image);
    assert_eq!(images.get(&id[..4]).unwrap().id, image.id);
    assert!(images.get(&id[..3]).is_err());
    assert!(images.get("c").unwrap_err().hint().unwrap().contains("a, b"));

    let in_use = images.remove("a", Some("deployment d3"));
    assert!(in_use.is_ok(), "another name keeps the image");
    let error = images.remove("b", Some("deployment d3")).unwrap_err();
    assert_eq!(error.to_string(), "image `b` is in use by deployment d3");
    assert_eq!(export(&images, image.id).len(), 512);
}

pub(crate) fn a_crash_leaves_no_half_image_and_takes_no_whole_one(bench: &impl Bench) {
    let good = add(&bench.open().unwrap(), "good", noise(1, 2 * MIB)).unwrap().image;
    let whole = bench.keys();
    // A power cut in the middle of an add leaves chunks and even the manifest, but no name.
    bench.write(&format!("chunks/aa/{}", "a".repeat(64)), b"orphan");
    bench.write(&format!("manifests/{}", "b".repeat(64)), b"orphan");
    bench.write("unclean", b"");

    // While a record cannot be read, it is unknown which chunks are needed: nothing may be deleted.
    bench.write("names/other.json", b"{");
    let images = bench.open().unwrap();
    assert_eq!(images.list(), std::slice::from_ref(&good));
    assert_eq!(bench.keys().len(), whole.len() + 3);
    drop(images);
    bench.remove("names/other.json");
    bench.write("unclean", b"");

    let images = bench.open().unwrap();
    assert_eq!(bench.keys(), whole);
    assert!(images.verify(good.id, &mut |_| {}).unwrap().damaged.is_empty());
}

pub(crate) fn one_process_has_the_store(bench: &impl Bench) {
    let images = bench.open().unwrap();
    assert!(matches!(bench.open(), Err(ImageError::Locked { .. })));
    drop(images);
    assert!(bench.open().is_ok());
}

pub(crate) fn a_store_that_takes_nothing_is_an_error_and_not_an_image(bench: &impl Bench) {
    let images = bench.open().unwrap();
    bench.refuse_chunks();
    let error = add(&images, "a", noise(1, 8 * MIB)).unwrap_err();
    assert!(matches!(error, ImageError::Write { .. }), "{}", told(&error));
    assert!(images.list().is_empty());
}

#[test]
fn blobs_say_that_they_are_damaged_and_what_helps() {
    let bench = Memory::default();
    let images = bench.open().unwrap();
    let image = add(&images, "a", noise(1, 2 * MIB)).unwrap().image;
    let chunk = images.manifest(image.id).unwrap().stored(ChunkIndex(1)).unwrap();
    bench.damage(&chunk_key(&chunk.wire));
    let error = images.wire_chunk(&chunk).unwrap_err();
    assert!(matches!(error, ImageError::Read { .. }), "{}", told(&error));
    assert_eq!(error.hint().as_deref(), Some("look at the memory"));
    let again = add(&images, "a", noise(1, 2 * MIB)).unwrap();
    assert_eq!((again.existed, again.repaired_chunks, again.new_chunks), (true, 1, 0));
    assert!(images.verify(image.id, &mut |_| {}).unwrap().damaged.is_empty());
    bench.remove(&format!("manifests/{}", image.id));
    let error = images.verify(image.id, &mut |_| {}).unwrap_err();
    assert!(error.hint().unwrap().starts_with("check the memory, then"), "{error}");
}

/// A reader that waits for a message before it yields the next MiB.
struct Paced {
    go: Receiver<Vec<u8>>,
    now: Cursor<Vec<u8>>,
}

impl Read for Paced {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.now.read(buf)? {
            0 => match self.go.recv() {
                Ok(next) => {
                    self.now = Cursor::new(next);
                    self.now.read(buf)
                }
                Err(_) => Ok(0),
            },
            n => Ok(n),
        }
    }
}

pub(crate) fn a_remove_during_an_add_takes_nothing_that_the_add_counts_on(bench: &impl Bench) {
    let images = bench.open().unwrap();
    let old = add(&images, "old", [noise(1, MIB), noise(2, MIB)].concat()).unwrap().image;
    let (tell, go) = sync_channel(1);
    let (seen, chunks) = sync_channel(64);
    let adding = std::thread::spawn({
        let images = images.clone();
        move || {
            let reader = Box::new(Paced { go, now: Cursor::default() });
            let source = ImageSource::Stream { reader, name: "slow".into(), length: None };
            let spec = AddSpec { name: "new".into(), source, sector_size: None, no_table: true };
            images.add(spec, &mut |told| {
                // Towards the end the test no longer receives.
                let _ = seen.send(told.bytes_read);
            })
        }
    });
    tell.send(noise(1, MIB)).unwrap();
    // One chunk has been queued when its progress is reported: the add is running.
    assert!(chunks.recv().unwrap() > 0);
    assert_eq!(images.remove("old", None).unwrap().freed_bytes, 0);
    tell.send(noise(2, MIB)).unwrap();
    tell.send(noise(3, MIB)).unwrap();
    drop(tell);
    drop(chunks);
    let new = adding.join().unwrap().unwrap().image;
    assert_ne!(new.id, old.id);
    assert!(export(&images, new.id) == [noise(1, MIB), noise(2, MIB), noise(3, MIB)].concat());
    assert_eq!(bench.keys().len(), 5, "{:?}", bench.keys());
}

pub(crate) fn stopping_ends_an_add_and_leaves_nothing(bench: &impl Bench) {
    let images = bench.open().unwrap();
    let stopper = images.clone();
    let source = from_bytes(noise(1, 8 * MIB));
    let spec = AddSpec { name: "a".into(), source, sector_size: None, no_table: true };
    let error = images
        .add(spec, &mut |told| {
            if told.bytes_read > 2 << 20 {
                stopper.stop();
            }
        })
        .unwrap_err();
    assert!(matches!(error, ImageError::Stopped), "{error}");
    assert!(bench.keys().is_empty());
}
