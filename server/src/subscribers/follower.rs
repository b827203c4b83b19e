//! Core: the position of one subscriber in the log: what it is sent next, when it is tried again, when its cursor is
//! saved, and what is said about it. `next` tells what to do now; what came of it is told back. Times are since any fixed
//! instant, by a clock that never goes back. Touches `fleet::store`, `api`.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::form::{Gap, Item};
use crate::api::shapes::LogEvent;

/// The pause after the first failed try; it doubles with each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause: a target that answers again gets what it missed within that time.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The longest pause that a target may ask for.
const ASKED_MAX: Duration = Duration::from_secs(3600);
/// How long it must have failed before that is logged: a target that restarts is no news. It also bounds how much one
/// that comes and goes adds to the log that it is sent.
const LOUD: Duration = Duration::from_secs(30);
/// The cursor is saved this long after a delivery; so much may be delivered again if the server is killed.
const SAVE: Duration = Duration::from_secs(1);
/// The cursor is saved this long after it moved over events that nobody wanted.
const SAVE_IDLE: Duration = Duration::from_secs(60);
/// The pause between two looks at the end of the log: a rack's progress is many events a second, and all are skipped.
const LOOK: Duration = Duration::from_millis(200);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Keep this cursor.
    Save(u64),
    /// Read the log behind this event.
    Read(u64),
    /// Deliver what is pending.
    Deliver,
    /// Wait for a newer event, and no longer than until this time.
    Wait(Option<Duration>),
}

/// Why a delivery failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is tried again.
    Again {
        /// The cause, in one sentence.
        cause: String,
        /// How long the target asks to be left alone.
        after: Option<Duration>,
    },
    /// The target says that it is gone and wants nothing any more.
    Gone {
        /// The cause, in one sentence.
        cause: String,
    },
}

/// Something that belongs in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// A first try failed; for the program's own log.
    Stumbled(String),
    /// It has failed for a while.
    Fails {
        /// The cause, in one sentence.
        cause: String,
        /// How long.
        lasted: Duration,
    },
    /// It works again, after it failed for this long.
    Works(Duration),
    /// It is sent nothing more until the server starts again.
    Ended(String),
    /// Events were deleted before they were delivered.
    Missed(Gap),
}

/// Tries that fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Since when.
    pub(super) since: Duration,
    /// How many tries failed.
    pub(super) tries: u32,
    /// When it is tried again.
    pub(super) again: Duration,
    /// Why the last one failed.
    pub(super) cause: String,
    is_said: bool,
}

/// A page of the log, with what the subscriber wants of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    /// The events that are wanted, in order.
    pub(super) wanted: Vec<LogEvent>,
    /// The cursor once all of them are delivered.
    pub(super) through: u64,
    /// The highest number of an event that the log does not have any more.
    pub(super) forgotten: u64,
    /// Whether the log ends here.
    pub(super) is_last: bool,
}

/// The position of one subscriber in the log.
#[derive(Debug, Clone)]
pub(super) struct Follower {
    /// Up to this event everything is delivered, or not wanted.
    cursor: u64,
    saved: u64,
    /// When the cursor is to be saved; `None` when it is.
    save_due: Option<Duration>,
    /// The gap up to here was told.
    told: u64,
    pending: VecDeque<Item>,
    /// The cursor once all that is pending is delivered.
    through: u64,
    look_again: Duration,
    trouble: Option<Trouble>,
    ended: Option<String>,
}

impl Follower {
    /// A subscriber that has got everything up to `cursor`.
    pub(super) fn new(cursor: u64) -> Self {
        Self {
            cursor,
            saved: cursor,
            save_due: None,
            told: cursor,
            pending: VecDeque::new(),
            through: cursor,
            look_again: Duration::ZERO,
            trouble: None,
            ended: None,
        }
    }

    /// The event up to which everything is delivered or not wanted.
    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The cursor, if it was not saved yet.
    pub(super) fn unsaved(&self) -> Option<u64> {
        (self.cursor != self.saved).then_some(self.cursor)
    }

    /// What is to be delivered, in order.
    pub(super) fn pending(&mut self) -> &[Item] {
        self.pending.make_contiguous()
    }

    /// The tries that fail, if they do.
    pub(super) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Why it is sent nothing more, if that is so.
    pub(super) fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// What to do at `now`, when the newest event is `newest`.
    pub(super) fn next(&self, now: Duration, newest: u64) -> Next {
        if self.save_due.is_some_and(|due| due <= now) {
            return Next::Save(self.cursor);
        }
        if self.ended.is_some() {
            return Next::Wait(self.save_due);
        }
        let until = |at: Duration| Next::Wait(Some(self.save_due.map_or(at, |due| due.min(at))));
        match &self.trouble {
            Some(trouble) if trouble.again > now => return until(trouble.again),
            _ => {}
        }
        if !self.pending.is_empty() {
            return Next::Deliver;
        }
        match newest > self.cursor {
            true if self.look_again > now => until(self.look_again),
            true => Next::Read(self.cursor),
            false => Next::Wait(self.save_due),
        }
    }

    /// The log behind the cursor was read at `now`, at the time `at` of the clock on the wall.
    pub(super) fn read(&mut self, page: Page, now: Duration, at: Timestamp) -> Option<News> {
        // What was read before is pending or delivered: that the log has forgotten it since is no loss.
        let known = self.told.max(self.through);
        let gap = (page.forgotten > known).then(|| Gap { from: known + 1, to: page.forgotten, at });
        self.told = self.told.max(page.forgotten);
        self.pending.extend(gap.map(Item::Gap));
        self.pending.extend(page.wanted.into_iter().map(|event| Item::Event(Box::new(event))));
        self.through = self.through.max(page.through);
        if page.is_last {
            self.look_again = now + LOOK;
        }
        if self.pending.is_empty() {
            self.advance(self.through, now + SAVE_IDLE);
        }
        gap.map(News::Missed)
    }

    /// The first `count` of what is pending were delivered.
    pub(super) fn delivered(&mut self, count: usize, now: Duration) -> Option<News> {
        for _ in 0..count {
            let Some(item) = self.pending.pop_front() else { break };
            // The last of a page stands for all events behind it that were not wanted.
            let reaches = if self.pending.is_empty() { self.through } else { item.reaches() };
            self.advance(reaches, now + SAVE);
        }
        if count == 0 {
            return None;
        }
        let trouble = self.trouble.take()?;
        trouble.is_said.then(|| News::Works(now.saturating_sub(trouble.since)))
    }

    /// A try to deliver, or to read the log, failed.
    pub(super) fn failed(&mut self, failure: Failure, now: Duration) -> Option<News> {
        let (cause, after) = match failure {
            Failure::Again { cause, after } => (cause, after),
            Failure::Gone { cause } => {
                self.ended = Some(cause.clone());
                // It begins here when the server starts again.
                self.pending.clear();
                self.trouble = None;
                return Some(News::Ended(cause));
            }
        };
        let before = self.trouble.take();
        let (since, tries) =
            before.as_ref().map_or((now, 1), |before| (before.since, before.tries.saturating_add(1)));
        let pause = PAUSE.saturating_mul(1 << (tries - 1).min(16)).min(PAUSE_MAX);
        let pause = pause.max(after.unwrap_or_default().min(ASKED_MAX));
        let lasted = now.saturating_sub(since);
        let was_said = before.as_ref().is_some_and(|before| before.is_said);
        let is_loud = lasted >= LOUD;
        let news = match before {
            None => Some(News::Stumbled(cause.clone())),
            Some(_) if is_loud && !was_said => Some(News::Fails { cause: cause.clone(), lasted }),
            Some(_) => None,
        };
        let is_said = was_said || is_loud;
        self.trouble = Some(Trouble { since, tries, again: now + pause, cause, is_said });
        news
    }

    /// This cursor was kept.
    pub(super) fn saved(&mut self, cursor: u64) {
        (self.saved, self.save_due) = (cursor, None);
    }

    /// The cursor could not be kept.
    pub(super) fn unsaved_at(&mut self, now: Duration) {
        self.save_due = Some(now + SAVE * 10);
    }

    fn advance(&mut self, to: u64, due: Duration) {
        // Events that were left where others were deleted have lower numbers than the gap before them.
        self.cursor = self.cursor.max(to);
        if self.cursor != self.saved {
            self.save_due = Some(self.save_due.map_or(due, |before| before.min(due)));
        }
    }
}

#[cfg(test)]
mod tests;
