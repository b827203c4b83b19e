//! Reads the members of a `.deb` (deb(5)), an `ar` archive with short names, one after the other. Owns the parsing of
//! its headers; touches the reader that it is given.
//!
//! Own code, because the `ar` crate panics on a long name's index that is outside of its table (found by `tests/fuzz`,
//! target `deb`), and allocates a table of 9,999,999,999 bytes because a header says so. A package has neither: dpkg
//! refuses long names, too.

use std::io::{self, Read, Seek, SeekFrom, Take};

/// The first bytes of an archive.
const MAGIC: &[u8; 8] = b"!<arch>\n";
/// Bytes of a member's header: name 16, time 12, owner 6, group 6, mode 8, size 10, end 2.
const HEADER_BYTES: usize = 60;

/// An archive, and the offset of its next header.
#[derive(Debug)]
pub(super) struct Members<R> {
    from: R,
    next: u64,
}

impl<R: Read + Seek> Members<R> {
    /// # Errors
    /// When it is no such archive, or cannot be read.
    pub(super) fn open(mut from: R) -> io::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(wrong("it does not begin as an ar archive"));
        }
        Ok(Self { from, next: MAGIC.len() as u64 })
    }

    /// The name and bytes of the next member; `None` at the end. That a member is cut short shows only when it is read.
    ///
    /// # Errors
    /// When its header is cut short or invalid.
    pub(super) fn next(&mut self) -> io::Result<Option<(String, Take<&mut R>)>> {
        self.from.seek(SeekFrom::Start(self.next))?;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        self.from.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut header)?;
        if header.is_empty() {
            return Ok(None);
        }
        if header.len() < HEADER_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (name, size) = (field(&header[..16]), field(&header[48..58]));
        let size: u64 = match size.parse() {
            Ok(size) if header[58..] == *b"`\n" => size,
            _ => return Err(wrong(format!("there is no header of a member at byte {}", self.next))),
        };
        // Each member begins at an even offset.
        self.next = (self.next + HEADER_BYTES as u64 + size).next_multiple_of(2);
        Ok(Some((name.trim_end_matches('/').to_owned(), self.from.by_ref().take(size))))
    }
}

/// A field as text, without the spaces at its end.
fn field(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

fn wrong(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn members(bytes: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut archive = Members::open(Cursor::new(bytes))?;
        let mut found = vec![];
        while let Some((name, mut member)) = archive.next()? {
            let mut bytes = vec![];
            member.read_to_end(&mut bytes)?;
            found.push((name, bytes));
        }
        Ok(found)
    }

    #[test]
    fn what_another_program_wrote_is_read() {
        let mut written = ar::Builder::new(Vec::new());
        let wanted =
            [("debian-binary", &b"2.0\n"[..]), ("control.tar.xz", b"odd"), ("data.tar", b""), ("x", b"12")];
        for (name, bytes) in wanted {
            written.append(&ar::Header::new(name.into(), bytes.len() as u64), bytes).unwrap();
        }
        let read = members(&written.into_inner().unwrap()).unwrap();
        let read: Vec<_> = read.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        assert_eq!(read, wanted);
    }

    /// A member whose header claims `size` bytes, and that has `bytes`.
    fn member(name: &str, size: &str, bytes: &[u8]) -> Vec<u8> {
        let header = format!("{name:<16}{:<32}{size:<10}`\n", "0");
        [header.as_bytes(), bytes].concat()
    }

    #[test]
    fn what_a_package_cannot_have_is_refused_or_passed_over() {
        let archive = |members: &[Vec<u8>]| [&MAGIC[..], &members.concat()].concat();
        let good = member("data.tar", "2", b"ok");
        // The index of a long name, outside of a table; and the table itself, with more bytes than the file has.
        let index = members(&archive(&[member("/90000000", "2", b"xx"), good.clone()])).unwrap();
        assert_eq!(index[1], ("data.tar".to_owned(), b"ok".to_vec()));
        assert_eq!(members(&archive(&[member("//", "9999999999", b""), good.clone()])).unwrap().len(), 1);
        assert_eq!(members(&archive(&[member("#1/9999999999", "0", b"")])).unwrap().len(), 1);
        for size in ["", "-2", "0x2", "1 2"] {
            assert!(members(&archive(&[member("data.tar", size, b"ok")])).is_err(), "{size:?}");
        }
        let whole = archive(&[good]);
        for cut in [0, 7, 9, 60, whole.len() - 3] {
            let read = members(&whole[..cut]);
            assert!(read.is_err() || cut == whole.len() - 3, "{cut}: {read:?}");
        }
        assert!(members(b"#!/bin/sh\nexit 0\n").is_err());
    }
}
