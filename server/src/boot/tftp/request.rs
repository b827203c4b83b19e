//! Core: parses packets at port 69, tolerant of every fault that leaves the file's name readable. Touches nothing.
//!
//! Boards of about 2000 to 2015 read the file's name up to a NUL that is missing and request it with garbage appended
//! (netbootxyz/netboot.xyz#1198); others truncate their option list, or end it with one NUL too many. A ROM that gets
//! no answer shows only a time-out, so every request that names a file that is served gets it, and the others an ERROR.
//! async-tftp requires UTF-8 and complete pairs, and silently drops other requests, so it is only ever sent the output
//! of [`Read::clean`].

use common::limits::{TFTP_OPTION_DIGITS_MAX, TFTP_SHOWN_MAX};

/// The options that async-tftp negotiates, except `timeout`: the server's own timeout is shorter.
const OPTIONS: [&str; 3] = ["blksize", "tsize", "windowsize"];

/// The kind of a packet at port 69.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    /// A request to read a file.
    Read(Read),
    /// A request that is refused, with the file's name for the log.
    Refused(Refusal, String),
    /// An ERROR: the sender aborts its transfer.
    HangUp,
    /// A packet that is not for this port.
    Noise,
}

/// A request to read a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    /// The file's name, up to the first unprintable byte.
    pub(super) file: String,
    /// Each option that is known and complete, with its value.
    pub(super) options: Vec<(&'static str, String)>,
    /// The name as it was sent, escaped, for the log.
    pub(super) shown: String,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no file of that name.
    Absent,
    /// It is a request to write.
    ReadOnly,
    /// The mode is unknown, or `mail`, which RFC 1350 calls obsolete.
    Mode,
    /// The limit on transfers is reached.
    Busy,
    /// The server could not open a socket.
    Broken,
}

impl Refusal {
    /// The code of the ERROR packet (RFC 1350) and its message.
    pub(super) fn words(self) -> (u8, &'static str) {
        match self {
            Self::Absent => (1, "File not found"),
            Self::ReadOnly => (2, "Nothing can be written here"),
            Self::Mode => (4, "The mode is not octet"),
            Self::Busy => (0, "Too many transfers, try again"),
            Self::Broken => (0, "The server has a fault, see its log"),
        }
    }

    /// Encodes the ERROR packet.
    pub(super) fn packet(self) -> Vec<u8> {
        let (code, words) = self.words();
        [&[0, 5, 0, code], words.as_bytes(), &[0]].concat()
    }
}

impl Read {
    /// Encodes the request as RFC 1350 and RFC 2347 want it.
    pub(super) fn clean(&self) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        let options = self.options.iter().flat_map(|(name, value)| [*name, value.as_str()]);
        for text in [self.file.as_str(), "octet"].into_iter().chain(options) {
            bytes.extend(text.as_bytes());
            bytes.push(0);
        }
        bytes
    }
}

/// Parses a packet.
pub(super) fn read(packet: &[u8]) -> Packet {
    match packet {
        [0, 1, rest @ ..] => read_request(rest),
        [0, 2, rest @ ..] => Packet::Refused(Refusal::ReadOnly, shown(part(rest).0)),
        [0, 5, ..] => Packet::HangUp,
        _ => Packet::Noise,
    }
}

fn read_request(rest: &[u8]) -> Packet {
    let (name, rest) = part(rest);
    let shown = shown(name);
    let (mode, rest) = part(rest.unwrap_or_default());
    // A request that is cut off before its mode can only mean octet.
    let known = ["", "octet", "netascii"].iter().any(|known| mode.eq_ignore_ascii_case(known.as_bytes()));
    if !known {
        return Packet::Refused(Refusal::Mode, shown);
    }
    Packet::Read(Read { file: printable(name), options: options(rest.unwrap_or_default()), shown })
}

/// The bytes before the next NUL, and those after it; `None` when there is no NUL.
fn part(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|&byte| byte == 0) {
        Some(end) => (&bytes[..end], Some(&bytes[end + 1..])),
        None => (bytes, None),
    }
}

/// The options up to the first that is cut off: a value without its NUL may be incomplete.
fn options(mut bytes: &[u8]) -> Vec<(&'static str, String)> {
    let mut known: Vec<(&'static str, String)> = Vec::new();
    loop {
        let (name, Some(rest)) = part(bytes) else { return known };
        let (value, Some(rest)) = part(rest) else { return known };
        bytes = rest;
        let name = OPTIONS.into_iter().find(|option| name.eq_ignore_ascii_case(option.as_bytes()));
        let number = value.len() <= TFTP_OPTION_DIGITS_MAX
            && value.iter().all(u8::is_ascii_digit)
            && !value.is_empty();
        if let (Some(name), true) = (name, number)
            && known.iter().all(|(other, _)| *other != name)
        {
            known.push((name, String::from_utf8_lossy(value).into_owned()));
        }
    }
}

/// The name up to the first unprintable byte, which no name of a served file has, without spaces around it.
fn printable(name: &[u8]) -> String {
    let end = name.iter().position(|byte| !(b' '..=b'~').contains(byte)).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).trim().to_owned()
}

fn shown(name: &[u8]) -> String {
    name[..name.len().min(TFTP_SHOWN_MAX)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(packet: &[u8]) -> Read {
        match read(packet) {
            Packet::Read(read) => read,
            other => panic!("{}: {other:?}", packet.escape_ascii()),
        }
    }

    #[test]
    fn rubbish_behind_a_name_is_not_part_of_it() {
        for behind in ["", "\\xff", " ", "\r\n", "\n", "\t", "  \r\n"] {
            let behind = if behind == "\\xff" { &b"\xff"[..] } else { behind.as_bytes() };
            let packet = [b"\0\x01undionly.kpxe", behind, b"\0octet\0tsize\x000\0"].concat();
            assert_eq!(file(&packet).file, "undionly.kpxe", "{}", packet.escape_ascii());
        }
        let several = file(b"\0\x01undionly.kpxe\xff\xfe\xff\0OCTET\0");
        assert_eq!(
            (several.file.as_str(), several.shown.as_str()),
            ("undionly.kpxe", "undionly.kpxe\\xff\\xfe\\xff")
        );
        assert_eq!(file(b"\0\x01\xff\xff\0octet\0").file, "");
    }

    #[test]
    fn an_option_list_that_breaks_off_is_left_there() {
        let whole = vec![("tsize", "0".to_owned())];
        let broken: [&[u8]; 9] = [
            b"\0",
            b"\0\0\0",
            b"blksize",
            b"blksize\0",
            b"blksize\x001456",
            b"blks",
            b"\xff\xff",
            b"blksize\0\xff\0",
            b"blksize\0-1\0unknown\0x\0",
        ];
        for behind in broken {
            let packet = [b"\0\x01a.efi\0octet\0tsize\x000\0", behind].concat();
            assert_eq!(file(&packet).options, whole, "{}", packet.escape_ascii());
        }
        for packet in
            [&b"\0\x01a.efi\0octet"[..], b"\0\x01a.efi\0", b"\0\x01a.efi", b"\0\x01a.efi\0octet\0blksize"]
        {
            let read = file(packet);
            assert_eq!((read.file.as_str(), read.options.len()), ("a.efi", 0), "{}", packet.escape_ascii());
        }
        // One NUL too many at the end, as some ROMs send it.
        let read = file(b"\0\x01a.efi\0octet\0blksize\x001456\0\0");
        assert_eq!(read.clean(), b"\0\x01a.efi\0octet\0blksize\x001456\0");
    }

    #[test]
    fn what_is_not_to_be_had_is_refused_by_its_code() {
        let refused = |packet: &[u8]| match read(packet) {
            Packet::Refused(refusal, shown) => (refusal.words().0, shown),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(b"\0\x01a.efi\0mail\0"), (4, "a.efi".to_owned()));
        assert_eq!(refused(b"\0\x01a.efi\0oct\xff\0"), (4, "a.efi".to_owned()));
        assert_eq!(refused(b"\0\x02a.efi\0octet\0"), (2, "a.efi".to_owned()));
        assert_eq!(read(b"\0\x05\0\0stop\0"), Packet::HangUp);
        for noise in [&b""[..], b"\0", b"\0\x03\0\x01abc", b"\0\x04\0\x01", b"\x01\x01a\0octet\0"] {
            assert_eq!(read(noise), Packet::Noise);
        }
        assert_eq!(Refusal::Absent.packet(), b"\0\x05\0\x01File not found\0");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_handed_on_is_clean(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Packet::Read(request) = read(&[&[0, 1], &bytes[..]].concat()) {
                let clean = request.clean();
                prop_assert!(clean[2..].iter().all(|byte| *byte == 0 || (b' '..=b'~').contains(byte)));
                let again = file(&clean);
                prop_assert_eq!((again.file, again.options), (request.file, request.options));
            }
        }
    }
}
