//! Sources as one tree: folders laid out like a root file system, and unpacked packages, merged by path. Owns
//! the following of links, which never leaves the tree: a link in a package must not name a file of this host.
//! Touches files, to read.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::error::{KitError, Result, reading};

/// The most files that all sources together may have; Debian's kernel has 4,500, all firmware 4,000.
pub(crate) const FILES_MAX: usize = 200_000;
/// The longest file of a source, unpacked. The largest kernels are 20 MB, the largest firmware 40 MB.
pub(crate) const FILE_BYTES_MAX: u64 = 256 << 20;
const LINKS_MAX: usize = 40;

/// The folders of a root file system that a kit is made from. Both spellings, for hosts where `/lib` is a link.
const FOLDERS: [&str; 11] = [
    "boot",
    "lib/modules",
    "usr/lib/modules",
    "lib/firmware",
    "usr/lib/firmware",
    "usr/lib/ipxe",
    "usr/share/ipxe",
    "usr/lib/shim",
    "usr/lib/grub/x86_64-efi-signed",
    "lib/ipxe",
    "lib/shim",
];

/// Files by where they are in a root file system. Of two sources with one path, the later one counts.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, PathBuf>,
    links: BTreeMap<String, String>,
}

impl Tree {
    /// Adds the file `at` as `path`.
    pub(crate) fn add_file(&mut self, path: &str, at: PathBuf) {
        let path = usual(path);
        self.links.remove(&path);
        self.files.insert(path, at);
    }

    /// Adds a link from `path` to `target`, which is as it stands in the link.
    pub(crate) fn add_link(&mut self, path: &str, target: &str) {
        let path = usual(path);
        self.files.remove(&path);
        self.links.insert(path, target.to_owned());
    }

    /// How many files and links it has.
    pub(crate) fn len(&self) -> usize {
        self.files.len() + self.links.len()
    }

    /// Adds what is wanted of the folder `root`.
    ///
    /// # Errors
    /// When a folder cannot be read, or there are more files than any installation has.
    pub(crate) fn add_root(&mut self, root: &Path) -> Result<()> {
        for folder in FOLDERS {
            let linked = |part: &str| root.join(part).is_symlink();
            // Where /lib is a link to /usr/lib, the other spelling finds the same files.
            if !(folder.starts_with("lib/") && linked("lib")) {
                self.add_folder(root, folder)?;
            }
        }
        Ok(())
    }

    fn add_folder(&mut self, root: &Path, folder: &str) -> Result<()> {
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let dir = root.join(&folder);
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return Err(KitError::Read { path: dir, source }),
            };
            for entry in entries {
                let entry = entry.map_err(reading(&dir))?;
                // A name that is not UTF-8 is no file of a kernel, of firmware or of iPXE.
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
                let path = format!("{folder}/{name}");
                let kind = entry.file_type().map_err(reading(entry.path()))?;
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_symlink() {
                    let target = fs::read_link(entry.path()).map_err(reading(entry.path()))?;
                    self.add_link(&path, &target.to_string_lossy());
                } else if kind.is_file() {
                    self.add_file(&path, entry.path());
                }
                if self.len() > FILES_MAX {
                    return Err(KitError::Source(root.to_owned()));
                }
            }
        }
        Ok(())
    }

    /// The paths that start with `prefix`, ascending.
    pub(crate) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.files
            .range(prefix.to_owned()..)
            .map(|(path, _)| path.as_str())
            .take_while(move |p| p.starts_with(prefix))
    }

    /// As [`Tree::below`], for links.
    pub(crate) fn links_below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.links
            .range(prefix.to_owned()..)
            .map(|(path, _)| path.as_str())
            .take_while(move |p| p.starts_with(prefix))
    }

    /// The file at `path`, through links inside the tree.
    pub(crate) fn find(&self, path: &str) -> Option<&Path> {
        let mut path = usual(path);
        for _ in 0..LINKS_MAX {
            if let Some(file) = self.files.get(&path) {
                return Some(file);
            }
            path = self.follow(&path)?;
        }
        None
    }

    /// `path` with its first link replaced by what that says.
    fn follow(&self, path: &str) -> Option<String> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            let Some(target) = self.links.get(&path[..end]) else { continue };
            let parent = path[..end].rsplit_once('/').map_or("", |(parent, _)| parent);
            let joined = if target.starts_with('/') { target.clone() } else { format!("{parent}/{target}") };
            return Some(plain(&format!("{joined}{}", &path[end..])));
        }
        None
    }

    /// The bytes of the file at `path`.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is longer than any such file.
    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>> {
        let at = self.find(path).ok_or_else(|| KitError::Read {
            path: path.into(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        let file = fs::File::open(at).map_err(reading(at))?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(reading(at))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            let source = std::io::Error::other(format!("longer than {} MiB", FILE_BYTES_MAX >> 20));
            return Err(KitError::Read { path: at.to_owned(), source });
        }
        Ok(bytes)
    }

    /// As [`Tree::read`], and decompressed when the name ends in `.xz`, `.zst` or `.gz`.
    ///
    /// # Errors
    /// As [`Tree::read`]; when it does not decompress, or to more than any such file has.
    pub(crate) fn read_unpacked(&self, path: &str) -> Result<Vec<u8>> {
        let bytes = self.read(path)?;
        decompress(bytes, path).map_err(|source| KitError::Decompress { path: path.to_owned(), source })
    }
}

/// `bytes` of the file `name`, decompressed by its ending.
pub(crate) fn decompress(bytes: Vec<u8>, name: &str) -> std::io::Result<Vec<u8>> {
    let reader: Box<dyn std::io::Read + '_> = match name.rsplit('.').next() {
        Some("xz") => Box::new(liblzma::read::XzDecoder::new(&bytes[..])),
        Some("zst") => Box::new(zstd::Decoder::new(&bytes[..])?),
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(&bytes[..])),
        _ => return Ok(bytes),
    };
    let mut out = Vec::new();
    reader.take(FILE_BYTES_MAX + 1).read_to_end(&mut out)?;
    if out.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it unpacks to more than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    Ok(out)
}

/// The name of a file without the ending of its compression.
pub(crate) fn uncompressed_name(name: &str) -> &str {
    [".xz", ".zst", ".gz"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

/// The one spelling of a path that a host may have as `/usr/lib/…` and as `/lib/…`.
pub(crate) fn usual(path: &str) -> String {
    let path = path.trim_start_matches('/');
    path.strip_prefix("usr/").filter(|rest| rest.starts_with("lib/")).unwrap_or(path).to_owned()
}

/// `path` without `.` and `..`; a `..` at the root stays there, as the kernel has it.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    usual(&parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_inside_the_tree_only() {
        let mut tree = Tree::default();
        tree.add_file("/boot/ipxe.efi", "/real/ipxe.efi".into());
        tree.add_file("usr/lib/firmware/a/x.bin", "/real/x".into());
        tree.add_link("usr/lib/ipxe/ipxe.efi", "/boot/ipxe.efi");
        tree.add_link("lib/firmware/b", "a");
        tree.add_link("lib/ipxe/out", "../../../../etc/passwd");
        tree.add_link("lib/ipxe/round", "round");
        assert_eq!(tree.find("lib/ipxe/ipxe.efi"), Some(Path::new("/real/ipxe.efi")));
        assert_eq!(tree.find("lib/firmware/b/x.bin"), Some(Path::new("/real/x")));
        assert_eq!(tree.find("lib/ipxe/out"), None);
        assert_eq!(tree.find("lib/ipxe/round"), None);
    }

    #[test]
    fn a_module_is_unpacked_by_its_ending() {
        let text = b"module".repeat(100);
        let zst = zstd::encode_all(&text[..], 1).unwrap();
        assert_eq!(decompress(zst.clone(), "a.ko.zst").unwrap(), text);
        assert_eq!(decompress(text.clone(), "a.ko").unwrap(), text);
        assert!(decompress(zst[..10].to_vec(), "a.ko.zst").is_err());
        assert!(decompress(text, "a.ko.xz").is_err());
        assert_eq!(uncompressed_name("a.ko.xz"), "a.ko");
    }
}
