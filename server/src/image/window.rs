//! Core: the memory and dictionary that a compressed stream needs, from its header, before anything of it is
//! decompressed: so that a sound file which needs more than is allowed is not taken for a corrupt one. Touches nothing.

/// What the header of a zstd frame asks for (RFC 8878, 3.1.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ZstdFrame {
    /// Bytes of memory for the data before, which matches refer to.
    pub window: u64,
    /// The number of the dictionary that it was compressed with; 0 for none.
    pub dictionary: u32,
}

/// Bytes from the start of a stream that are enough for both functions below.
pub(super) const HEADER_BYTES: usize = 128;

/// The zstd frame that begins with `head`; `None` when it is something else or its header is incomplete.
pub(super) fn zstd_frame(head: &[u8]) -> Option<ZstdFrame> {
    let rest = head.strip_prefix(b"\x28\xb5\x2f\xfd")?;
    let (&descriptor, mut rest) = rest.split_first()?;
    let single_segment = descriptor & 0x20 != 0;
    let mut window = 0;
    if !single_segment {
        let (&byte, after) = rest.split_first()?;
        let base = 1u64 << (10 + u32::from(byte >> 3));
        window = base + base / 8 * u64::from(byte & 7);
        rest = after;
    }
    let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let dictionary = u32::try_from(little_endian(rest.get(..dictionary_bytes)?)).ok()?;
    if single_segment {
        let (bytes, more) = [(1, 0), (2, 256), (4, 0), (8, 0)][usize::from(descriptor >> 6)];
        window = little_endian(rest.get(dictionary_bytes..dictionary_bytes + bytes)?).saturating_add(more);
    }
    Some(ZstdFrame { window, dictionary })
}

/// The dictionary size, in bytes, of the first block of the xz stream that begins with `head` (xz's specification, 3.1
/// and 5.3.1); `None` when it cannot be found.
pub(super) fn xz_dictionary(head: &[u8]) -> Option<u64> {
    const LZMA2: u64 = 0x21;
    let block = head.get(12..)?;
    let flags = *block.get(1)?;
    let mut rest = block.get(2..)?;
    // The compressed and the uncompressed size come first, if the flags say so.
    for told in [0x40, 0x80] {
        if flags & told != 0 {
            number(&mut rest)?;
        }
    }
    for _ in 0..=flags & 3 {
        let (id, len) = (number(&mut rest)?, usize::try_from(number(&mut rest)?).ok()?);
        let properties = rest.get(..len)?;
        if id == LZMA2 {
            return match *properties.first()? & 0x3f {
                40 => Some(u64::from(u32::MAX)),
                bits @ 0..40 => Some((2 | u64::from(bits & 1)) << (bits / 2 + 11)),
                _ => None,
            };
        }
        rest = rest.get(len..)?;
    }
    None
}

/// An integer of seven bits a byte (xz's specification, 1.2).
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for at in 0..9 {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_says_what_it_needs() {
        let streamed = |log: u32| {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(&[7; 3000]).unwrap();
            encoder.finish().unwrap()
        };
        for log in [17, 27, 28, 31] {
            assert_eq!(zstd_frame(&streamed(log)), Some(ZstdFrame { window: 1 << log, dictionary: 0 }));
        }
        let known = zstd::bulk::compress(&[7; 3000], 1).unwrap();
        assert_eq!(zstd_frame(&known).unwrap().window, 3000);
        let with = |descriptor: u8, rest: &[u8]| {
            zstd_frame(&[b"\x28\xb5\x2f\xfd", &[descriptor][..], rest].concat())
        };
        assert_eq!(with(0x01, &[0x08, 9]), Some(ZstdFrame { window: 2048, dictionary: 9 }));
        assert_eq!(
            with(0x03, &[0x09, 1, 0, 0, 1]),
            Some(ZstdFrame { window: 2304, dictionary: 0x0100_0001 })
        );
        assert_eq!(with(0x60, &[1, 0]), Some(ZstdFrame { window: 257, dictionary: 0 }));
        assert_eq!(with(0x03, &[0x09, 1]), None);
    }

    #[test]
    fn an_xz_stream_says_its_dictionary() {
        let packed = |preset: u32| {
            let mut out = liblzma::write::XzEncoder::new(Vec::new(), preset);
            out.write_all(&[7; 3000]).unwrap();
            out.finish().unwrap()
        };
        assert_eq!(xz_dictionary(&packed(0)), Some(256 << 10));
        assert_eq!(xz_dictionary(&packed(9)), Some(64 << 20));
        let mut huge = packed(0);
        huge[16] = 37;
        assert_eq!(xz_dictionary(&huge), Some(1536 << 20));
    }

    proptest! {
        #[test]
        fn nonsense_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = xz_dictionary(&bytes);
            let _ = zstd_frame(&[b"\x28\xb5\x2f\xfd", &bytes[..]].concat());
        }
    }
}
