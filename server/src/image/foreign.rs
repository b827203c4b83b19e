//! Core: recognises what is no disk image, by its first or last bytes: other tools' containers, archives, programs, and
//! the web page or text that a download left in the image's place. All of it would otherwise be written to a disk byte
//! by byte, and never boot. The list need not be complete: what is not on it and has no partition table is refused for
//! that.

/// What it is, and what an admin can do about it.
pub(super) type Foreign = (&'static str, &'static str);

const CONVERT: &str = "make a raw image of it: qemu-img convert -O raw OLD NEW";
const UNPACK: &str = "unpack it first, and add the image inside";
const TWICE: &str = "decompress it once, and add the result";
const PARTITION: &str =
    "it holds one partition and no table: restore it into a disk image with the tool that made it";
const DOWNLOAD: &str = "the download gave this in the image's place: look at it, and get the image again";
const OTHER: &str = "name the disk image itself";

/// Signatures, each with its offset in bytes. The first that matches counts.
const SIGNATURES: &[(usize, &[u8], Foreign)] = &[
    (0, b"KDMV", ("a VMDK image", CONVERT)),
    (0, b"COWD", ("a VMDK image", CONVERT)),
    (0, b"# Disk DescriptorFile", ("the description of a VMDK image", CONVERT)),
    (0, b"vhdxfile", ("a VHDX image", CONVERT)),
    (0, b"conectix", ("a VHD image", CONVERT)),
    (0, b"<<< ", ("a VDI image", CONVERT)),
    (0, b"QED\0", ("a QED image", CONVERT)),
    (0, b"WithoutFreeSpace", ("a Parallels image", CONVERT)),
    (0, b"WithouFreSpacExt", ("a Parallels image", CONVERT)),
    (0, b"Bochs Virtual HD Image", ("a Bochs image", CONVERT)),
    (0, b"encrcdsa", ("an encrypted disk image of macOS", CONVERT)),
    (0, b"x\x01s\rbb`", ("a disk image of macOS (dmg)", CONVERT)),
    (0, b"\x3a\xff\x26\xed", ("an Android sparse image", "make a raw image of it: simg2img OLD NEW")),
    (0, b"MSWIM\0\0\0", ("a Windows image (WIM)", "apply it to a disk image with wimlib-imagex apply")),
    (0, b"WLPWM\0\0\0", ("a Windows image (WIM)", "apply it to a disk image with wimlib-imagex apply")),
    (0, b"partclone-image", ("an image of partclone", PARTITION)),
    (0, b"PaRtImAgE-VoLuMe", ("an image of partimage", PARTITION)),
    (0, b"\0ntfsclone-image", ("an image of ntfsclone", PARTITION)),
    (0, b"FsA0", ("an archive of fsarchiver", PARTITION)),
    (0, b"FsArCh_", ("an archive of fsarchiver", PARTITION)),
    (0, b"EVF\x09\x0d\x0a\xff\x00", ("an EWF (EnCase) image", "make a raw image of it: ewfexport FILE")),
    (0, b"PK\x03\x04", ("a zip archive", UNPACK)),
    (0, b"PK\x05\x06", ("an empty zip archive", OTHER)),
    (0, b"PK\x07\x08", ("a zip archive", UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", ("a 7z archive", UNPACK)),
    (0, b"Rar!\x1a\x07", ("a rar archive", UNPACK)),
    (0, b"MSCF\0\0\0\0", ("a cabinet archive", UNPACK)),
    (0, b"xar!", ("a xar archive", UNPACK)),
    (0, b"!<arch>\n", ("a Debian package or ar archive", UNPACK)),
    (0, b"\xed\xab\xee\xdb", ("an RPM package", UNPACK)),
    (0, b"070701", ("a cpio archive", UNPACK)),
    (0, b"070702", ("a cpio archive", UNPACK)),
    (0, b"070707", ("a cpio archive", UNPACK)),
    (0, b"\xc7\x71", ("a cpio archive", UNPACK)),
    (257, b"ustar", ("a tar archive", UNPACK)),
    (
        0,
        b"BZh",
        ("compressed by bzip2", "decompress it into swarmboot: bzip2 -dc FILE | swarmboot image add NAME -"),
    ),
    (
        0,
        b"\x04\x22\x4d\x18",
        ("compressed by lz4", "decompress it into swarmboot: lz4 -dc FILE | swarmboot image add NAME -"),
    ),
    (
        0,
        b"\x02\x21\x4c\x18",
        ("compressed by lz4", "decompress it into swarmboot: lz4 -dc FILE | swarmboot image add NAME -"),
    ),
    (
        0,
        b"LZIP",
        ("compressed by lzip", "decompress it into swarmboot: lzip -dc FILE | swarmboot image add NAME -"),
    ),
    (
        0,
        b"\x89LZO\0\r\n\x1a\n",
        ("compressed by lzop", "decompress it into swarmboot: lzop -dc FILE | swarmboot image add NAME -"),
    ),
    (
        0,
        b"\x1f\x9d",
        ("compressed by compress", "decompress it into swarmboot: zcat FILE | swarmboot image add NAME -"),
    ),
    (0, b"\xff\x06\0\0sNaPpY", ("compressed by snappy", "decompress it, and add the result")),
    (0, b"\x37\xa4\x30\xec", ("a dictionary of zstd", OTHER)),
    (0, b"\x1f\x8b", ("compressed twice", TWICE)),
    (0, b"\xfd7zXZ\0", ("compressed twice", TWICE)),
    (0, b"\x28\xb5\x2f\xfd", ("compressed twice", TWICE)),
    (0, b"\x7fELF", ("a program", OTHER)),
    (0, b"MZ", ("a program or kernel", OTHER)),
    (0, b"%PDF-", ("a PDF document", DOWNLOAD)),
    (0, b"\x89PNG", ("a picture", DOWNLOAD)),
    (0, b"d8:announce", ("a torrent file", "get what it stands for, and add that")),
];

/// Recognises a foreign format by `head`, the first bytes after decompression.
pub(super) fn by_start(head: &[u8]) -> Option<Foreign> {
    let there = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    let known = SIGNATURES.iter().find(|(at, magic, _)| there(*at, magic)).map(|(.., foreign)| *foreign);
    known.or_else(|| text(head)).or_else(|| lzma_alone(head))
}

/// Recognises a foreign format by `tail`, the last 512 bytes: formats that begin like a raw image.
pub(super) fn by_end(tail: &[u8]) -> Option<Foreign> {
    // A fixed VHD is a raw image and a footer; before Virtual PC 2004 that had 511 bytes.
    if tail.starts_with(b"conectix") || tail.get(1..).is_some_and(|rest| rest.starts_with(b"conectix")) {
        return Some(("a fixed VHD image", "make a raw image of it: qemu-img convert -f vpc -O raw OLD NEW"));
    }
    tail.starts_with(b"koly").then_some(("a disk image of macOS (dmg)", CONVERT))
}

/// Recognises text: no disk begins with 512 printable bytes, because its first sector has code or zeros.
fn text(head: &[u8]) -> Option<Foreign> {
    let said = match std::str::from_utf8(head) {
        Ok(said) => said,
        // The head may end within a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    if said.is_empty() || said.chars().any(|c| c.is_control() && !"\t\r\n\u{c}".contains(c)) {
        return None;
    }
    let start = said.trim_start_matches('\u{feff}').trim_start();
    let lower = start.to_ascii_lowercase();
    Some(if lower.starts_with("version https://git-lfs") {
        ("a pointer of git-lfs", "get what it stands for: git lfs pull")
    } else if lower.starts_with("<!doctype html") || lower.starts_with("<html") || lower.contains("<head") {
        ("a web page (HTML)", DOWNLOAD)
    } else if lower.starts_with('<') {
        ("an XML text", DOWNLOAD)
    } else if lower.starts_with('{') || lower.starts_with('[') {
        ("a JSON text", DOWNLOAD)
    } else if lower.starts_with("#!") {
        ("a script", OTHER)
    } else {
        ("a text", DOWNLOAD)
    })
}

/// The format that `xz --format=lzma` makes: it has no signature, only a first byte of properties (0x5D in practice), a
/// dictionary of 2^n or 2^n + 2^(n-1) bytes, and a length or "unknown".
fn lzma_alone(head: &[u8]) -> Option<Foreign> {
    let (first, rest) = head.split_first()?;
    let dictionary = u32::from_le_bytes(*rest.first_chunk()?);
    let length = u64::from_le_bytes(*rest.get(4..)?.first_chunk()?);
    let size = dictionary.is_power_of_two() || (dictionary % 3 == 0 && (dictionary / 3).is_power_of_two());
    let plausible = *first == 0x5d && dictionary >= 4096 && size && (length == u64::MAX || length < 1 << 46);
    plausible.then_some((
        "compressed by lzma",
        "decompress it into swarmboot: xz --format=lzma -dc FILE | swarmboot image add NAME -",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_image_is_named() {
        let lzma = [&[0x5d, 0, 0, 0x80, 0][..], &[0xff; 8], &[0, 1, 2]].concat();
        let lzma_sized = [&[0x5d, 0, 0, 0, 3][..], &(4u64 << 20).to_le_bytes(), &[0, 1]].concat();
        let table: [(&[u8], &str); 26] = [
            (b"<!DOCTYPE html><title>404", "HTML"),
            (b"\r\n  <html><body>", "HTML"),
            (b"<?xml version=\"1.0\"?><Error><Code>NoSuchKey", "XML"),
            (b"{\"error\": \"not found\"}", "JSON"),
            (b"404: Not Found", "text"),
            ("\u{feff}Nicht gefunden: \u{fc}".as_bytes(), "text"),
            (b"#!/bin/sh\n", "script"),
            (b"version https://git-lfs.github.com/spec/v1\noid", "git-lfs"),
            (b"\x3a\xff\x26\xed\x01\0\0\0\x1c\0\x0c\0", "Android"),
            (b"MSWIM\0\0\0\xd0", "WIM"),
            (b"partclone-image\0\0", "partclone"),
            (b"LZIP\x01\x0c", "lzip"),
            (&lzma, "lzma"),
            (&lzma_sized, "lzma"),
            (b"\x89LZO\0\r\n\x1a\n\x10", "lzop"),
            (b"\x1f\x9d\x90", "compress"),
            (b"\x02\x21\x4c\x18", "lz4"),
            (b"Rar!\x1a\x07\x01\0", "rar"),
            (b"MSCF\0\0\0\0", "cabinet"),
            (b"xar!\0\x1c", "xar"),
            (b"!<arch>\ndebian-binary", "Debian"),
            (b"070701000", "cpio"),
            (b"PK\x05\x06\0\0", "zip"),
            (b"\x7fELF\x02\x01", "program"),
            (b"WithoutFreeSpace\x02\0\0\0", "Parallels"),
            (b"\0ntfsclone-image", "ntfsclone"),
        ];
        for (head, word) in table {
            let (what, hint) = by_start(head).unwrap_or_else(|| panic!("{word} is not known"));
            assert!(what.contains(word) && !hint.is_empty(), "{what} for {word}");
        }
        let mut vhd = vec![0; 512];
        vhd[..8].copy_from_slice(b"conectix");
        assert!(by_end(&vhd).unwrap().0.contains("VHD"));
        assert!(
            by_end(&[&[0], &vhd[..511]].concat()).is_some()
                && by_end(&[0; 512]).is_none()
                && by_end(&[]).is_none()
        );
    }

    #[test]
    fn disks_are_not_taken_for_something_else() {
        // First bytes of boot code: GRUB, syslinux, Windows, a FAT, an ISO; zeros; and no bytes at all.
        let table: [&[u8]; 7] = [
            &[0xeb, 0x63, 0x90, 0, 0],
            &[0x33, 0xc0, 0xfa, 0x8e, 0xd8],
            &[0x33, 0xc0, 0x8e, 0xd0, 0xbc, 0, 0x7c],
            b"\xeb\x3c\x90mkfs.fat\0",
            &[0x45, 0x52, 8, 0, 0, 0, 0x90, 0x90],
            &[0; 512],
            &[],
        ];
        for head in table {
            assert_eq!(by_start(head), None, "{head:?}");
        }
    }
}
