//! The consoles of the machine, its screen and its serial line: shows one line of text at a time.
//!
//! The kernel's `/dev/console` is only the last `console=` of its command line; a rack has people at both, so lines go
//! to every console that the kernel names. They are opened non-blocking: a serial line that nobody reads must not stop
//! an installation, so it loses lines instead. Touches `/sys/class/tty`, `/dev`.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use common::causes::with_causes;
use common::text::harmless;
use parking_lot::Mutex;

/// The beginning of every line of ours, which tells it from the kernel's.
const PREFIX: &str = "swarmboot: ";

/// The most consoles that are written to; the kernel itself takes at most eight.
const CONSOLES_MAX: usize = 8;

/// A handle of the machine's consoles; clones write to the same ones.
#[derive(Debug, Clone, Default)]
pub struct Console {
    outs: Arc<Mutex<Vec<File>>>,
}

impl Console {
    /// Opens every active console; if there is none, lines are dropped.
    #[must_use]
    pub fn open() -> Self {
        let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let mut outs: Vec<File> = active
            .split_ascii_whitespace()
            .take(CONSOLES_MAX)
            .filter_map(|name| open(&Path::new("/dev").join(name)))
            .collect();
        if outs.is_empty() {
            outs.extend(open(Path::new("/dev/console")));
        }
        Self { outs: Arc::new(Mutex::new(outs)) }
    }

    /// Shows `text` as one line, without characters that control a terminal.
    pub fn say(&self, text: &str) {
        let line = format!("{PREFIX}{}\r\n", harmless(text));
        for out in self.outs.lock().iter_mut() {
            // A console that accepts nothing now loses the line; there is nowhere to report it.
            let _ = out.write_all(line.as_bytes());
        }
    }

    /// Shows that `doing` failed, with the causes of `error`, and what is done next.
    pub fn failed(&self, doing: &str, error: &dyn std::error::Error, next: &str) {
        self.say(&format!("{doing} failed: {}; {next}", with_causes(error)));
    }

    /// Makes a panic of any thread show here; PID 1 has no standard error.
    pub fn show_panics(&self) {
        let console = self.clone();
        std::panic::set_hook(Box::new(move |panic| {
            console.say(&format!("internal error, please report it: {panic}"));
        }));
    }
}

fn open(path: &Path) -> Option<File> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY | nix::libc::O_CLOEXEC;
    OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}
