//! Owns a run's folder, the beginning of all its names, its deadline-bound waiting, and the wish to stop. Touches
//! the temporary folder and two signal handlers.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::process;

/// What all our names in the system begin with; the process id and a number follow.
pub const PREFIX: &str = "sbl-";
/// How often a condition is looked at. Machines take seconds to do anything; this costs no CPU they would need.
const LOOK_EVERY: Duration = Duration::from_millis(100);

static STOP: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A run's folder. It goes away, with everything in it, when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    /// Makes a folder, and removes what killed runs have left behind.
    ///
    /// # Errors
    /// When there is no room for a folder, or this is not root.
    pub fn new() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("the lab needs root, for network namespaces; hint: run it with sudo");
        }
        sweep();
        let folder = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .tempdir()
            .context("cannot make the lab's temporary folder")?;
        Ok(Self { folder })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The path that a file of this name has in the folder.
    #[must_use]
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Keeps the folder for a person to look at, and says where it is.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }
}

/// A name that nobody else in this system uses: `sbl-<process id>-<number>`.
#[must_use]
pub fn name() -> String {
    format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Removes the namespaces, with what still runs in them, the mounts and the folders of runs whose process is gone.
/// What cannot be removed is left for the next time: it is in nobody's way, names are never used twice.
pub fn sweep() {
    let listing = process::output("ip", ["netns", "list"]).unwrap_or_default();
    for namespace in listing.lines().filter_map(|line| line.split_whitespace().next()) {
        if is_orphan(namespace) {
            crate::net::remove_namespace(namespace);
        }
    }
    crate::small::sweep(is_orphan);
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(is_orphan) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether `name` is one of ours and its process is gone.
fn is_orphan(name: &str) -> bool {
    let Some(owner) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { return false };
    owner.parse::<u32>().is_ok() && !Path::new("/proc").join(owner).exists()
}

/// Makes SIGINT and SIGTERM end every wait with an error instead of ending the process, so that everything that was
/// started is dropped in order. A program with a `main` of its own calls this first; tests need not.
///
/// # Errors
/// When the system refuses the handlers.
pub fn stop_on_signals() -> Result<()> {
    extern "C" fn stop(_signal: nix::libc::c_int) {
        STOP.store(true, Ordering::Relaxed);
    }
    // No SA_RESTART: a read or wait that is under way shall come back.
    let action = SigAction::new(SigHandler::Handler(stop), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler does nothing but store to an atomic, which is safe at any point of any thread.
        #[allow(unsafe_code)]
        unsafe { sigaction(signal, &action) }.context("cannot set a signal handler")?;
    }
    Ok(())
}

/// Whether the program was told to stop.
#[must_use]
pub fn told_to_stop() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Sleeps for `time`, and fails as soon as the program is told to stop.
///
/// # Errors
/// When the program was told to stop.
pub fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        if told_to_stop() {
            bail!("stopped by a signal");
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK_EVERY));
    }
}

/// Waits until `look` gives something, at most for `limit`. `what` completes the sentence "waited … in vain for".
///
/// # Errors
/// When the time is over, when `look` fails, or when the program was told to stop.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        pause(LOOK_EVERY)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_dead_names_are_orphans() {
        assert!(!is_orphan(&name()), "this process lives");
        assert!(is_orphan("sbl-4194305-0"), "no process id is that large");
        for foreign in ["", "sbl-", "sbl-x-1", "mine-1-1", "sblx-1"] {
            assert!(!is_orphan(foreign), "{foreign}");
        }
    }

    #[test]
    fn waiting_ends_with_what_it_waited_for() {
        let error = until::<()>("rain", Duration::ZERO, || Ok(None)).unwrap_err().to_string();
        assert!(error.contains("rain"), "{error}");
        assert_eq!(until("sun", Duration::ZERO, || Ok(Some(1))).unwrap(), 1);
    }
}
