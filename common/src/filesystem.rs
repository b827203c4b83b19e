//! Core: recognises file systems by their first bytes: kind, UUID and label, as `blkid` shows them. Used for an image's
//! own file systems, and for those on a machine's other disks that they may be confused with. Touches nothing.

/// How many bytes of a partition's start are needed: btrfs keeps its superblock at 64 KiB.
pub const START_BYTES: usize = 68 << 10;

/// A file system, or another format that fills a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// The kind as text for a person: `XFS file system`, `LVM physical volume`.
    pub kind: &'static str,
    /// The UUID or volume number; none where it is zero, or the format's is not read.
    pub uuid: Option<String>,
    /// The label; none where it is empty.
    pub label: Option<String>,
}

/// The format that begins with `bytes`; none if it is not known.
#[must_use]
pub fn identify(bytes: &[u8]) -> Option<FileSystem> {
    let at = |offset: usize, mark: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(mark));
    let found = |kind, uuid, label: Option<String>| Some(FileSystem { kind, uuid, label });
    let name = |offset: usize, len: usize| text(bytes.get(offset..offset + len)?);
    let id = |offset: usize| uuid(bytes.get(offset..)?.first_chunk()?);
    if at(0, b"LUKS\xba\xbe") {
        return found("LUKS container", name(168, 40), None);
    }
    if (0..4).any(|sector| at(sector * 512, b"LABELONE")) {
        return found("LVM physical volume", None, None);
    }
    if at(0, b"XFSB") {
        return found("XFS file system", id(32), name(108, 12));
    }
    if at(0, b"hsqs") {
        return found("squashfs file system", None, None);
    }
    if at(3, b"NTFS    ") {
        return found("NTFS file system", number(bytes, 72, 8), None);
    }
    if at(3, b"EXFAT   ") {
        return found("exFAT file system", number(bytes, 100, 4).map(halved), None);
    }
    for (mark, serial, label) in [(82, 67, 71), (54, 39, 43)] {
        if at(510, &[0x55, 0xaa]) && (at(mark, b"FAT32") || at(mark, b"FAT16") || at(mark, b"FAT12")) {
            let label = name(label, 11).filter(|label| label != "NO NAME");
            return found("FAT file system", number(bytes, serial, 4).map(halved), label);
        }
    }
    if at(0x438, &[0x53, 0xef]) {
        return found("ext file system", id(0x468), name(0x478, 16));
    }
    if at(0x1_0040, b"_BHRfS_M") {
        return found("btrfs file system", id(0x1_0020), name(0x1_012b, 256));
    }
    if at(4086, b"SWAPSPACE2") {
        return found("swap space", id(1036), name(1052, 16));
    }
    if at(0x8001, b"CD001") {
        return found("ISO 9660 file system", None, name(0x8028, 32));
    }
    None
}

/// A UUID in its usual text form; none if it is zeros.
#[must_use]
pub fn uuid(bytes: &[u8; 16]) -> Option<String> {
    let text = hex::encode(bytes);
    let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    (*bytes != [0; 16]).then(|| parts.join("-"))
}

/// A GPT's GUID in its usual text form: its first three fields are little-endian on the disk. None if it is zeros.
#[must_use]
pub fn guid(bytes: &[u8; 16]) -> Option<String> {
    let mut swapped = *bytes;
    swapped[..4].reverse();
    swapped[4..6].reverse();
    swapped[6..8].reverse();
    uuid(&swapped)
}

/// A little-endian number in capital hexadecimal digits; none if it is zero.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<String> {
    let bytes: Vec<u8> = bytes.get(at..at + len)?.iter().rev().copied().collect();
    bytes.iter().any(|&byte| byte != 0).then(|| hex::encode_upper(bytes))
}

/// A FAT's volume number, with a dash between its halves.
fn halved(digits: String) -> String {
    format!("{}-{}", &digits[..4], &digits[4..])
}

/// The text before the first NUL, trimmed; none when it is empty, not UTF-8, or has control characters.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).ok()?.trim();
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn file_systems_are_told_with_their_marks() {
        let id: Vec<u8> = (1..=16).collect();
        let uuid = Some("01020304-0506-0708-090a-0b0c0d0e0f10");
        type Marks<'a> = &'a [(usize, &'a [u8])];
        let table: [(Marks<'_>, &str, Option<&str>, Option<&str>); 11] = [
            (&[(0x438, &[0x53, 0xef]), (0x468, &id), (0x478, b"root")], "ext", uuid, Some("root")),
            (&[(0, b"XFSB"), (32, &id), (108, b"data")], "XFS", uuid, Some("data")),
            (&[(0x10040, b"_BHRfS_M"), (0x10020, &id), (0x1012b, b"b")], "btrfs", uuid, Some("b")),
            (&[(4086, b"SWAPSPACE2"), (1036, &id)], "swap", uuid, None),
            (
                &[
                    (510, &[0x55, 0xaa]),
                    (54, b"FAT16   "),
                    (39, &[0x78, 0x56, 0x34, 0x12]),
                    (43, b"CIDATA     "),
                ],
                "FAT",
                Some("1234-5678"),
                Some("CIDATA"),
            ),
            (
                &[(510, &[0x55, 0xaa]), (82, b"FAT32   "), (67, &[0xcd, 0xab, 1, 0]), (71, b"NO NAME    ")],
                "FAT",
                Some("0001-ABCD"),
                None,
            ),
            (&[(3, b"NTFS    "), (72, &[1, 2, 3, 4, 5, 6, 7, 8])], "NTFS", Some("0807060504030201"), None),
            (&[(0, b"LUKS\xba\xbe"), (168, b"abc-def")], "LUKS", Some("abc-def"), None),
            (&[(512, b"LABELONE")], "LVM", None, None),
            (&[(0, b"hsqs")], "squashfs", None, None),
            (&[(0x8001, b"CD001"), (0x8028, b"DEBIAN  ")], "ISO", None, Some("DEBIAN")),
        ];
        for (marks, kind, uuid, label) in table {
            let mut bytes = vec![0; START_BYTES];
            marks.iter().for_each(|(at, mark)| bytes[*at..at + mark.len()].copy_from_slice(mark));
            let found = identify(&bytes).unwrap_or_else(|| panic!("{kind} is not known"));
            assert!(found.kind.contains(kind), "{found:?}");
            assert_eq!((found.uuid.as_deref(), found.label.as_deref()), (uuid, label), "{kind}");
        }
        assert_eq!(identify(&[0; START_BYTES]), None);
        let esp = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
        assert_eq!(guid(&esp).as_deref(), Some("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"));
    }

    proptest! {
        #[test]
        fn nonsense_is_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..70_000), at in 0usize..2000, mark in 0usize..4,
        ) {
            let mut bytes = bytes;
            let mark = [&b"XFSB"[..], b"LUKS\xba\xbe", b"NTFS    ", b"\x53\xef"][mark];
            if bytes.len() > at + mark.len() {
                bytes[at..at + mark.len()].copy_from_slice(mark);
            }
            drop(identify(&bytes));
        }
    }
}
