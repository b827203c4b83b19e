//! Reads `.deb` files, which are `ar` archives with a compressed tar archive in them. Owns what is unpacked and where
//! to: only regular files, only below the folder given, whatever the archive says. Links are kept as text for the tree,
//! never created. Touches files.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use super::choose::worth_unpacking;
use super::error::{KitError, Result, reading, writing};
use super::members::Members;
use super::tree::{FILE_BYTES_MAX, FILES_MAX, Tree, xz};

/// The most bytes that one package may unpack to. A kernel with all its modules is 400 MB, all firmware 1.5 GB.
const UNPACKED_BYTES_MAX: u64 = 8 << 30;

/// The longest name, in bytes, with everything else in its pax header. Linux has no path longer than 4,096 bytes.
const NAME_BYTES_MAX: u64 = 64 << 10;

/// Unpacks the needed files of the package `path` below `into`, an empty folder, and adds them to `tree`. `progress` is
/// called with how many bytes were unpacked so far; an error of it cancels the unpacking.
///
/// # Errors
/// When it is no package, is cut short, has a path outside of its root, or is larger than any such package.
pub(crate) fn unpack(
    path: &Path,
    into: &Path,
    tree: &mut Tree,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let wrong = |reason: String| KitError::Deb { path: path.to_owned(), reason };
    let file = fs::File::open(path).map_err(reading(path))?;
    let mut members = Members::open(io::BufReader::new(file)).map_err(|error| wrong(error.to_string()))?;
    while let Some((name, entry)) = members.next().map_err(|error| wrong(error.to_string()))? {
        let Some(ending) = name.strip_prefix("data.tar") else { continue };
        let data: Box<dyn Read + '_> = match ending {
            "" => Box::new(entry),
            ".xz" => Box::new(xz(entry).map_err(|error| wrong(error.to_string()))?),
            ".zst" => Box::new(zstd::Decoder::new(entry).map_err(|error| wrong(error.to_string()))?),
            ".gz" => Box::new(flate2::read::GzDecoder::new(entry)),
            other => return Err(wrong(format!("its data are compressed as `{other}`"))),
        };
        let mut unpacking = Unpacking { package: path, into, tree, done: 0, files: 0 };
        return unpacking.take(data, progress);
    }
    Err(wrong("it has no data.tar".to_owned()))
}

/// The entry point of `tests/fuzz`: unpacks a package below `into`.
#[cfg(fuzzing)]
pub fn try_deb(path: &Path, into: &Path) {
    drop(unpack(path, into, &mut Tree::default(), &mut |_| Ok(())));
}

struct Unpacking<'a> {
    package: &'a Path,
    into: &'a Path,
    tree: &'a mut Tree,
    done: u64,
    files: usize,
}

impl Unpacking<'_> {
    fn wrong(&self, reason: impl Into<String>) -> KitError {
        KitError::Deb { path: self.package.to_owned(), reason: reason.into() }
    }

    fn take(&mut self, data: Box<dyn Read + '_>, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        // One byte more than is allowed, so that reaching the end of it means too much.
        let mut tar = tar::Archive::new(data.take(UNPACKED_BYTES_MAX + 1));
        // Raw, because the library would read a long name, which precedes its file, into memory whatever its length.
        let entries = tar.entries().map_err(|error| self.wrong(error.to_string()))?.raw(true);
        let mut long = LongNames::default();
        for entry in entries {
            let mut entry = entry.map_err(|error| self.wrong(error.to_string()))?;
            if long.take(&mut entry).map_err(|error| self.wrong(error.to_string()))? {
                continue;
            }
            self.files += 1;
            self.done += entry.size();
            if self.files > FILES_MAX || self.done > UNPACKED_BYTES_MAX {
                return Err(self.wrong(format!("{} files with {} bytes", self.files, self.done)));
            }
            let (path, link) = std::mem::take(&mut long).names();
            let header = entry.header().path().map_err(|error| self.wrong(error.to_string()))?.into_owned();
            let raw = path.unwrap_or(header);
            let Some(path) = inside(&raw) else {
                return Err(self.wrong(format!("`{}` leads outside", raw.display())));
            };
            if worth_unpacking(&path) {
                self.take_entry(&mut entry, &path, link)?;
            }
            progress(self.done)?;
        }
        Ok(())
    }

    fn take_entry<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        path: &str,
        link: Option<PathBuf>,
    ) -> Result<()> {
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                if entry.size() > FILE_BYTES_MAX {
                    return Err(self.wrong(format!("`{path}` has {} bytes", entry.size())));
                }
                // The files are numbered: no name in the archive decides where they are written.
                let at = self.into.join(self.files.to_string());
                let mut file = fs::File::create(&at).map_err(writing(&at))?;
                io::copy(entry, &mut file)
                    .map_err(|error| self.wrong(format!("`{path}` cannot be unpacked: {error}")))?;
                self.tree.add_file(path, at);
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                let named = entry.header().link_name().map_err(|error| self.wrong(error.to_string()))?;
                let target = link.or(named.map(Cow::into_owned));
                if let Some(target) = target.as_deref().and_then(Path::to_str) {
                    // A hard link names a path from the root of the archive.
                    let hard = entry.header().entry_type() == tar::EntryType::Link;
                    let target = if hard { format!("/{target}") } else { target.to_owned() };
                    self.tree.add_link(path, &target);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Names that are too long for a header, which precede it in entries of their own.
#[derive(Debug, Default)]
struct LongNames {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl LongNames {
    /// Keeps the name if `entry` is one. Returns false if it is a file, folder or link.
    fn take<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> io::Result<bool> {
        let kind = entry.header().entry_type();
        let pax = kind == tar::EntryType::XHeader;
        if !matches!(
            kind,
            tar::EntryType::GNULongName | tar::EntryType::GNULongLink | tar::EntryType::XGlobalHeader
        ) && !pax
        {
            return Ok(false);
        }
        if entry.size() > NAME_BYTES_MAX {
            return Err(io::Error::other(format!("a name of {} bytes", entry.size())));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        if pax {
            for extension in tar::PaxExtensions::new(&bytes) {
                let extension = extension?;
                match extension.key_bytes() {
                    b"path" => self.path = Some(extension.value_bytes().to_vec()),
                    b"linkpath" => self.link = Some(extension.value_bytes().to_vec()),
                    _ => {}
                }
            }
            return Ok(true);
        }
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        match kind {
            tar::EntryType::GNULongName => self.path = Some(bytes),
            tar::EntryType::GNULongLink => self.link = Some(bytes),
            _ => {}
        }
        Ok(true)
    }

    fn names(self) -> (Option<PathBuf>, Option<PathBuf>) {
        let path = |bytes: Vec<u8>| PathBuf::from(OsString::from_vec(bytes));
        (self.path.map(path), self.link.map(path))
    }
}

/// `path` as text relative to the archive's root; `None` when it leads outside or is not UTF-8.
fn inside(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir | Component::RootDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A package with `files`, its data compressed as the suffix `ending` says.
    pub(crate) fn package(files: &[(&str, &[u8])], links: &[(&str, &str)], ending: &str) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            // Set by hand: the library refuses to write the paths that must be refused here.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            tar.append(&header, *bytes).unwrap();
        }
        for (path, target) in links {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, path, target).unwrap();
        }
        let data = tar.into_inner().unwrap();
        let data = match ending {
            ".xz" => {
                let mut out = Vec::new();
                liblzma::read::XzEncoder::new(&data[..], 1).read_to_end(&mut out).unwrap();
                out
            }
            ".zst" => zstd::encode_all(&data[..], 1).unwrap(),
            ".gz" => {
                let mut out = Vec::new();
                flate2::read::GzEncoder::new(&data[..], flate2::Compression::fast())
                    .read_to_end(&mut out)
                    .unwrap();
                out
            }
            _ => data,
        };
        let mut deb = ar::Builder::new(Vec::new());
        let mut add = |name: String, bytes: &[u8]| {
            deb.append(&ar::Header::new(name.into_bytes(), bytes.len() as u64), bytes).unwrap();
        };
        add("debian-binary".to_owned(), b"2.0\n");
        add("control.tar.xz".to_owned(), b"");
        add(format!("data.tar{ending}"), &data);
        deb.into_inner().unwrap()
    }

    fn unpacked(deb: &[u8]) -> Result<(Tree, tempfile::TempDir)> {
        let dir = tempfile::tempdir().unwrap();
        let (path, into) = (dir.path().join("a.deb"), dir.path().join("out"));
        fs::write(&path, deb).unwrap();
        fs::create_dir(&into).unwrap();
        let mut tree = Tree::default();
        unpack(&path, &into, &mut tree, &mut |_| Ok(()))?;
        Ok((tree, dir))
    }

    #[test]
    fn packages_of_every_compression_are_read() {
        for ending in ["", ".xz", ".zst", ".gz"] {
            let deb = package(
                &[("./boot/vmlinuz-6", b"kernel"), ("./usr/share/doc/x", b"text")],
                &[("./usr/lib/ipxe/ipxe.efi", "/boot/vmlinuz-6")],
                ending,
            );
            let (tree, _dir) = unpacked(&deb).unwrap();
            assert_eq!(tree.read("boot/vmlinuz-6").unwrap(), b"kernel", "{ending}");
            assert_eq!(tree.read("usr/lib/ipxe/ipxe.efi").unwrap(), b"kernel");
            assert_eq!(tree.len(), 2);
        }
    }

    /// A package whose tar archive is `tar`.
    fn deb_of(tar: &[u8]) -> Vec<u8> {
        let mut deb = ar::Builder::new(Vec::new());
        deb.append(&ar::Header::new(b"data.tar".to_vec(), tar.len() as u64), tar).unwrap();
        deb.into_inner().unwrap()
    }

    #[test]
    fn long_names_are_read_and_bounded() {
        let long = format!("boot/{}vmlinuz-6", "deep/".repeat(30));
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(6);
        header.set_mode(0o644);
        tar.append_data(&mut header, &long, &b"kernel"[..]).unwrap();
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, "usr/lib/ipxe/ipxe.efi", format!("/{long}")).unwrap();
        tar.append_pax_extensions([("path", b"boot/by-pax".as_slice())]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_path("boot/short").unwrap();
        header.set_size(3);
        header.set_cksum();
        tar.append(&header, &b"pax"[..]).unwrap();
        let (tree, _dir) = unpacked(&deb_of(&tar.into_inner().unwrap())).unwrap();
        assert_eq!(tree.read(&long).unwrap(), b"kernel");
        assert_eq!(tree.read("usr/lib/ipxe/ipxe.efi").unwrap(), b"kernel");
        assert_eq!(tree.read("boot/by-pax").unwrap(), b"pax");

        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(8 << 30);
        header.set_cksum();
        let mut tar = header.as_bytes().to_vec();
        tar.extend(vec![b'x'; 100_000]);
        let error = unpacked(&deb_of(&tar)).unwrap_err();
        assert!(error.to_string().contains("a name of"), "{error}");
    }

    #[test]
    fn a_path_that_leads_outside_is_refused() {
        let error = unpacked(&package(&[("boot/../../../x", b"evil")], &[], "")).unwrap_err();
        assert!(error.to_string().contains("leads outside"), "{error}");
    }

    #[test]
    fn a_package_cut_short_is_refused() {
        let deb = package(&[("boot/vmlinuz-6", &[7; 5000])], &[], ".xz");
        for cut in [0, 8, 70, deb.len() - 40] {
            assert!(unpacked(&deb[..cut]).is_err(), "cut at {cut}");
        }
        assert!(unpacked(b"#!/bin/sh").is_err());
    }
}
