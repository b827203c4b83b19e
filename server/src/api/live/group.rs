//! The readers of one scope: what they were told, how one that joins begins, and the channel to all of them. Bounds what
//! they cost: beginnings are made once for many readers and forgotten after a while, whoever still reads one, and a reader
//! that is behind is given another beginning. Owns that channel; touches nothing else.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{broadcast, oneshot};
use tokio::time::Instant;

use super::super::shapes::live::Live;
use super::super::shapes::{Scope, SwarmStatus};
use super::book::Book;
use crate::fleet::live::FleetRows;
use crate::traffic::SiteTraffic;

/// How many messages a reader may be behind before it is told everything anew.
const BEHIND_MAX: usize = 16;
/// The longest message of changes, in bytes; where more changed, everybody is told everything anew.
const CHANGES_MAX: usize = 256 << 10;
/// How many messages of changes follow a snapshot for readers that join; then another one is made.
const LATER_MAX: usize = 32;
/// How long a reader may take for its beginning: a snapshot of 10,000 machines is some 3 MiB.
const HELD: Duration = Duration::from_secs(60);
/// How much of its beginning a reader gets at once, in bytes.
const PIECE: usize = 64 << 10;

/// News for the readers.
#[derive(Debug, Clone)]
pub(super) enum News {
    /// What changed, as a server-sent event.
    Changes(Bytes),
    /// Too much changed: join again.
    Anew,
}

/// What a reader gets when it joins: how things stand, and then what changes.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) beginning: Beginning,
    pub(super) news: broadcast::Receiver<News>,
}

/// A snapshot, and what changed since it was made.
type Parts = Vec<Bytes>;

/// Where a reader is in its beginning. It does not keep it alive.
#[derive(Debug)]
pub(super) struct Beginning {
    parts: Weak<Parts>,
    part: usize,
    from: usize,
    is_over: bool,
}

/// The next of a beginning.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Up to [`PIECE`] bytes.
    Bytes(Bytes),
    /// There is no more.
    Over,
    /// The reader took longer than [`HELD`], in the middle of a message.
    Forgotten,
}

impl Beginning {
    fn of(parts: &Arc<Parts>) -> Self {
        Self { parts: Arc::downgrade(parts), part: 0, from: 0, is_over: false }
    }

    /// Goes on by one piece, which is a copy: a connection that is stuck with it keeps no more than that alive.
    pub(super) fn piece(&mut self) -> Piece {
        if self.is_over {
            return Piece::Over;
        }
        let Some(parts) = self.parts.upgrade() else { return Piece::Forgotten };
        let Some(part) = parts.get(self.part) else {
            self.is_over = true;
            return Piece::Over;
        };
        let to = part.len().min(self.from + PIECE);
        let piece = Bytes::copy_from_slice(part.get(self.from..to).unwrap_or_default());
        (self.part, self.from) = if to == part.len() { (self.part + 1, 0) } else { (self.part, to) };
        Piece::Bytes(piece)
    }
}

/// The readers of one scope.
#[derive(Debug)]
pub(super) struct Group {
    /// Whether all rows have to be asked for, because none were yet, or changes were lost.
    pub(super) is_lost: bool,
    book: Book,
    news: broadcast::Sender<News>,
    /// Readers that joined before the first look.
    early: Vec<oneshot::Sender<Joined>>,
    /// The newest snapshot, and what changed since.
    parts: Parts,
    /// The beginnings that readers were given, with when each may be forgotten.
    held: VecDeque<(Instant, Arc<Parts>)>,
    /// Whether the newest of these is how things stand.
    is_newest: bool,
}

impl Group {
    /// A group without readers.
    pub(super) fn of(scope: &Scope) -> Self {
        let (news, _) = broadcast::channel(BEHIND_MAX);
        Self {
            is_lost: true,
            book: Book::of(scope),
            news,
            early: vec![],
            parts: vec![],
            held: VecDeque::new(),
            is_newest: false,
        }
    }

    /// Whether anybody reads, or waits to.
    pub(super) fn has_readers(&self) -> bool {
        self.news.receiver_count() > 0 || self.early.iter().any(|reader| !reader.is_closed())
    }

    /// Takes a reader in: at once, or after the first look.
    pub(super) fn join(&mut self, reader: oneshot::Sender<Joined>, at: Timestamp, now: Instant) {
        if self.is_lost {
            self.early.push(reader);
            return;
        }
        let beginning = self.beginning(at, now);
        // It may have gone already.
        let _ = reader.send(Joined { beginning, news: self.news.subscribe() });
    }

    /// Tells all readers what changed.
    pub(super) fn tell(
        &mut self,
        rows: FleetRows,
        swarms: &[SwarmStatus],
        sites: &[SiteTraffic],
        (at, now): (Timestamp, Instant),
    ) {
        let live = self.book.take(rows, swarms, sites, at);
        self.is_lost = false;
        while self.held.front().is_some_and(|(until, _)| *until <= now) {
            self.held.pop_front();
            self.is_newest &= !self.held.is_empty();
        }
        if !live.is_empty() {
            self.send(message("changes", &live));
        }
        for reader in std::mem::take(&mut self.early) {
            self.join(reader, at, now);
        }
    }

    fn send(&mut self, changes: Bytes) {
        self.is_newest = false;
        let (whole, later) = self.parts.split_first().map_or((0, 0), |(whole, later)| {
            (whole.len(), later.iter().map(Bytes::len).sum::<usize>() + changes.len())
        });
        let is_long = changes.len() > CHANGES_MAX;
        if is_long || self.parts.len() > LATER_MAX || later > whole / 2 {
            self.parts.clear();
        } else if !self.parts.is_empty() {
            self.parts.push(changes.clone());
        }
        // Fails when the last reader has just gone.
        let _ = self.news.send(if is_long { News::Anew } else { News::Changes(changes) });
    }

    /// How things stand. The same for all that join before something changes; its snapshot for many more.
    fn beginning(&mut self, at: Timestamp, now: Instant) -> Beginning {
        if let Some((until, parts)) = self.held.back_mut().filter(|_| self.is_newest) {
            *until = now + HELD;
            return Beginning::of(parts);
        }
        if self.parts.is_empty() {
            self.parts.push(message("snapshot", &self.book.snapshot(at)));
        }
        let parts = Arc::new(self.parts.clone());
        let beginning = Beginning::of(&parts);
        self.held.push_back((now + HELD, parts));
        self.is_newest = true;
        beginning
    }
}

/// A server-sent event. JSON has no line breaks, so one `data:` holds it.
fn message(kind: &str, live: &Live) -> Bytes {
    match serde_json::to_string(live) {
        Ok(data) => format!("event: {kind}\ndata: {data}\n\n").into(),
        Err(error) => {
            tracing::error!(%error, "the live stream cannot be written as JSON");
            Bytes::from_static(b":\n\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::tests::{Reader, at, rows, swarm};
    use super::*;

    /// A group that has told how 1,000 machines stand, of which 200 transfer.
    fn group() -> (Group, Instant) {
        let (mut group, now) = (Group::of(&Scope::default()), Instant::now());
        tell(&mut group, 0, now);
        (group, now)
    }

    /// What happens in a second: the first of the group is for everything.
    fn tell(group: &mut Group, second: u64, now: Instant) {
        let rows = if second == 0 { rows(true, 1..=1000, 0) } else { rows(false, 1..=200, second) };
        let now = now + Duration::from_secs(second);
        group.tell(rows, &[swarm(second)], &[], (at(second), now));
    }

    fn join(group: &mut Group, second: u64, now: Instant) -> Joined {
        let (reader, mut joined) = oneshot::channel();
        group.join(reader, at(second), now + Duration::from_secs(second));
        joined.try_recv().unwrap()
    }

    /// Everything that a reader gets of its beginning.
    fn whole(beginning: &mut Beginning) -> String {
        let mut all = vec![];
        loop {
            match beginning.piece() {
                Piece::Bytes(bytes) => {
                    assert!(bytes.len() <= PIECE);
                    all.extend_from_slice(&bytes);
                }
                Piece::Over => return String::from_utf8(all).unwrap(),
                Piece::Forgotten => panic!("it was forgotten"),
            }
        }
    }

    /// What whoever reads these messages knows.
    fn known(text: &str) -> Reader {
        let mut reader = Reader::default();
        for message in text.split_terminator("\n\n") {
            let (_, data) = message.split_once("data: ").unwrap();
            reader.hear(&serde_json::from_str(data).unwrap());
        }
        reader
    }

    #[test]
    fn who_joins_late_knows_as_much_and_one_snapshot_serves_many() {
        let (mut group, now) = group();
        let first = join(&mut group, 0, now);
        (1..=3).for_each(|second| tell(&mut group, second, now));
        let mut late: Vec<Joined> = (0..1000).map(|_| join(&mut group, 3, now)).collect();
        assert_eq!(group.held.len(), 2, "a thousand that join together have one beginning");
        assert!(late.iter().all(|one| one.beginning.parts.ptr_eq(&late[0].beginning.parts)));
        let text = whole(&mut late[0].beginning);
        assert_eq!(text.matches("event: snapshot\n").count(), 1);
        assert_eq!(text.matches("event: changes\n").count(), 3);
        let snapshot = message("snapshot", &group.book.snapshot(at(3)));
        assert_eq!(known(&text), known(std::str::from_utf8(&snapshot).unwrap()));
        // The two beginnings are of one snapshot, not two.
        let of = |beginning: &Beginning| beginning.parts.upgrade().unwrap()[0].as_ptr();
        assert_eq!(of(&first.beginning), of(&late[0].beginning));
    }

    #[test]
    fn who_does_not_read_costs_nothing_after_a_while() {
        let (mut group, now) = group();
        let mut slow = vec![];
        let mut most = (0, 0);
        for second in 1..=300 {
            slow.extend((0..4).map(|_| join(&mut group, second - 1, now)));
            tell(&mut group, second, now);
            assert_eq!(slow[0].beginning.parts.strong_count() > 0, second < HELD.as_secs(), "{second}");
            // What is alive: each snapshot and each message of changes once, whoever reads it.
            let parts = group.held.iter().flat_map(|(_, parts)| parts.iter());
            let alive: std::collections::BTreeMap<_, _> =
                parts.map(|part| (part.as_ptr(), part.len())).collect();
            most = most.max((alive.values().sum(), group.held.len()));
            assert!(group.news.len() <= BEHIND_MAX);
        }
        assert_eq!(slow.len(), 1200);
        assert_eq!(slow[0].beginning.piece(), Piece::Forgotten, "its stream ends");
        let snapshot = group.book.snapshot(at(300));
        let snapshot = message("snapshot", &snapshot).len();
        println!("1,200 slow readers: {} bytes in {} beginnings, a snapshot is {snapshot}", most.0, most.1);
        assert!(most.0 < 30 * snapshot && most.1 <= 61, "{most:?} of {snapshot}");
    }

    #[test]
    fn too_much_at_once_is_told_by_a_snapshot() {
        let (mut group, now) = group();
        let mut reader = join(&mut group, 0, now);
        whole(&mut reader.beginning);
        let mut many = rows(false, 1..=1000, 1);
        many.machines.iter_mut().for_each(|(machine, _)| machine.note = Some("x".repeat(300)));
        group.tell(many, &[], &[], (at(1), now));
        assert!(matches!(reader.news.try_recv(), Ok(News::Anew)));
        let text = whole(&mut join(&mut group, 1, now).beginning);
        assert_eq!(text.matches("event: ").count(), 1, "it knows of the change already");
        assert!(known(&text).machines.values().all(|machine| machine.note.is_some()));
    }

    #[test]
    fn after_a_loss_a_reader_waits_for_the_whole() {
        let (mut group, now) = group();
        group.is_lost = true;
        let (reader, mut joined) = oneshot::channel();
        group.join(reader, at(1), now);
        assert!(joined.try_recv().is_err());
        assert!(group.has_readers());
        tell(&mut group, 1, now);
        assert_eq!(known(&whole(&mut joined.try_recv().unwrap().beginning)).machines.len(), 1000);
    }
}
