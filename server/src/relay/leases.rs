//! The leases of a relay that gives out addresses, over a restart: one JSON line for each change, in one file. Touches
//! that file.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::dhcp4::{Lease, LeaseStore};
use crate::fleet::store::{StoreError, Stored};
use crate::whole_file;

/// Lines of the file after which it is written anew, with one line for each address.
const LINES_MAX: usize = 100_000;

/// The file, open for more lines.
#[derive(Debug)]
pub(super) struct LeaseFile {
    path: PathBuf,
    file: File,
    leases: BTreeMap<Ipv4Addr, Lease>,
    lines: usize,
}

impl LeaseFile {
    /// Opens the file, creating it if needed. A line that cannot be read, as the last one after a power cut, is left out.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut leases = BTreeMap::new();
        match File::open(path) {
            Ok(file) => {
                for line in BufReader::new(file).lines() {
                    if let Ok(lease) = serde_json::from_str::<Lease>(&line?) {
                        leases.insert(lease.address, lease);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = anew(path, &leases)?;
        Ok(Self { path: path.to_owned(), file, lines: leases.len(), leases })
    }

    fn keep(&mut self, lease: &Lease) -> io::Result<()> {
        self.leases.insert(lease.address, lease.clone());
        if self.lines >= LINES_MAX {
            self.file = anew(&self.path, &self.leases)?;
            self.lines = self.leases.len();
            return Ok(());
        }
        self.lines += 1;
        self.file.write_all(&line(lease)?)
    }
}

/// Writes the file anew, and opens it for more lines.
fn anew(path: &Path, leases: &BTreeMap<Ipv4Addr, Lease>) -> io::Result<File> {
    let mut text = vec![];
    for lease in leases.values() {
        text.extend(line(lease)?);
    }
    whole_file::write(path, &text, 0o644)?;
    OpenOptions::new().append(true).open(path)
}

fn line(lease: &Lease) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(lease)?;
    line.push(b'\n');
    Ok(line)
}

impl LeaseStore for LeaseFile {
    fn load(&mut self) -> Stored<'_, Vec<Lease>> {
        let leases = self.leases.values().cloned().collect();
        Box::pin(async { Ok(leases) })
    }

    fn save<'a>(&'a mut self, lease: &'a Lease) -> Stored<'a, ()> {
        let kept = self.keep(lease).map_err(StoreError::new);
        Box::pin(async { kept })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::dhcp4::LeaseState;

    #[tokio::test]
    async fn leases_outlive_the_process_and_a_cut_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases");
        let lease = |last: u8, until: u64| Lease {
            address: Ipv4Addr::new(10, 2, 0, last),
            holder: format!("52:54:00:00:00:{last:02}"),
            until,
            state: LeaseState::Held,
        };
        let mut file = LeaseFile::open(&path).unwrap();
        for (last, until) in [(1, 10), (2, 20), (1, 30)] {
            file.save(&lease(last, until)).await.unwrap();
        }
        drop(file);
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"address\":\"10.2");
        fs::write(&path, text).unwrap();
        let mut again = LeaseFile::open(&path).unwrap();
        assert_eq!(again.load().await.unwrap(), [lease(1, 30), lease(2, 20)]);
        again.save(&lease(3, 40)).await.unwrap();
        assert_eq!(LeaseFile::open(&path).unwrap().leases.len(), 3);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3, "written anew at each start");
    }
}
