//! iPXE's own archive, `ipxeboot.tar.gz` of a release, as a source of a kit, and the version that an iPXE program
//! names. Owns which of the archive's programs a kit takes: those for x86 that drive the NIC themselves or through the
//! firmware, unmodified. Touches files.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::error::{KitError, Result, reading, writing};
use super::tree::{Tree, xz};

/// The most bytes that are read of an archive, unpacked. A release has 20 MB for all processors.
const UNPACKED_BYTES_MAX: u64 = 512 << 20;

/// The longest program that is taken, in bytes. TFTP serves them from memory.
const PROGRAM_BYTES_MAX: u64 = 8 << 20;

/// The end of a program's path in the archive, which has a folder for each processor (`src/util/gensrvimg` of iPXE),
/// and the path where distributions install it.
const TAKEN: [(&str, &str); 4] = [
    ("/i386/undionly.kpxe", "usr/lib/ipxe/undionly.kpxe"),
    ("/i386/ipxe.pxe", "usr/lib/ipxe/ipxe.pxe"),
    ("/x86_64/snponly.efi", "usr/lib/ipxe/snponly.efi"),
    ("/x86_64/ipxe.efi", "usr/lib/ipxe/ipxe.efi"),
];

/// Whether `path` is named like such an archive.
pub(super) fn is_archive(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    [".tar", ".tar.gz", ".tgz", ".tar.xz"].iter().any(|ending| name.ends_with(ending))
}

/// Unpacks iPXE's programs of the archive `path` below `into`, an empty folder, and adds them to `tree`.
///
/// # Errors
/// When it is no archive, is cut short, is larger than any release, or has none of the programs.
pub(super) fn unpack(path: &Path, into: &Path, tree: &mut Tree) -> Result<()> {
    let wrong = |reason: String| KitError::Ipxe { path: path.to_owned(), reason };
    let broken = |error: io::Error| wrong(error.to_string());
    let file = io::BufReader::new(fs::File::open(path).map_err(reading(path))?);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let data: Box<dyn Read> = if name.ends_with("gz") {
        Box::new(flate2::read::GzDecoder::new(file))
    } else if name.ends_with(".xz") {
        Box::new(xz(file).map_err(broken)?)
    } else {
        Box::new(file)
    };
    let mut tar = tar::Archive::new(data.take(UNPACKED_BYTES_MAX));
    let mut found = 0;
    // Raw: a long name, which the library would read into memory, is no name of ours.
    for entry in tar.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        let name = entry.header().path().map_err(broken)?.to_string_lossy().into_owned();
        let Some((_, place)) = TAKEN.iter().find(|(end, _)| name.ends_with(end)) else { continue };
        if entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        if entry.size() > PROGRAM_BYTES_MAX {
            return Err(wrong(format!("`{name}` has {} bytes", entry.size())));
        }
        found += 1;
        // The files are numbered: no name in the archive decides where they are written.
        let at = into.join(found.to_string());
        let mut file = fs::File::create(&at).map_err(writing(&at))?;
        io::copy(&mut entry, &mut file).map_err(broken)?;
        tree.add_file(place, at);
    }
    if found == 0 { Err(wrong("it has none of iPXE's programs for x86".to_owned())) } else { Ok(()) }
}

/// The version that an EFI program of iPXE names: the only text in it that begins as a version of three numbers does.
/// `None` for other programs; those for BIOS are compressed.
pub(super) fn version(program: &[u8]) -> Option<String> {
    let texts = program.split(|&byte| byte == 0).filter(|text| (5..=64).contains(&text.len()));
    let text = texts.filter_map(|text| std::str::from_utf8(text).ok()).find(|text| is_version(text))?;
    program.windows(4).any(|at| at == b"iPXE").then(|| text.to_owned())
}

fn is_version(text: &str) -> bool {
    let mut parts = text.splitn(3, '.');
    let number = |part: Option<&str>| {
        part.is_some_and(|part| {
            (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    let (major, minor) = (number(parts.next()), number(parts.next()));
    let rest = parts.next().unwrap_or_default();
    let third = rest.bytes().take_while(u8::is_ascii_digit).count();
    // An address of four numbers is no version.
    let ends = rest.as_bytes().get(third).is_none_or(|byte| b"+- ".contains(byte));
    major && minor && (1..=3).contains(&third) && ends && text.bytes().all(|byte| (b' '..127).contains(&byte))
}

/// Whether an EFI program of this version can check what it fetched: see `boot::ipxe`.
pub(super) fn verifies(version: &str) -> bool {
    version.split('.').next().and_then(|major| major.parse().ok()).is_some_and(|major: u32| major >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, *bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn unpacked(name: &str, bytes: &[u8]) -> (Result<Tree>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let (path, into) = (dir.path().join(name), dir.path().join("out"));
        fs::write(&path, bytes).unwrap();
        fs::create_dir(&into).unwrap();
        let mut tree = Tree::default();
        let result = unpack(&path, &into, &mut tree).map(|()| tree);
        (result, dir)
    }

    #[test]
    fn a_release_gives_its_programs_for_x86() {
        let tar = archive(&[
            ("ipxeboot/i386/undionly.kpxe", b"bios"),
            ("ipxeboot/x86_64/snponly.efi", b"snp"),
            ("ipxeboot/x86_64-sb/snponly.efi", b"signed"),
            ("ipxeboot/arm64/snponly.efi", b"arm"),
        ]);
        let gz = {
            let mut out = Vec::new();
            let mut encoder = flate2::read::GzEncoder::new(&tar[..], flate2::Compression::fast());
            encoder.read_to_end(&mut out).unwrap();
            out
        };
        for (name, bytes) in [("a.tar", &tar), ("a.tar.gz", &gz), ("a.tgz", &gz)] {
            assert!(is_archive(Path::new(name)));
            let (tree, _dir) = unpacked(name, bytes);
            let tree = tree.unwrap();
            assert_eq!(tree.read("usr/lib/ipxe/undionly.kpxe").unwrap(), b"bios", "{name}");
            assert_eq!(tree.read("usr/lib/ipxe/snponly.efi").unwrap(), b"snp");
            assert_eq!(tree.len(), 2);
        }
        let cut = unpacked("a.tar.gz", &gz[..gz.len() / 2]).0;
        assert!(matches!(cut, Err(KitError::Ipxe { .. })));
        let other = unpacked("a.tar", &archive(&[("linux-6.1/README", b"text")])).0;
        assert!(other.unwrap_err().to_string().contains("none of iPXE's programs"));
        assert!(matches!(unpacked("a.tar.xz", b"no archive").0, Err(KitError::Ipxe { .. })));
        assert!(!is_archive(Path::new("a.deb")) && !is_archive(Path::new("a.zip")));
    }

    #[test]
    fn the_version_is_read_from_the_program() {
        let program =
            |version: &str| format!("MZ\0iPXE initialising\0HTTP/1.1\0127.0.0.1\0{version}\0x").into_bytes();
        for wanted in ["2.0.0+dfsg-5", "1.0.0+git-20190125.36a4c85-5.1", "1.21.1 (g988d2)", "2.0.0"] {
            assert_eq!(version(&program(wanted)).as_deref(), Some(wanted));
        }
        for other in ["", "1.2", "10.0.0.1", "1.2.x", "a.b.c", "1.3.6.1.5.5.7"] {
            assert_eq!(version(&program(other)), None, "{other}");
        }
        assert_eq!(version(b"MZ\x00shim\x002.0.0\x00"), None, "another program");
        let table = [("2.0.0+dfsg-5", true), ("10.0.0", true), ("1.21.1", false), ("x", false)];
        for (version, can) in table {
            assert_eq!(verifies(version), can, "{version}");
        }
    }
}
