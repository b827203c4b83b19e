//! Progress on standard error: a bar on a terminal, otherwise a plain line every few seconds.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use common::text::bytes;
use indicatif::{ProgressBar, ProgressStyle};

/// The time between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// The progress of one long task, in bytes.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    last_line: Instant,
}

impl Progress {
    /// Starts the display for the task `what`, of `total` bytes if that is known.
    #[must_use]
    pub fn new(what: &str, total: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total.unwrap_or(0));
            bar.set_style(style(total.is_some()));
            bar.set_message(what.to_owned());
            bar
        });
        Self { bar, what: what.to_owned(), last_line: Instant::now() }
    }

    /// Updates the display: `done` of `total` bytes, and `text` for what is being done.
    pub fn set(&mut self, done: u64, total: Option<u64>, text: &str) {
        if let Some(bar) = &self.bar {
            if let Some(total) = total
                && bar.length() != Some(total)
            {
                bar.set_length(total);
                bar.set_style(style(true));
            }
            bar.set_position(done);
            bar.set_message(format!("{} {text}", self.what));
        } else if self.last_line.elapsed() >= PLAIN_EVERY {
            self.last_line = Instant::now();
            let of = total.map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
            super::show::talk(&format!("{}: {}{of} {text}", self.what, bytes(done)));
        }
    }

    /// Prints a note, above the bar if there is one.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("note: {text}")),
            None => super::show::talk(&format!("note: {text}")),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(bounded: bool) -> ProgressStyle {
    let template = if bounded {
        "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}"
    } else {
        "{msg} {spinner} {bytes} {bytes_per_sec}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
