//! The watchdog of a small loader, which has the drivers of one NIC only: if its machine has not reported five minutes
//! after its start, the machine restarts, and its next boot script names the general loader. Owns one thread; touches
//! the machine's power.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::boot::console::Console;
use crate::boot::init;

/// The server's patience with a small loader begins with the boot script, so before ours.
const PATIENCE: Duration = Duration::from_secs(300);

/// The interval at which the watchdog looks whether it was stopped.
const LOOK: Duration = Duration::from_millis(100);

const WHY: &str =
    "this small loader did not reach the server within five minutes: restarting, for the general one";

/// Restarts the machine when the time is over; dropping it stops it.
#[derive(Debug)]
pub struct Watchdog {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Begins to wait; counted from the kernel's start. `None` when the thread cannot be started, which is shown.
    #[must_use]
    pub fn start(console: Console) -> Option<Self> {
        let restart = {
            let console = console.clone();
            move || {
                console.say(WHY);
                init::reboot(&console)
            }
        };
        let left = PATIENCE.saturating_sub(Duration::from_millis(init::uptime_ms()));
        Self::start_with(left, restart)
            .inspect_err(|error| console.failed("the watchdog", error, "going on without it"))
            .ok()
    }

    fn start_with(left: Duration, restart: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let wait = move || {
            let mut looks = left.as_millis() / LOOK.as_millis();
            while looks > 0 {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(LOOK);
                looks -= 1;
            }
            if !stopped.load(Ordering::Relaxed) {
                restart();
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(wait)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends by itself, and a panic in it has been shown.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn it_restarts_a_machine_that_does_not_report_and_no_other() {
        let (tell, told) = mpsc::channel();
        let bitten = Watchdog::start_with(Duration::ZERO, move || tell.send(()).unwrap()).unwrap();
        told.recv().unwrap();
        drop(bitten);
        let (tell, told) = mpsc::channel::<()>();
        drop(Watchdog::start_with(PATIENCE, move || tell.send(()).unwrap()).unwrap());
        // The sender is gone without having sent.
        assert!(told.recv().is_err());
    }
}
