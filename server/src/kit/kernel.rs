//! Core: reads the header of a kernel image and its configuration. Owns the parsing of the x86 boot header
//! (Documentation/arch/x86/boot.rst). Touches nothing.

use super::archive::Compression;

/// What the header of a bootable kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelHeader {
    /// The kernel's release, the first word of its version text; empty where there is none.
    pub(crate) release: String,
    /// Whether UEFI can start it.
    pub(crate) efi: bool,
}

/// Parses the header of an x86-64 bzImage.
///
/// # Errors
/// In words, when it is something else.
pub(crate) fn read_header(image: &[u8]) -> Result<KernelHeader, String> {
    if image.get(0x38..0x3c) == Some(b"ARM\x64") {
        return Err("a kernel for arm64".to_owned());
    }
    if image.starts_with(b"\x7fELF") {
        return Err("a plain ELF kernel, not a bzImage".to_owned());
    }
    let number = |at: usize| image.get(at..at + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    if image.get(0x202..0x206) != Some(b"HdrS") || number(0x1fe) != Some(0xaa55) {
        return Err("not an x86 Linux kernel".to_owned());
    }
    // Protocol 2.12 (Linux 3.8) is the first with the flags that say whether it is a 64-bit kernel.
    let protocol = number(0x206).unwrap_or(0);
    if protocol < 0x020c {
        return Err(format!("boot protocol {}.{}, before Linux 3.8", protocol >> 8, protocol & 0xff));
    }
    let flags = number(0x236).unwrap_or(0);
    if flags & 1 == 0 {
        return Err("a kernel for 32-bit x86".to_owned());
    }
    let text = match number(0x20e) {
        Some(at) if at != 0 => image.get(usize::from(at) + 0x200..).unwrap_or_default(),
        _ => &[],
    };
    let word: Vec<u8> = text.iter().copied().take(128).take_while(u8::is_ascii_graphic).collect();
    Ok(KernelHeader { release: String::from_utf8_lossy(&word).into_owned(), efi: flags & 0b1100 != 0 })
}

/// The best compression of an initramfs that a kernel with this configuration (`/boot/config-…`) can decompress;
/// without a configuration gzip, which every kernel supports.
pub(crate) fn compression_for(config: Option<&str>) -> Compression {
    if has(config, "CONFIG_RD_ZSTD=y") {
        Compression::Zstd
    } else if can_unpack_xz(config) {
        Compression::Xz
    } else {
        Compression::Gzip
    }
}

/// Whether a kernel with this configuration can decompress an xz initramfs with code in it.
pub(crate) fn can_unpack_xz(config: Option<&str>) -> bool {
    has(config, "CONFIG_RD_XZ=y") && !has(config, "# CONFIG_XZ_DEC_X86 is not set")
}

fn has(config: Option<&str>, option: &str) -> bool {
    config.is_some_and(|text| text.lines().any(|line| line == option))
}

#[cfg(test)]
mod tests {
    use common::testing::kernel_file;

    use super::*;

    #[test]
    fn only_a_64_bit_bzimage_is_a_kernel() {
        let good = kernel_file("6.1.0-9-amd64");
        assert_eq!(read_header(&good), Ok(KernelHeader { release: "6.1.0-9-amd64".to_owned(), efi: true }));
        let mut narrow = good.clone();
        narrow[0x236] = 0;
        assert!(read_header(&narrow).unwrap_err().contains("32-bit"));
        for cut in [0, 0x100, 0x203, 0x207] {
            assert!(read_header(&good[..cut]).is_err(), "cut at {cut}");
        }
        let mut far = good.clone();
        far[0x20e..0x210].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(read_header(&far).map(|header| header.release), Ok(String::new()));
        assert!(read_header(b"#!/bin/sh").is_err());
    }

    #[test]
    fn the_loader_is_compressed_as_the_kernel_can_read() {
        assert_eq!(
            compression_for(Some("CONFIG_RD_GZIP=y\nCONFIG_RD_XZ=y\nCONFIG_RD_ZSTD=y\n")),
            Compression::Zstd
        );
        assert_eq!(compression_for(Some("CONFIG_RD_XZ=y\n# CONFIG_RD_ZSTD is not set\n")), Compression::Xz);
        assert_eq!(compression_for(None), Compression::Gzip);
    }
}
