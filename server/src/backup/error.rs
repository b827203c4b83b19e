//! The errors of backups. Touches nothing.

use std::path::PathBuf;

use crate::records::RecordsError;

/// Why a backup was not written or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file or folder could not be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system answered.
        #[source]
        source: std::io::Error,
    },
    /// The backup itself could not be read to its end, or not be written.
    #[error("the backup breaks off or is damaged")]
    Stream(#[source] std::io::Error),
    /// It was changed since it was written, or is no backup.
    #[error("the backup is damaged or none of swarmboot's: {0}")]
    Damaged(String),
    /// It was written by a later version.
    #[error("the backup was written by swarmboot {version} in form {found}; this program reads form {known}")]
    Newer {
        /// The version of swarmboot that wrote it.
        version: String,
        /// The version of its form.
        found: u32,
        /// The newest form that this program reads.
        known: u32,
    },
    /// The records could not be copied, or those in the backup not be opened.
    #[error("the records in the backup cannot be used")]
    Records(#[source] RecordsError),
    /// Another backup is being written.
    #[error("another backup is being written")]
    Busy,
    /// There is something in the state folder.
    #[error("the state folder {} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// A server has the state folder open.
    #[error("a server runs on the state folder {}", .0.display())]
    Running(PathBuf),
}

impl BackupError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::File { source, .. } | Self::Stream(source) => match source.kind() {
                std::io::ErrorKind::StorageFull => "make room on that disk; nothing was changed".to_owned(),
                std::io::ErrorKind::PermissionDenied => "run as root, or as the server's user".to_owned(),
                std::io::ErrorKind::ResourceBusy => {
                    "the state folder is a mount point: name a folder inside it".to_owned()
                }
                _ => "nothing was changed; look at the file and at the disk".to_owned(),
            },
            Self::Damaged(_) => "nothing was changed; take another backup".to_owned(),
            Self::Newer { .. } => "nothing was changed; install that version or a later one".to_owned(),
            Self::Records(RecordsError::Newer { .. }) => {
                "nothing was changed; install the version that wrote them or a later one".to_owned()
            }
            Self::Records(_) => "nothing was changed; see the cause".to_owned(),
            Self::Busy => "wait until it is written".to_owned(),
            Self::NotEmpty(_) => "--force moves what is there aside; nothing of it is removed".to_owned(),
            Self::Running(_) => "stop it first: systemctl stop swarmboot".to_owned(),
        }
    }

    pub(super) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
