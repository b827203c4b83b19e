//! The hand-over: what the loader leaves in memory for the agent, and how the agent finds it.
//!
//! Both are the same process, PID 1: the loader replaces itself by `execve`. What the agent needs is in files under
//! [`DIR`], a file system in RAM that only this machine sees: the server and its key, the boot key, the signed verdict,
//! the lease and the events that are not delivered yet. The files stay there, so that an agent that is started again
//! finds them. Touches files under one directory.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use common::id::Hash;
use common::plan::Verdict;
use common::trust::{KeyPair, PublicKey, Signed};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::boot::network::Attachment;
use crate::outbox::Backlog;

#[cfg(test)]
mod tests;

/// The directory of the loader's files for the agent.
pub const DIR: &str = "/run/swarmboot";

/// The argument with which the loader starts the agent: it is PID 1 and is to take over.
pub const PID1_ARGUMENT: &str = "pid1";

const SERVER: &str = "server";
const KEY: &str = "key";
const MACHINE_KEY: &str = "machine.key";
const VERDICT: &str = "verdict.json";
const ASKED: &str = "asked.json";
const LEASE: &str = "lease.json";
const EVENTS: &str = "events.json";
const BUNDLE: &str = "bundle";

/// Why the loader could not write what the agent needs, or the agent could not read it.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The path, below [`DIR`].
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The path, below [`DIR`].
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// A file is malformed.
    #[error("{} does not hold what the loader wrote", path.display())]
    Content {
        /// The path, below [`DIR`].
        path: PathBuf,
    },
}

/// Everything that the loader hands to the agent.
#[derive(Debug, Clone)]
pub struct Handover {
    /// The server's base URL.
    pub server_url: String,
    /// The server's public key.
    pub server_key: PublicKey,
    /// The boot key, which the loader made.
    pub machine_key: KeyPair,
    /// The verdict with the plan, as the server signed it.
    pub verdict: Signed<Verdict>,
    /// When the report that it answers was sent, in milliseconds since the machine started.
    pub asked_ms: u64,
    /// The interface and the lease that is configured on it.
    pub attachment: Attachment,
    /// The loader's events that are not delivered yet.
    pub backlog: Backlog,
}

/// Reads what the loader left, for the agent as PID 1.
///
/// # Errors
/// When a file is missing or malformed: then this is not a machine that our loader booted.
pub fn take_over() -> Result<Handover, HandoverError> {
    take_over_from(Path::new(DIR))
}

/// As [`take_over`], from another directory.
///
/// # Errors
/// As [`take_over`].
pub fn take_over_from(dir: &Path) -> Result<Handover, HandoverError> {
    let key_file = dir.join(MACHINE_KEY);
    let mut secret = [0; 32];
    hex::decode_to_slice(read(&key_file)?.trim(), &mut secret)
        .map_err(|_| HandoverError::Content { path: key_file.clone() })?;
    let server_key = dir.join(KEY);
    let handover = Handover {
        server_url: read(&dir.join(SERVER))?.trim().to_owned(),
        server_key: read(&server_key)?
            .trim()
            .parse()
            .map_err(|_| HandoverError::Content { path: server_key })?,
        machine_key: KeyPair::from_secret(secret),
        verdict: read_json(&dir.join(VERDICT))?,
        asked_ms: read_json(&dir.join(ASKED))?,
        attachment: read_json(&dir.join(LEASE))?,
        backlog: read_json(&dir.join(EVENTS))?,
    };
    Ok(handover)
}

/// Writes `handover` to files in `dir`, which is created if need be; only root may read them.
///
/// # Errors
/// When a file cannot be written.
pub fn leave(dir: &Path, handover: &Handover) -> Result<(), HandoverError> {
    fs::create_dir_all(dir).map_err(|source| HandoverError::Write { path: dir.to_owned(), source })?;
    let secret = hex::encode(handover.machine_key.secret());
    write(&dir.join(MACHINE_KEY), secret.as_bytes())?;
    write(&dir.join(SERVER), handover.server_url.as_bytes())?;
    write(&dir.join(KEY), handover.server_key.to_string().as_bytes())?;
    write_json(&dir.join(VERDICT), &handover.verdict)?;
    write_json(&dir.join(ASKED), &handover.asked_ms)?;
    write_json(&dir.join(LEASE), &handover.attachment)?;
    write_json(&dir.join(EVENTS), &handover.backlog)
}

/// Leaves the bundle's archive for the agent, which gives it out to others of its kind. Only where memory is plenty: it
/// stands there unpacked as well.
pub fn leave_bundle(archive: &[u8]) {
    // It can be fetched again, so failing costs nothing but that.
    let _ = fs::create_dir_all(DIR).map(|()| write(&Path::new(DIR).join(BUNDLE), archive));
}

/// The archive that the loader left, if it is the bundle `hash`. It is deleted: the agent holds it from now on.
#[must_use]
pub fn take_bundle(hash: Option<Hash>) -> Option<Vec<u8>> {
    let path = Path::new(DIR).join(BUNDLE);
    let bytes = fs::read(&path).ok();
    // An agent that is started again takes it from its neighbours.
    let _ = fs::remove_file(&path);
    bytes.filter(|bytes| Some(Hash::of(bytes)) == hash)
}

fn read(path: &Path) -> Result<String, HandoverError> {
    fs::read_to_string(path).map_err(|source| HandoverError::Read { path: path.to_owned(), source })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, HandoverError> {
    serde_json::from_str(&read(path)?).map_err(|_| HandoverError::Content { path: path.to_owned() })
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), HandoverError> {
    let text = serde_json::to_vec(value).map_err(|_| HandoverError::Content { path: path.to_owned() })?;
    write(path, &text)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), HandoverError> {
    let failed = |source| HandoverError::Write { path: path.to_owned(), source };
    // A file that is there already (an earlier try) would keep its old mode.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).map_err(failed)
}
