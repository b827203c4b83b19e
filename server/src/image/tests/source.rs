//! Formats, told by their first bytes; streams that end early, break, or do not end.

use std::io::{self, Read};

use proptest::prelude::*;

use super::super::format::Format;
use super::super::source::SourceError;
use super::*;

/// A disk with something to compress and something that does not.
fn disk() -> Vec<u8> {
    let mut bytes = b"text that compresses well ".repeat(4096);
    bytes.resize(MIB + 4096, 0);
    bytes.extend(noise(1, 300_000 / 512 * 512));
    // No disk begins with text.
    bytes[0] = 0;
    bytes
}

#[test]
fn every_format_gives_the_same_image() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(dir.path()).unwrap();
    let bytes = disk();
    let raw = add(&images, "raw", bytes.clone()).unwrap().image;
    assert_eq!((raw.format.to_string().as_str(), raw.source.as_str()), ("raw", "test image"));
    for (name, packed) in [("gz", gz(&bytes)), ("xz", xz(&bytes)), ("zst", zst(&bytes))] {
        let added = add(&images, name, packed.clone()).unwrap();
        assert_eq!((added.image.id, added.new_bytes), (raw.id, 0), "{name}");
        assert_eq!(added.image.format.to_string(), format!("raw in {name}"));
        let path = dir.path().join("file.img");
        std::fs::write(&path, packed).unwrap();
        let added = add_from(&images, &format!("{name}-file"), ImageSource::File(path)).unwrap();
        assert_eq!((added.image.id, added.image.source.as_str()), (raw.id, "file.img"));
    }
    assert!(export(&images, raw.id) == bytes);
}

#[test]
fn several_members_or_streams_are_one_image() {
    let bench = Memory::default();
    let images = bench.open().unwrap();
    let bytes = disk();
    let (one, two) = bytes.split_at(700_001);
    let raw = add(&images, "raw", bytes.clone()).unwrap().image;
    let mut padded_xz = [xz(one), vec![0; 8], xz(two)].concat();
    padded_xz.extend([0; 4]);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zst(one), &zst(two)].concat();
    let cases = [
        ("gz", [gz(one), gz(&[]), gz(two)].concat()),
        ("xz", [xz(one), xz(two)].concat()),
        ("xz-padded", padded_xz),
        ("zst", [zst(one), zst(two)].concat()),
        ("zst-skippable", skippable),
    ];
    for (name, packed) in cases {
        assert_eq!(add(&images, name, packed).unwrap().image.id, raw.id, "{name}");
    }
}

#[test]
fn a_stream_cut_anywhere_is_an_error_and_leaves_nothing() {
    let bench = Memory::default();
    let images = bench.open().unwrap();
    let bytes = [&b"\0text ".repeat(9_000)[..], &noise(2, 50_000)].concat();
    for (format, packed) in [("gz", gz(&bytes)), ("xz", xz(&bytes)), ("zst", zst(&bytes))] {
        let len = packed.len();
        let cuts = (6..20).chain((20..len - 20).step_by(len / 25)).chain(len - 20..len);
        for cut in cuts {
            let error = add(&images, "cut", packed[..cut].to_vec()).unwrap_err();
            let text = told(&error);
            assert!(
                text.contains(&format!("cut short: the {format} data ends at byte {cut}")),
                "{cut}: {text}"
            );
            assert!(error.hint().unwrap().contains("get the image again"));
        }
    }
    assert!(images.list().is_empty());
    assert!(bench.keys().is_empty(), "{:?}", bench.keys());
}

#[test]
fn what_follows_the_end_or_breaks_the_middle_is_an_error() {
    let bench = Memory::default();
    let images = bench.open().unwrap();
    let bytes = noise(3, 80_000);
    for (format, packed) in [("gz", gz(&bytes)), ("xz", xz(&bytes)), ("zst", zstd_checked(&bytes))] {
        for garbage in [&b"g"[..], b"garbage!", &[7; 4000]] {
            let text = told(&add(&images, "trailing", [&packed[..], garbage].concat()).unwrap_err());
            assert!(text.contains(&format!("follows the {format} data at byte {}", packed.len())), "{text}");
        }
        let mut broken = packed.clone();
        broken[packed.len() / 2] ^= 0x10;
        let text = told(&add(&images, "broken", broken).unwrap_err());
        assert!(text.contains(&format!("its {format} data is corrupt near byte")), "{text}");
    }
    assert!(bench.keys().is_empty());
}

/// As the `zstd` tool does it: with a checksum.
fn zstd_checked(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

struct Fails(u64);

impl Read for Fails {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("the line went down"));
        }
        let n = buf.len().min(usize::try_from(self.0).unwrap()).min(1000);
        buf[..n].fill(7);
        self.0 -= n as u64;
        Ok(n)
    }
}

#[test]
fn an_input_that_fails_or_ends_early_says_where() {
    let bench = Memory::default();
    let images = bench.open().unwrap();
    let stream =
        |reader: Box<dyn Read + Send>, length| ImageSource::Stream { reader, name: "s".into(), length };
    let error = add_from(&images, "x", stream(Box::new(Fails(3 << 20)), None)).unwrap_err();
    assert_eq!(
        told(&error),
        "cannot read the image s: reading failed after byte 3145728: the line went down"
    );
    let short = stream(Box::new(Cursor::new(noise(1, MIB))), Some(2 << 20));
    let error = add_from(&images, "x", short).unwrap_err();
    assert!(matches!(
        error,
        ImageError::Source { source: SourceError::CutShort { format: Format::Raw, offset: 1_048_576 }, .. }
    ));
    assert!(bench.keys().is_empty());
}

#[test]
fn formats_that_would_never_boot_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(dir.path()).unwrap();
    let at = |at: usize, magic: &[u8]| {
        let mut bytes = vec![0; 4096];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        bytes
    };
    let cases = [
        (at(0, b"KDMV"), "VMDK"),
        (at(0, b"vhdxfile"), "VHDX"),
        (at(0, b"PK\x03\x04"), "zip"),
        (at(0, b"BZh91AY&SY"), "bzip2"),
        (at(257, b"ustar"), "tar"),
        (gz(&at(257, b"ustar")), "tar"),
        (xz(&gz(&at(0, b"x"))), "compressed twice"),
    ];
    for (bytes, what) in cases {
        let error = add(&images, "x", bytes).unwrap_err();
        assert!(told(&error).contains(what), "{what}: {}", told(&error));
        assert!(error.hint().is_some(), "{what}");
    }
    let error = add_from(&images, "x", ImageSource::File(dir.path().to_owned())).unwrap_err();
    assert!(told(&error).contains("neither a file nor a block device"), "{}", told(&error));
    let error = add_from(&images, "x", ImageSource::File(dir.path().join("no"))).unwrap_err();
    assert!(error.hint().unwrap().contains("path"), "{}", told(&error));
}

#[test]
fn a_gpt_that_promises_more_than_there_is_tells_a_cut_image() {
    let bench = Memory::default();
    let images = bench.open().unwrap();
    let disk = super::super::facts::tests::gpt_disk(4096, 4, [1; 16], false);
    let error = add(&images, "x", disk[..3 << 20].to_vec()).unwrap_err();
    assert!(matches!(error, ImageError::CutShort { partition: 1, size: 3_145_728, .. }), "{}", told(&error));
    let image = add(&images, "x", disk).unwrap().image;
    assert_eq!((image.sector_bytes, image.partition_table), (4096, super::super::PartitionTable::Gpt));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn nonsense_after_any_magic_is_an_error_or_an_image(
        magic in proptest::sample::select(vec![
            &b"\x1f\x8b\x08"[..], b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"QFI\xfb\0\0\0\x03",
        ]),
        rest in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let bench = Memory::default();
        let images = bench.open().unwrap();
        let bytes = [magic, &rest].concat();
        if add(&images, "x", bytes).is_err() {
            prop_assert!(bench.keys().is_empty());
        }
    }
}
