//! Core: whose turn it is to send over a line, and when. A line has a rate and three classes that share it: what comes
//! first goes first, but whatever waits behind it keeps a least share, because a machine that hears nothing for some
//! seconds takes the other end for gone.

use std::collections::VecDeque;
use std::time::Duration;

/// What bytes are, in the order in which they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Answers and packets: few bytes that somebody waits for, and whose firmware asks again after a second or so.
    Small,
    /// Boot files: without them a machine does nothing at all.
    Boot,
    /// Chunks of images, which have the rest.
    Chunks,
}

/// The classes, by their place in the order.
const CLASSES: usize = 3;

/// Who waits behind another class gets at least one byte for each so many of the others.
const OTHERS_PER_OWN: f64 = 3.0;

/// A line that was idle may catch up so much: timers fire late by about a millisecond, which is not to cost rate.
const CREDIT: Duration = Duration::from_millis(20);

/// One request for a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ticket(u64);

#[derive(Debug)]
struct Ask {
    ticket: Ticket,
    bytes: usize,
}

/// The state of a line: its rate, until when it is busy, and who waits.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes per second.
    rate: Option<u64>,
    free_at: Duration,
    queues: [VecDeque<Ask>; CLASSES],
    /// Bytes that each class may send before those above it; grows only while somebody in it waits, so that it is never
    /// much more than a piece.
    owed: [f64; CLASSES],
    last: u64,
}

impl Pace {
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self {
            rate: rate.map(|rate| rate.max(1)),
            free_at: Duration::ZERO,
            queues: Default::default(),
            owed: [0.0; CLASSES],
            last: 0,
        }
    }

    /// Sets or lifts the limit. What was sent at the old one is not held against the new one.
    pub(super) fn set(&mut self, rate: Option<u64>, now: Duration) {
        self.rate = rate.map(|rate| rate.max(1));
        self.free_at = self.free_at.min(now);
    }

    pub(super) fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Puts a request at the end of the queue of its class.
    pub(super) fn ask(&mut self, class: Class, bytes: usize) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.queues[class as usize].push_back(Ask { ticket, bytes });
        ticket
    }

    /// Takes a request back.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        for at in 0..CLASSES {
            self.queues[at].retain(|ask| ask.ticket != ticket);
        }
    }

    /// Whose turn is next, and from when on.
    pub(super) fn next(&self) -> Option<(Ticket, Duration)> {
        let at = if self.rate.is_some() { self.free_at } else { Duration::ZERO };
        Some((self.queues[self.class()?].front()?.ticket, at))
    }

    /// Whose class is next: one that is owed its least share, else the first one with somebody in it.
    #[allow(clippy::cast_precision_loss)] // A piece has at most some MiB.
    fn class(&self) -> Option<usize> {
        let owed = |at: &usize| {
            self.queues[*at].front().is_some_and(|ask| *at > 0 && self.owed[*at] >= ask.bytes as f64)
        };
        (0..CLASSES).rev().find(owed).or_else(|| (0..CLASSES).find(|at| !self.queues[*at].is_empty()))
    }

    /// Gives the next one its turn, `now`.
    #[allow(clippy::cast_precision_loss)] // As above.
    pub(super) fn go(&mut self, now: Duration) {
        let Some(class) = self.class() else { return };
        let Some(ask) = self.queues[class].pop_front() else { return };
        self.charge(ask.bytes, now);
        self.owed[class] = (self.owed[class] - ask.bytes as f64).max(0.0);
        for lower in class + 1..CLASSES {
            if !self.queues[lower].is_empty() {
                self.owed[lower] += ask.bytes as f64 / OTHERS_PER_OWN;
            }
        }
    }

    /// Counts bytes that are sent now.
    #[allow(clippy::cast_precision_loss)] // Rates and pieces are far below 2^52.
    pub(super) fn charge(&mut self, bytes: usize, now: Duration) {
        if let Some(rate) = self.rate {
            let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
            self.free_at = self.free_at.max(now.saturating_sub(CREDIT)) + takes;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A line on which so many senders of each class always want to send a piece; what each class got in `seconds`, and
    /// the longest that one of it waited.
    fn run(
        rate: u64,
        senders: [usize; CLASSES],
        pieces: [usize; CLASSES],
        seconds: u64,
    ) -> ([u64; CLASSES], [Duration; CLASSES]) {
        let mut pace = Pace::new(Some(rate));
        let (mut sent, mut longest) = ([0; CLASSES], [Duration::ZERO; CLASSES]);
        let mut asked = std::collections::HashMap::new();
        let classes = [Class::Small, Class::Boot, Class::Chunks];
        for class in classes {
            for _ in 0..senders[class as usize] {
                asked.insert(pace.ask(class, pieces[class as usize]), (class, Duration::ZERO));
            }
        }
        while let Some((ticket, at)) = pace.next().filter(|(_, at)| *at < Duration::from_secs(seconds)) {
            let (class, since) = asked.remove(&ticket).unwrap();
            pace.go(at);
            sent[class as usize] += pieces[class as usize] as u64;
            longest[class as usize] = longest[class as usize].max(at - since);
            asked.insert(pace.ask(class, pieces[class as usize]), (class, at));
        }
        (sent, longest)
    }

    fn share(sent: [u64; CLASSES], class: Class) -> f64 {
        sent[class as usize] as f64 / sent.iter().sum::<u64>() as f64
    }

    #[test]
    fn boot_files_go_first_and_chunks_keep_a_quarter() {
        let rate = 2_500_000;
        let (sent, longest) = run(rate, [0, 30, 8], [0, 12_500, 12_500], 60);
        assert!((share(sent, Class::Boot) - 0.75).abs() < 0.01, "{sent:?}");
        assert!((share(sent, Class::Chunks) - 0.25).abs() < 0.01, "{sent:?}");
        // Thirty pieces of 5 ms, and the quarter between them.
        assert!(longest[Class::Boot as usize] < Duration::from_millis(220), "{longest:?}");
    }

    #[test]
    fn one_boot_among_many_chunks_waits_for_one_piece() {
        let mut pace = Pace::new(Some(125_000));
        let chunks: Vec<_> = (0..50).map(|_| pace.ask(Class::Chunks, 8_192)).collect();
        assert_eq!(pace.next().unwrap().0, chunks[0]);
        pace.go(Duration::ZERO);
        let boot = pace.ask(Class::Boot, 8_192);
        let small = pace.ask(Class::Small, 300);
        assert_eq!(pace.next().unwrap().0, small);
        pace.go(Duration::ZERO);
        assert_eq!(pace.next().unwrap().0, boot);
        pace.go(Duration::ZERO);
        assert_eq!(pace.next().unwrap().0, chunks[1]);
    }

    #[test]
    fn who_has_the_line_alone_has_all_of_it() {
        for class in [Class::Small, Class::Boot, Class::Chunks] {
            let mut senders = [0; CLASSES];
            senders[class as usize] = 1;
            let (sent, _) = run(1_000_000, senders, [1_400, 8_192, 8_192], 10);
            assert!((sent[class as usize] as f64 / 10_000_000.0 - 1.0).abs() < 0.02, "{class:?} {sent:?}");
        }
    }

    /// What an idle line saves up is gone in an instant: otherwise a line that was idle for a minute would carry a
    /// minute's bytes at once, and a switch's buffers would drop them.
    #[test]
    fn an_idle_line_saves_up_little() {
        let mut pace = Pace::new(Some(1_000_000));
        let begun = Duration::from_secs(60);
        let mut sent = 0;
        loop {
            pace.ask(Class::Boot, 1_000);
            if pace.next().is_none_or(|(_, at)| at > begun) {
                break;
            }
            pace.go(begun);
            sent += 1_000;
        }
        assert!((20_000..=22_000).contains(&sent), "{sent}");
    }

    /// A class whose queue was empty is owed nothing for that time.
    #[test]
    fn nothing_is_owed_for_a_time_when_nobody_waited() {
        let mut pace = Pace::new(Some(1_000_000));
        let now = Duration::from_secs(1);
        pace.ask(Class::Chunks, 8_192);
        for _ in 0..9 {
            pace.ask(Class::Boot, 8_192);
            pace.go(now);
        }
        assert!(pace.queues[Class::Chunks as usize].is_empty(), "it had its share");
        pace.go(now);
        for _ in 0..100 {
            pace.ask(Class::Boot, 8_192);
            pace.go(now);
        }
        let boot = pace.ask(Class::Boot, 8_192);
        pace.ask(Class::Chunks, 8_192);
        assert_eq!(pace.next().unwrap().0, boot);
    }

    proptest! {
        #[test]
        fn the_rate_is_kept_and_nobody_starves(
            rate in 125_000u64..125_000_000,
            senders in [0usize..20, 0usize..60, 0usize..60],
            per_second in 15u64..200,
        ) {
            prop_assume!(senders.iter().sum::<usize>() > 0);
            let piece = |per_second: u64| usize::try_from(rate / per_second).unwrap();
            let pieces = [piece(400), piece(per_second), piece(per_second)];
            let (sent, _) = run(rate, senders, pieces, 20);
            let of_rate = sent.iter().sum::<u64>() as f64 / (20 * rate) as f64;
            prop_assert!((0.98..1.02).contains(&of_rate), "{of_rate}");
            // Chunks keep a quarter; what stands in the middle may be owed itself, and keeps nearly as much.
            for (class, least) in [(Class::Boot, 0.17), (Class::Chunks, 0.24)] {
                if senders[class as usize] > 0 {
                    prop_assert!(share(sent, class) > least, "{class:?} of {sent:?}");
                }
            }
            if senders[Class::Small as usize] + senders[Class::Boot as usize] > 0 {
                prop_assert!(share(sent, Class::Chunks) < 0.26, "{sent:?}");
            }
        }
    }
}
