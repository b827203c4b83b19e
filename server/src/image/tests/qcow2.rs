//! qcow2 images as `qemu-img` makes them, and as nobody should.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::super::qcow2::{Qcow2, QcowError};
use super::*;

/// A version 3 image with clusters of 512 bytes: header, L1 table, one L2 table, one plain cluster at 1536.
/// Guest cluster 0 is plain, 1 zeros by flag, 2 not allocated, 3 compressed at 2048.
fn synthetic() -> Vec<u8> {
    let mut file = vec![0u8; 2560];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &3u32.to_be_bytes());
    put(20, &9u32.to_be_bytes());
    put(24, &2000u64.to_be_bytes());
    put(36, &1u32.to_be_bytes());
    put(40, &512u64.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(512, &(1024u64 | 1 << 63).to_be_bytes());
    put(1024, &(1536u64 | 1 << 63).to_be_bytes());
    put(1032, &1u64.to_be_bytes());
    put(1048, &(2048u64 | 1 << 62).to_be_bytes());
    put(1536, &[5; 512]);
    let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&[9; 512]).unwrap();
    put(2048, &packed.finish().unwrap());
    file
}

fn open(bytes: &[u8]) -> Result<Qcow2, QcowError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Qcow2::open(file)
}

fn read(bytes: &[u8]) -> Result<Vec<u8>, QcowError> {
    let mut image = open(bytes)?;
    let (mut out, mut buf) = (Vec::new(), vec![0xEE; 700]);
    loop {
        let n = image.fill(&mut buf)?;
        out.extend_from_slice(&buf[..n]);
        if n < buf.len() || out.len() > 1 << 20 {
            return Ok(out);
        }
    }
}

#[test]
fn every_kind_of_cluster_is_read() {
    let wanted = [vec![5; 512], vec![0; 1024], vec![9; 464]].concat();
    assert_eq!(read(&synthetic()).unwrap(), wanted);
}

#[test]
fn what_is_not_read_is_refused_with_its_reason() {
    let feature = |bits: u64| (72, bits.to_be_bytes().to_vec());
    let cases: [((usize, Vec<u8>), &str); 15] = [
        ((4, 1u32.to_be_bytes().to_vec()), "version 1"),
        ((8, 64u64.to_be_bytes().to_vec()), "backing file"),
        ((32, 2u32.to_be_bytes().to_vec()), "encrypted"),
        (feature(1), "not cleanly closed"),
        (feature(2), "corrupt"),
        (feature(4), "another file"),
        (feature(16), "subclusters"),
        (feature(1 << 40), "unknown features (0x10000000000)"),
        ((20, 8u32.to_be_bytes().to_vec()), "2^8"),
        ((20, 22u32.to_be_bytes().to_vec()), "2^22"),
        ((24, u64::MAX.to_be_bytes().to_vec()), "more than any disk"),
        ((24, (1u64 << 44).to_be_bytes().to_vec()), "L1 table"),
        ((40, (1u64 << 62).to_be_bytes().to_vec()), "cut short: the L1 table"),
        ((36, 0u32.to_be_bytes().to_vec()), "L1 table of 0"),
        ((40, 513u64.to_be_bytes().to_vec()), "L1 table"),
    ];
    for ((at, bytes), why) in cases {
        let mut image = synthetic();
        image[at..at + bytes.len()].copy_from_slice(&bytes);
        let error = open(&image).unwrap_err();
        assert!(error.to_string().contains(why), "{why}: {error}");
        assert!(error.hint().is_some(), "{why}");
    }
    let entries: [(usize, u64, &str); 5] = [
        (512, 1 << 40, "cut short: an L2 table"),
        (1024, 1 << 40, "cut short: a cluster"),
        (1048, 1 << 62 | 1 << 40, "cut short: a compressed cluster"),
        (1048, 1 << 62 | 1536, "compressed cluster at byte 1536"),
        (1048, 1 << 62, "compressed cluster at byte 0"),
    ];
    for (at, entry, why) in entries {
        let mut image = synthetic();
        image[at..at + 8].copy_from_slice(&entry.to_be_bytes());
        let error = read(&image).unwrap_err();
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
    assert!(matches!(open(&synthetic()[..71]), Err(QcowError::CutShort { .. })));
}

proptest! {
    #[test]
    fn a_changed_or_cut_image_is_read_or_refused(
        changes in proptest::collection::vec((0usize..2560, any::<u8>()), 1..8), cut in 0usize..=2560,
    ) {
        let mut image = synthetic();
        for (at, byte) in changes {
            image[at] = byte;
        }
        drop(read(&image[..cut]));
        drop(read(&image));
    }
}

/// A disk with text, noise, zeros and a short end.
fn disk() -> Vec<u8> {
    let mut bytes =
        [b"\0some text ".repeat(55_000), noise(5, 900_000), vec![0; 3 * MIB], noise(6, 70_000)].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 3);
    bytes
}

fn qemu_img(arguments: &[&str]) -> bool {
    let run = Command::new("qemu-img").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

#[test]
fn images_of_qemu_img_are_read_as_files_streams_and_compressed() {
    if !qemu_img(&["--version"]) {
        eprintln!("left out: qemu-img is not on PATH");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let bytes = disk();
    std::fs::write(path("raw"), &bytes).unwrap();
    let images = Images::open(dir.path()).unwrap();
    let raw = add(&images, "raw", bytes).unwrap().image;
    let kinds: [(&str, &[&str]); 7] = [
        ("v2", &["-o", "compat=0.10"]),
        ("v3", &["-o", "compat=1.1"]),
        ("zlib", &["-c"]),
        ("zstd", &["-c", "-o", "compression_type=zstd"]),
        ("small", &["-c", "-o", "cluster_size=512"]),
        ("large", &["-c", "-o", "cluster_size=2M"]),
        ("metadata", &["-o", "preallocation=metadata"]),
    ];
    for (kind, options) in kinds {
        let (from, file) = (path("raw"), path(kind));
        let convert = [&["convert", "-f", "raw", "-O", "qcow2"], options, &[&from, &file]].concat();
        assert!(qemu_img(&convert), "{kind}");
        let added = add_from(&images, kind, ImageSource::File(file.clone().into())).unwrap();
        assert_eq!((added.image.id, added.image.format.to_string().as_str()), (raw.id, "qcow2"), "{kind}");
        let packed = std::fs::read(&file).unwrap();
        let streamed = add(&images, &format!("{kind}-stream"), packed.clone()).unwrap().image;
        assert_eq!((streamed.id, streamed.format.to_string().as_str()), (raw.id, "qcow2"), "{kind}");
        let zipped = add(&images, &format!("{kind}-gz"), gz(&packed)).unwrap().image;
        assert_eq!((zipped.id, zipped.format.to_string().as_str()), (raw.id, "qcow2 in gz"), "{kind}");
        let half = add(&images, "half", packed[..packed.len() / 2].to_vec()).unwrap_err();
        assert!(told(&half).contains("cut short"), "{kind}: {}", told(&half));
    }
}

#[test]
fn what_only_qemu_img_can_read_is_refused() {
    if !qemu_img(&["--version"]) {
        eprintln!("left out: qemu-img is not on PATH");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    assert!(qemu_img(&["create", "-f", "qcow2", &path("base"), "1M"]));
    let external = format!("data_file={}", path("data"));
    let cases: [(&str, &[&str], &str); 3] = [
        ("backed", &["-b", &path("base"), "-F", "qcow2"], "difference to its backing file"),
        ("sub", &["-o", "extended_l2=on,cluster_size=128k"], "subclusters"),
        ("external", &["-o", &external], "keeps its data in another file"),
    ];
    for (name, options, why) in cases {
        let file = path(name);
        let create = [&["create", "-f", "qcow2"], options, &[&file, "1M"]].concat();
        assert!(qemu_img(&create), "{name}");
        let error = Qcow2::open(File::open(file).unwrap()).unwrap_err();
        assert!(error.to_string().contains(why), "{name}: {error}");
    }
    // Snapshots inside do not matter: what the machine saw last is read.
    assert!(qemu_img(&["snapshot", "-c", "before", &path("base")]));
    assert_eq!(Qcow2::open(File::open(path("base")).unwrap()).unwrap().size(), 1 << 20);
}
