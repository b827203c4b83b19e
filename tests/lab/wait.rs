//! Owns waiting with a timeout, and the flag to stop. Touches three signal handlers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// How often a condition is checked. Machines take seconds for anything; this costs no processor time that they need.
const LOOK_EVERY: Duration = Duration::from_millis(100);

static STOP: AtomicBool = AtomicBool::new(false);

/// Makes SIGINT and SIGTERM end every wait with an error instead of ending the process, so that everything that was
/// started is dropped in order. A program with a `main` of its own calls this first; tests need not.
///
/// # Errors
/// When the system refuses the handlers.
pub fn stop_on_signals() -> Result<()> {
    extern "C" fn stop(_signal: nix::libc::c_int) {
        STOP.store(true, Ordering::Relaxed);
    }
    // Without SA_RESTART, so that a read or wait in progress returns.
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

/// Waits until `look` returns something, for at most `limit`. `what` completes the sentence "waited … in vain for".
///
/// # Errors
/// At the timeout, when `look` fails, or when the program was told to stop.
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
    fn waiting_ends_with_what_it_waited_for() {
        let error = until::<()>("rain", Duration::ZERO, || Ok(None)).unwrap_err().to_string();
        assert!(error.contains("rain"), "{error}");
        assert_eq!(until("sun", Duration::ZERO, || Ok(Some(1))).unwrap(), 1);
    }
}
