//! Sources: `.deb` files, which are `ar` archives with a compressed tar archive in them. Owns what is taken out
//! of them and where it goes: only plain files, only below the folder given, whatever the archive says. Links
//! are kept as text for the tree, never made. Touches files.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path};

use super::choose::worth_unpacking;
use super::error::{KitError, Result, reading, writing};
use super::tree::{FILE_BYTES_MAX, FILES_MAX, Tree};

/// The most bytes that one package may unpack to. A kernel with all its modules is 400 MB, all firmware 1.5 GB.
const UNPACKED_BYTES_MAX: u64 = 8 << 30;

/// Unpacks what is wanted of the package `path` below `into`, an empty folder of ours, and adds it to `tree`.
/// `progress` is told how many bytes were unpacked so far.
///
/// # Errors
/// When it is no package, is cut short, leads outside, or is larger than any such package.
pub(crate) fn unpack(path: &Path, into: &Path, tree: &mut Tree, progress: &mut dyn FnMut(u64)) -> Result<()> {
    let wrong = |reason: String| KitError::Deb { path: path.to_owned(), reason };
    let file = fs::File::open(path).map_err(reading(path))?;
    let mut archive = ar::Archive::new(io::BufReader::new(file));
    while let Some(entry) = archive.next_entry() {
        let entry = entry.map_err(|error| wrong(error.to_string()))?;
        let name = String::from_utf8_lossy(entry.header().identifier()).trim_end_matches('/').to_owned();
        let Some(ending) = name.strip_prefix("data.tar") else { continue };
        let data: Box<dyn Read + '_> = match ending {
            "" => Box::new(entry),
            ".xz" => Box::new(liblzma::read::XzDecoder::new(entry)),
            ".zst" => Box::new(zstd::Decoder::new(entry).map_err(|error| wrong(error.to_string()))?),
            ".gz" => Box::new(flate2::read::GzDecoder::new(entry)),
            other => return Err(wrong(format!("its data are compressed as `{other}`"))),
        };
        let mut unpacking = Unpacking { package: path, into, tree, done: 0, files: 0 };
        return unpacking.take(data, progress);
    }
    Err(wrong("it has no data.tar".to_owned()))
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

    fn take(&mut self, data: Box<dyn Read + '_>, progress: &mut dyn FnMut(u64)) -> Result<()> {
        // One byte more than is allowed, so that reaching the end of it means too much.
        let mut tar = tar::Archive::new(data.take(UNPACKED_BYTES_MAX + 1));
        let entries = tar.entries().map_err(|error| self.wrong(error.to_string()))?;
        for entry in entries {
            let mut entry = entry.map_err(|error| self.wrong(error.to_string()))?;
            self.files += 1;
            self.done += entry.size();
            if self.files > FILES_MAX || self.done > UNPACKED_BYTES_MAX {
                return Err(self.wrong(format!("{} files with {} bytes", self.files, self.done)));
            }
            let raw = entry.path().map_err(|error| self.wrong(error.to_string()))?.into_owned();
            let Some(path) = inside(&raw) else {
                return Err(self.wrong(format!("`{}` leads outside", raw.display())));
            };
            if worth_unpacking(&path) {
                self.take_entry(&mut entry, &path)?;
            }
            progress(self.done);
        }
        Ok(())
    }

    fn take_entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, path: &str) -> Result<()> {
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                if entry.size() > FILE_BYTES_MAX {
                    return Err(self.wrong(format!("`{path}` has {} bytes", entry.size())));
                }
                // A plain running number: nothing in the archive decides where we write.
                let at = self.into.join(self.files.to_string());
                let mut file = fs::File::create(&at).map_err(writing(&at))?;
                io::copy(entry, &mut file)
                    .map_err(|error| self.wrong(format!("`{path}` cannot be unpacked: {error}")))?;
                self.tree.add_file(path, at);
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                let target = entry.link_name().map_err(|error| self.wrong(error.to_string()))?;
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

/// `path` as plain text relative to the archive's root; none when it leads elsewhere.
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

    /// A package with `files`, its data compressed by the ending `ending`.
    pub(crate) fn package(files: &[(&str, &[u8])], links: &[(&str, &str)], ending: &str) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            // Set by hand: the library refuses to write the paths that we must refuse to read.
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
        unpack(&path, &into, &mut tree, &mut |_| {})?;
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
