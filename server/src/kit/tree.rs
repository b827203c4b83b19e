//! Merges sources by path into one tree: folders with the layout of a root file system, and unpacked packages. Owns the
//! resolution of links, which never leaves the tree: a link in a package must not name a file of this host. Touches
//! files, to read.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use super::error::{KitError, Result, reading};

/// The most files that all sources together may have; Debian's kernel has 4,500, all firmware 4,000.
pub(crate) const FILES_MAX: usize = 200_000;
/// The longest file of a source, in bytes, decompressed. The largest kernels are 20 MB, the largest firmware 40 MB.
pub(crate) const FILE_BYTES_MAX: u64 = 256 << 20;
const LINKS_MAX: usize = 40;
/// The most memory that decompressing one xz file may take, in bytes.
const XZ_MEMORY_MAX: u64 = 256 << 20;

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

/// Where a file of the tree is on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum At {
    /// At a path that this program made, or that is this host's own.
    Path(PathBuf),
    /// In a folder that was given as a source: no link on the way to it is followed, or it could name any file of this
    /// host.
    Inside {
        /// The folder that was given.
        root: PathBuf,
        /// The file's path in that folder.
        path: String,
    },
}

impl At {
    fn shown(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Inside { root, path } => root.join(path),
        }
    }

    fn open(&self) -> std::io::Result<fs::File> {
        let (root, path) = match self {
            Self::Path(path) => return fs::File::open(path),
            Self::Inside { root, path } => (root, path),
        };
        let folder = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut dir = open(root, folder, Mode::empty())?;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_some() {
                dir = openat(&dir, part, folder | OFlag::O_NOFOLLOW, Mode::empty())?;
                continue;
            }
            // A named pipe at that path must not block.
            let file = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let file = fs::File::from(openat(&dir, part, file, Mode::empty())?);
            if file.metadata()?.is_file() {
                return Ok(file);
            }
        }
        Err(std::io::Error::other("it is no file"))
    }
}

/// Files by their paths in a root file system. Of two sources with the same path, the later one counts.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, At>,
    links: BTreeMap<String, String>,
}

impl Tree {
    /// Adds the file `at` as `path`.
    pub(crate) fn add_file(&mut self, path: &str, at: PathBuf) {
        self.add(path, At::Path(at));
    }

    fn add(&mut self, path: &str, at: At) {
        let path = usual(path);
        self.links.remove(&path);
        self.files.insert(path, at);
    }

    /// Adds a link from `path` to `target`, which is the text of the link.
    pub(crate) fn add_link(&mut self, path: &str, target: &str) {
        let path = usual(path);
        self.files.remove(&path);
        self.links.insert(path, target.to_owned());
    }

    /// How many files and links it has.
    pub(crate) fn len(&self) -> usize {
        self.files.len() + self.links.len()
    }

    /// Adds the needed folders of `root`. If that is not this host's `own` root, a link in place of a folder is kept as
    /// a link of the tree, like all others.
    ///
    /// # Errors
    /// When a folder cannot be read, or there are more files than any installation has.
    pub(crate) fn add_root(&mut self, root: &Path, own: bool) -> Result<()> {
        for folder in FOLDERS {
            let linked = |part: &str| root.join(part).is_symlink();
            // Where /lib is a link to /usr/lib, the other spelling has the same files.
            if !(folder.starts_with("lib/") && linked("lib")) {
                match linked_part(folder, linked).filter(|_| !own) {
                    Some(part) => self.add_linked(root, part)?,
                    None => self.add_folder(root, folder, own)?,
                }
            }
        }
        Ok(())
    }

    fn add_linked(&mut self, root: &Path, path: &str) -> Result<()> {
        let at = root.join(path);
        let target = fs::read_link(&at).map_err(reading(&at))?;
        self.add_link(path, &target.to_string_lossy());
        Ok(())
    }

    fn add_folder(&mut self, root: &Path, folder: &str, own: bool) -> Result<()> {
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
                    let inside = At::Inside { root: root.to_owned(), path: path.clone() };
                    self.add(&path, if own { At::Path(entry.path()) } else { inside });
                }
                if self.len() > FILES_MAX {
                    return Err(KitError::TooManyFiles { path: root.to_owned(), most: FILES_MAX });
                }
            }
        }
        Ok(())
    }

    /// The paths of files that begin with `prefix`, ascending.
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

    /// The file at `path`, also through links inside the tree.
    pub(crate) fn find(&self, path: &str) -> Option<&At> {
        let mut path = usual(path);
        for _ in 0..LINKS_MAX {
            if let Some(file) = self.files.get(&path) {
                return Some(file);
            }
            path = self.follow(&path)?;
        }
        None
    }

    /// `path` with its first link replaced by the link's target.
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
    /// When it does not exist, cannot be read, or is longer than any such file.
    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>> {
        let at = self.find(path).ok_or_else(|| KitError::Read {
            path: path.into(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        let file = at.open().map_err(reading(at.shown()))?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(reading(at.shown()))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            let source = std::io::Error::other(format!("longer than {} MiB", FILE_BYTES_MAX >> 20));
            return Err(KitError::Read { path: at.shown(), source });
        }
        Ok(bytes)
    }

    /// As [`Tree::read`], and decompressed when the name ends in `.xz`, `.zst` or `.gz`.
    ///
    /// # Errors
    /// As [`Tree::read`]; also when it cannot be decompressed, or to more bytes than any such file has.
    pub(crate) fn read_unpacked(&self, path: &str) -> Result<Vec<u8>> {
        let bytes = self.read(path)?;
        decompress(bytes, path).map_err(|source| KitError::Decompress { path: path.to_owned(), source })
    }
}

/// Decompresses `bytes` as the suffix of the file's `name` says.
pub(crate) fn decompress(bytes: Vec<u8>, name: &str) -> std::io::Result<Vec<u8>> {
    let reader: Box<dyn std::io::Read + '_> = match name.rsplit('.').next() {
        Some("xz") => Box::new(xz(&bytes[..])?),
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

/// Decompresses xz with a bound on memory: a header may demand 4 GiB. `xz -9` needs 65 MiB.
pub(crate) fn xz<R: std::io::Read>(from: R) -> std::io::Result<liblzma::read::XzDecoder<R>> {
    let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, 0)?;
    Ok(liblzma::read::XzDecoder::new_stream(from, stream))
}

/// The first part of `folder` that is a link.
fn linked_part(folder: &str, linked: impl Fn(&str) -> bool) -> Option<&str> {
    let ends = folder.match_indices('/').map(|(at, _)| at).chain([folder.len()]);
    ends.map(|end| &folder[..end]).find(|part| linked(part))
}

/// The name of a file without the suffix of its compression.
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
        assert_eq!(tree.find("lib/ipxe/ipxe.efi"), Some(&At::Path("/real/ipxe.efi".into())));
        assert_eq!(tree.find("lib/firmware/b/x.bin"), Some(&At::Path("/real/x".into())));
        assert_eq!(tree.find("lib/ipxe/out"), None);
        assert_eq!(tree.find("lib/ipxe/round"), None);
    }

    #[test]
    fn a_folder_that_was_given_shows_no_file_outside_it() {
        use std::os::unix::fs::symlink;
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = dir.path();
        fs::write(outside.path().join("shadow"), "secret").unwrap();
        fs::create_dir_all(outside.path().join("modules/6")).unwrap();
        fs::write(outside.path().join("modules/6/x.ko"), "secret").unwrap();
        fs::create_dir_all(root.join("lib")).unwrap();
        fs::create_dir_all(root.join("usr/lib/ipxe")).unwrap();
        fs::create_dir_all(root.join("real")).unwrap();
        fs::write(root.join("usr/lib/ipxe/ipxe.efi"), "program").unwrap();
        symlink(outside.path(), root.join("lib/firmware")).unwrap();
        symlink(outside.path().join("modules"), root.join("lib/modules")).unwrap();
        symlink("../usr/lib/ipxe", root.join("lib/ipxe")).unwrap();
        let mut tree = Tree::default();
        tree.add_root(root, false).unwrap();
        assert_eq!(tree.find("lib/firmware/shadow"), None);
        assert_eq!(tree.find("lib/modules/6/x.ko"), None);
        assert_eq!(tree.read("usr/lib/ipxe/ipxe.efi").unwrap(), b"program");
        // A folder that is replaced by a link after the tree was made.
        fs::rename(root.join("usr/lib/ipxe"), root.join("away")).unwrap();
        fs::write(outside.path().join("ipxe.efi"), "secret").unwrap();
        symlink(outside.path(), root.join("usr/lib/ipxe")).unwrap();
        assert!(tree.read("usr/lib/ipxe/ipxe.efi").is_err());
        // This host's own root may have any layout.
        let mut host = Tree::default();
        host.add_root(root, true).unwrap();
        assert_eq!(host.read("lib/firmware/shadow").unwrap(), b"secret");
    }

    #[test]
    fn a_file_that_asks_for_too_much_memory_is_refused() {
        let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
        options.dict_size(1 << 30);
        let mut filters = liblzma::stream::Filters::new();
        filters.lzma2(&options);
        let stream =
            liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32).unwrap();
        let mut packed = Vec::new();
        liblzma::read::XzEncoder::new_stream(&b"module"[..], stream).read_to_end(&mut packed).unwrap();
        assert!(decompress(packed, "a.ko.xz").is_err());
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
