//! Limits the rate of log lines: some in ten seconds, and how many were left out since. Touches the clock.

use std::time::{Duration, Instant};

/// The period that a burst of lines is counted in.
const ROUND: Duration = Duration::from_secs(10);

/// How many lines were logged in this period, and how many were left out since the last one.
#[derive(Debug)]
pub(crate) struct Noise {
    burst: u32,
    since: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl Default for Noise {
    fn default() -> Self {
        Self::burst(1)
    }
}

impl Noise {
    /// Allows at most `burst` lines in ten seconds.
    pub(crate) fn burst(burst: u32) -> Self {
        Self { burst, since: None, said: 0, unsaid: 0 }
    }

    /// Calls `say` to log a line, with the number of lines that were left out before it; or leaves this one out.
    pub(crate) fn warn(&mut self, say: impl FnOnce(u64)) {
        if self.since.is_none_or(|since| since.elapsed() >= ROUND) {
            (self.since, self.said) = (Some(Instant::now()), 0);
        }
        if self.said >= self.burst {
            self.unsaid += 1;
            return;
        }
        self.said += 1;
        say(std::mem::take(&mut self.unsaid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_trouble_is_a_few_lines() {
        for burst in [1, 20] {
            let (mut noise, mut said) = (Noise::burst(burst), 0);
            for _ in 0..1000 {
                noise.warn(|_| said += 1);
            }
            assert_eq!((said, noise.unsaid), (burst, u64::from(1000 - burst)));
        }
    }
}
