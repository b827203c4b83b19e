//! The URLs under which the server is reached: a relay's first, then the server's own. One that does not answer is left
//! for the next, which is kept as long as it answers; the first is tried again now and then. Any of them may be wrong or
//! lie: what they answer is signed or has a known hash. Touches nothing but the clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long after leaving the first URL it is tried again: a relay that restarts takes a minute, and each try of one that
/// is gone costs a connection's timeout.
const AGAIN: Duration = Duration::from_secs(300);

/// The URLs of a server. Clones share which of them is in use.
#[derive(Debug, Clone)]
pub(super) struct Bases {
    urls: Arc<[String]>,
    used: Arc<Mutex<Used>>,
}

/// Which URL is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Used {
    at: usize,
    /// When the first one was left, or last tried in vain; `None` while it is in use.
    left: Option<Instant>,
}

impl Used {
    const FIRST: Self = Self { at: 0, left: None };

    /// Which one is tried at `now`.
    fn next(self, now: Instant) -> usize {
        let is_due = self.left.is_some_and(|left| now.duration_since(left) >= AGAIN);
        if is_due { 0 } else { self.at }
    }

    /// The one at `at` has answered.
    fn answered(self, at: usize) -> Self {
        if at == 0 { Self::FIRST } else { Self { at, ..self } }
    }

    /// The one at `at`, of `len`, has not answered.
    fn silent(self, at: usize, len: usize, now: Instant) -> Self {
        let left = if at == 0 { Some(now) } else { self.left };
        // Another request may have gone on to the next one meanwhile.
        let at = if self.at == at { (at + 1) % len } else { self.at };
        if at == 0 { Self::FIRST } else { Self { at, left } }
    }
}

impl Bases {
    /// These URLs, of which there is one at least.
    pub(super) fn new(urls: Vec<String>) -> Self {
        Self { urls: urls.into(), used: Arc::new(Mutex::new(Used::FIRST)) }
    }

    /// The one that the next request goes to.
    pub(super) fn url(&self) -> &str {
        let at = self.used().next(Instant::now());
        self.urls.get(at).map_or("", String::as_str)
    }

    /// All of them, with commas between them.
    pub(super) fn urls(&self) -> String {
        self.urls.join(",")
    }

    /// Makes a request to the URL in use, and where that does not answer, which `is_silence` tells from the error, to each
    /// of the others, once. Returns the first error if none answers: the others' are of fallbacks.
    pub(super) fn ask<T, E>(
        &self,
        is_silence: impl Fn(&E) -> bool,
        mut request: impl FnMut(&str) -> Result<T, E>,
    ) -> Result<T, E> {
        let len = self.urls.len().max(1);
        let (start, mut step, mut first) = (self.used().next(Instant::now()), 0, None);
        loop {
            let at = (start + step) % len;
            match request(self.urls.get(at).map_or("", String::as_str)) {
                Err(error) if len > 1 && is_silence(&error) => {
                    self.change(|used| used.silent(at, len, Instant::now()));
                    let error = first.take().unwrap_or(error);
                    step += 1;
                    if step == len {
                        return Err(error);
                    }
                    first = Some(error);
                }
                answered => {
                    self.change(|used| used.answered(at));
                    return answered;
                }
            }
        }
    }

    fn used(&self) -> Used {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Locked for one assignment: a panic cannot leave half of it.
    fn change(&self, change: impl FnOnce(Used) -> Used) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = change(*used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases() -> Bases {
        Bases::new(vec!["http://10.0.0.2:1".to_owned(), "http://10.0.0.1:2".to_owned()])
    }

    #[test]
    fn what_does_not_answer_is_left_for_what_does() {
        let bases = bases();
        assert_eq!(
            (bases.url(), bases.urls().as_str()),
            ("http://10.0.0.2:1", "http://10.0.0.2:1,http://10.0.0.1:2")
        );
        let ask = |dead: &str| {
            let mut asked = 0;
            let answer = bases.ask(
                |_: &String| true,
                |url| {
                    asked += 1;
                    if url.contains(dead) { Err(url.to_owned()) } else { Ok(url.to_owned()) }
                },
            );
            (asked, answer)
        };
        let (first, second) = ("http://10.0.0.2:1".to_owned(), "http://10.0.0.1:2".to_owned());
        assert_eq!(ask(":9"), (1, Ok(first.clone())));
        assert_eq!(ask(":1"), (2, Ok(second.clone())));
        assert_eq!(ask(":1"), (1, Ok(second.clone())), "it is not tried each time");
        assert_eq!(bases.clone().url(), second, "clones know it");
        assert_eq!(ask("http"), (2, Err(second)), "each once, and the first error counts");
        assert_eq!(ask(":2"), (2, Ok(first.clone())), "back to the first");
        assert_eq!(bases.url(), first);
    }

    #[test]
    fn an_error_that_is_an_answer_is_no_silence() {
        let mut asked = 0;
        let answer: Result<(), u16> = bases().ask(
            |status: &u16| *status >= 502,
            |_| {
                asked += 1;
                Err(403)
            },
        );
        assert_eq!((asked, answer), (1, Err(403)));
    }

    #[test]
    fn the_first_is_tried_again_after_a_while() {
        let (now, used) = (Instant::now(), Used::FIRST);
        let used = used.silent(0, 3, now);
        assert_eq!((used.next(now), used.next(now + AGAIN)), (1, 0));
        let used = used.answered(1).silent(0, 3, now + AGAIN);
        assert_eq!((used.next(now + AGAIN), used.next(now + 2 * AGAIN)), (1, 0), "still gone");
        assert_eq!(used.answered(0), Used::FIRST);
        assert_eq!(used.silent(1, 3, now).next(now + AGAIN), 2);
        assert_eq!(used.silent(1, 2, now), Used::FIRST, "all are gone: from the beginning");
        let late = Used { at: 2, left: Some(now) };
        assert_eq!(late.silent(0, 3, now).at, 2, "another request went on meanwhile");
    }
}
