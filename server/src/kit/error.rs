//! Core: the errors of boot kits, and what an admin can do about each. Touches nothing.

use std::io;
use std::path::PathBuf;

/// Why a boot kit could not be imported, found or read.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// A file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The path that was read.
        path: PathBuf,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The path that was written.
        path: PathBuf,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// The name cannot be a kit's.
    #[error("`{0}` cannot be a kit's name")]
    Name(String),
    /// There is a kit of that name already.
    #[error("there is a kit named `{0}` already")]
    Exists(String),
    /// There is no kit of that name.
    #[error("there is no kit named `{name}`")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names of all kits.
        known: Vec<String>,
    },
    /// There is no kit at all.
    #[error("there is no boot kit yet")]
    None,
    /// Another import is running.
    #[error("another import into {} is under way", .0.display())]
    Busy(PathBuf),
    /// The server is stopping.
    #[error("stopped, because the server is stopping")]
    Stopped,
    /// The source is no folder, no `.deb` and no archive of iPXE.
    #[error("{} is no folder, .deb file or archive of iPXE (.tar.gz)", .0.display())]
    Source(PathBuf),
    /// The source has more files than any installation.
    #[error("{} has more than {most} files", path.display())]
    TooManyFiles {
        /// The folder.
        path: PathBuf,
        /// The most files that all sources together may have.
        most: usize,
    },
    /// The source is a `.deb` that cannot be unpacked.
    #[error("{} is not a .deb that can be taken: {reason}", path.display())]
    Deb {
        /// The path of the package.
        path: PathBuf,
        /// What is wrong with the package.
        reason: String,
    },
    /// The source is an archive that iPXE cannot be taken from.
    #[error("{} is no archive of iPXE that can be taken: {reason}", path.display())]
    Ipxe {
        /// The path of the archive.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The sources have no kernel.
    #[error("no kernel found in {sources}")]
    NoKernel {
        /// The sources, in words.
        sources: String,
    },
    /// The sources have no kernel of that release.
    #[error("no kernel `{wanted}` found")]
    NoSuchKernel {
        /// The release that was asked for.
        wanted: String,
        /// The releases that the sources have.
        found: Vec<String>,
    },
    /// The sources have a kernel, but not its modules.
    #[error("kernel {0} has no modules in lib/modules/{0}")]
    NoModules(String),
    /// The kernel has no network driver among its modules.
    #[error("kernel {0} has no network driver among its modules")]
    NoNetwork(String),
    /// The file is no kernel that these machines can boot.
    #[error("{} cannot be booted: {reason}", path.display())]
    Kernel {
        /// The kernel's path in the sources.
        path: PathBuf,
        /// What is wrong with the kernel.
        reason: String,
    },
    /// The file is no module of this kernel.
    #[error("{path} is not a module that can be taken: {reason}")]
    Module {
        /// The module's path below the kernel's folder of modules.
        path: String,
        /// What is wrong with the module.
        reason: String,
    },
    /// A compressed file that cannot be decompressed, or has more bytes than any such file.
    #[error("cannot decompress {path}")]
    Decompress {
        /// The file's path in the sources.
        path: String,
        /// What the decompressor reported.
        #[source]
        source: io::Error,
    },
    /// The sources have no network boot program.
    #[error("no network boot program found in {sources}")]
    NoBootProgram {
        /// The sources, in words.
        sources: String,
    },
    /// A file of the kit has another hash than at its import.
    #[error("{} is not what was imported", .0.display())]
    Changed(PathBuf),
    /// `kit.json` or `modules.json` cannot be parsed.
    #[error("cannot understand {}", path.display())]
    Index {
        /// The path of the file.
        path: PathBuf,
        /// The error underneath.
        #[source]
        source: serde_json::Error,
    },
    /// The kit's modules cannot be indexed together.
    #[error("the kit's modules make no index")]
    Modules(#[source] common::modules::BadIndex),
}

impl KitError {
    /// What an admin can do about it; `None` where that depends.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            // The service is not root, and some distributions keep kernels from everybody else.
            Self::Read { path, source }
                if source.kind() == io::ErrorKind::PermissionDenied && path.starts_with("/boot") =>
            {
                format!(
                    "let the server read it: chgrp swarmboot {0} && chmod g+r {0}; or fetch the kernel's package with \
                     `apt-get download` and import that with --deb",
                    path.display()
                )
            }
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "the server reads it, as its own user: let that read it, or copy it to where it may"
                    .to_owned()
            }
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "the server reads it, and its service has a /tmp of its own: copy it elsewhere".to_owned()
            }
            Self::Write { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "the state folder must be the server's: chown -R it to the user that the server runs as"
                    .to_owned()
            }
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room where the state is kept: a kit of a full kernel needs about 300 MB during import"
                    .to_owned()
            }
            Self::Name(_) => "use lower-case letters, digits, `.`, `-` and `_`, at most 64".to_owned(),
            Self::Exists(name) => {
                format!("choose another with --name, or remove it first: swarmboot kit remove {name}")
            }
            Self::Unknown { known, .. } if !known.is_empty() => format!("there are: {}", known.join(", ")),
            Self::None | Self::Unknown { .. } => "import one with: swarmboot kit import".to_owned(),
            Self::Stopped => "import it again when the server runs; nothing was left".to_owned(),
            Self::TooManyFiles { .. } => {
                "name the package's folder or its .deb, not a whole system".to_owned()
            }
            Self::Busy(_) => "wait until it has ended".to_owned(),
            Self::NoKernel { .. } => {
                "install one (Debian: apt install linux-image-amd64; Ubuntu: apt install \
                 linux-image-generic), or fetch its package with `apt-get download` and import the .deb"
                    .to_owned()
            }
            Self::NoSuchKernel { found, .. } if !found.is_empty() => {
                format!("there are: {}", found.join(", "))
            }
            Self::NoModules(release) => format!(
                "add the package that holds them: linux-image-{release} on Debian, linux-modules-{release} on Ubuntu"
            ),
            Self::NoNetwork(release) => format!(
                "on Ubuntu add linux-modules-extra-{release}; on Debian take linux-image-amd64, not the cloud kernel"
            ),
            Self::Kernel { .. } => "take a distribution's kernel for x86-64 (linux-image-amd64)".to_owned(),
            Self::NoBootProgram { .. } => {
                "install iPXE (apt install ipxe), or add its .deb to the sources".to_owned()
            }
            Self::Changed(_) | Self::Index { .. } => {
                "the kit is damaged: remove it and import it again".to_owned()
            }
            Self::Ipxe { .. } => {
                "take `ipxeboot.tar.gz` of an iPXE release, or the distribution's package with --deb"
                    .to_owned()
            }
            Self::Deb { .. } | Self::Decompress { .. } => {
                "the file may be cut short: fetch it again".to_owned()
            }
            _ => return None,
        };
        Some(text)
    }
}

/// The result of the methods of [`super::Kits`] and [`super::Kit`].
pub(crate) type Result<T> = std::result::Result<T, KitError>;

pub(crate) fn reading(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> KitError {
    let path = path.into();
    move |source| KitError::Read { path, source }
}

pub(crate) fn writing(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> KitError {
    let path = path.into();
    move |source| KitError::Write { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_the_service_cannot_read_has_a_cure() {
        let of = |path: &str, kind: io::ErrorKind| {
            KitError::Read { path: path.into(), source: kind.into() }.hint()
        };
        let closed = of("/boot/vmlinuz-6.8.0-1-generic", io::ErrorKind::PermissionDenied).unwrap();
        assert!(closed.contains("chgrp swarmboot /boot/vmlinuz-6.8.0-1-generic && chmod g+r"), "{closed}");
        assert!(of("/root/a.deb", io::ErrorKind::PermissionDenied).unwrap().contains("as its own user"));
        assert!(of("/tmp/a.deb", io::ErrorKind::NotFound).unwrap().contains("/tmp of its own"));
    }
}
