//! Tests of the follower: tables of what happens when, and worlds at random.

use common::step::What;
use proptest::prelude::*;

use super::super::tests::event;
use super::*;

const S: fn(u64) -> Duration = Duration::from_secs;

fn page(ids: &[u64], through: u64) -> Page {
    let wanted = ids.iter().map(|id| event(*id, What::Started)).collect();
    Page { wanted, through, forgotten: 0, is_last: true }
}

fn read(follower: &mut Follower, page: Page, now: Duration) -> Option<News> {
    follower.read(page, now, Timestamp::UNIX_EPOCH)
}

fn again(cause: &str) -> Failure {
    Failure::Again { cause: cause.to_owned(), after: None }
}

#[test]
fn it_reads_delivers_and_saves() {
    let mut follower = Follower::new(4);
    assert_eq!(follower.next(S(0), 4), Next::Wait(None));
    assert_eq!(follower.next(S(0), 9), Next::Read(4));
    assert_eq!(read(&mut follower, page(&[6, 7], 9), S(0)), None);
    assert_eq!(follower.next(S(0), 9), Next::Deliver);
    assert_eq!(follower.pending().len(), 2);
    assert_eq!(follower.delivered(1, S(1)), None);
    assert_eq!((follower.cursor(), follower.unsaved()), (6, Some(6)));
    assert_eq!(follower.next(S(1), 9), Next::Deliver);
    follower.delivered(1, S(1));
    assert_eq!(follower.cursor(), 9, "what nobody wanted behind the last is passed too");
    assert_eq!(follower.next(S(1), 9), Next::Wait(Some(S(2))));
    assert_eq!(follower.next(S(2), 9), Next::Save(9));
    follower.saved(9);
    assert_eq!((follower.next(S(2), 9), follower.unsaved()), (Next::Wait(None), None));
}

#[test]
fn what_nobody_wants_is_passed_without_haste() {
    let mut follower = Follower::new(0);
    read(&mut follower, page(&[], 500), S(0));
    assert_eq!(follower.cursor(), 500);
    assert_eq!(follower.next(S(0), 501), Next::Wait(Some(LOOK)), "not for each event of a rack");
    assert_eq!(follower.next(LOOK, 501), Next::Read(500));
    assert_eq!(follower.next(S(59), 500), Next::Wait(Some(S(60))));
    assert_eq!(follower.next(S(60), 500), Next::Save(500));
    follower.unsaved_at(S(60));
    assert_eq!(follower.next(S(60), 500), Next::Wait(Some(S(70))), "a full disk is not asked in a loop");
}

#[test]
fn pauses_double_up_to_five_minutes_and_only_changes_are_said() {
    let mut follower = Follower::new(0);
    read(&mut follower, page(&[1, 2], 2), S(0));
    let (mut now, mut pauses, mut news) = (S(0), vec![], vec![]);
    for _ in 0..14 {
        assert_eq!(follower.next(now, 2), Next::Deliver);
        news.extend(follower.failed(again("no answer"), now).map(|news| (now.as_secs(), news)));
        let Next::Wait(Some(until)) = follower.next(now, 2) else { panic!() };
        pauses.push((until - now).as_secs());
        now = until;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300, 300]);
    let fails = News::Fails { cause: "no answer".to_owned(), lasted: S(31) };
    assert_eq!(news, [(0, News::Stumbled("no answer".to_owned())), (31, fails)]);
    assert_eq!(follower.delivered(1, now), Some(News::Works(now)));
    assert_eq!(follower.trouble(), None);
    assert_eq!(follower.next(now, 2), Next::Deliver, "the next one follows at once");
}

#[test]
fn a_short_trouble_is_not_logged_and_a_pause_that_is_asked_for_is_kept() {
    let mut follower = Follower::new(0);
    read(&mut follower, page(&[1], 1), S(0));
    let busy = |after| Failure::Again { cause: "503".to_owned(), after: Some(S(after)) };
    follower.failed(busy(20), S(0));
    assert_eq!(follower.next(S(19), 1), Next::Wait(Some(S(20))));
    assert_eq!(follower.delivered(1, S(20)), None);
    read(&mut follower, page(&[2], 2), S(30));
    follower.failed(busy(999_999), S(30));
    assert_eq!(follower.next(S(31), 2), Next::Save(1), "the cursor is saved meanwhile");
    follower.saved(1);
    assert_eq!(follower.next(S(31), 2), Next::Wait(Some(S(30) + ASKED_MAX)), "nobody is waited for for ever");
}

#[test]
fn who_is_gone_is_sent_nothing_more() {
    let mut follower = Follower::new(0);
    read(&mut follower, page(&[1, 2], 2), S(0));
    follower.delivered(1, S(0));
    let news = follower.failed(Failure::Gone { cause: "410".to_owned() }, S(0));
    assert_eq!(news, Some(News::Ended("410".to_owned())));
    assert_eq!(follower.next(S(0), 99), Next::Wait(Some(S(1))));
    assert_eq!(follower.next(S(1), 99), Next::Save(1));
    follower.saved(1);
    assert_eq!((follower.next(S(9), 99), follower.ended()), (Next::Wait(None), Some("410")));
    assert_eq!(follower.cursor(), 1, "it goes on here when the server starts again");
}

#[test]
fn what_was_forgotten_is_a_gap_and_what_was_read_before_is_none() {
    let mut follower = Follower::new(5);
    let news = read(&mut follower, Page { forgotten: 9, ..page(&[12], 12) }, S(0));
    let gap = Gap { from: 6, to: 9, at: Timestamp::UNIX_EPOCH };
    assert_eq!(news, Some(News::Missed(gap)));
    let ids: Vec<String> = follower.pending().iter().map(Item::id).collect();
    assert_eq!(ids, ["gap-6-9", "12"]);
    follower.delivered(1, S(0));
    assert_eq!(follower.cursor(), 9);
    follower.delivered(1, S(0));
    // All of it was delivered before it was forgotten.
    assert_eq!(read(&mut follower, Page { forgotten: 12, ..page(&[13], 13) }, S(1)), None);
    follower.delivered(1, S(1));
    let news = read(&mut follower, Page { forgotten: 20, ..page(&[], 25) }, S(2));
    assert_eq!(news, Some(News::Missed(Gap { from: 14, to: 20, at: Timestamp::UNIX_EPOCH })));
    follower.delivered(1, S(2));
    assert_eq!(follower.cursor(), 25);
}

/// What happens to a world: a log that grows and forgets, a target that comes and goes, a server that is killed.
#[derive(Debug, Clone)]
enum Happens {
    Grows(u8),
    Forgets(u8),
    Fails,
    Gives(u8),
    Killed,
}

fn happenings() -> impl Strategy<Value = Vec<Happens>> {
    let one = prop_oneof![
        4 => (1_u8..12).prop_map(Happens::Grows),
        1 => (1_u8..30).prop_map(Happens::Forgets),
        3 => Just(Happens::Fails),
        6 => (1_u8..5).prop_map(Happens::Gives),
        1 => Just(Happens::Killed),
    ];
    prop::collection::vec(one, 1..200)
}

/// A log whose events with even numbers are wanted, and who got what of it.
#[derive(Default)]
struct World {
    first: u64,
    last: u64,
    kept: u64,
    now: Duration,
    got: Vec<(u64, u64)>,
}

impl World {
    /// Lets the follower do what it wants until it delivers or waits; true when it delivers.
    fn runs(&mut self, follower: &mut Follower) -> bool {
        loop {
            match follower.next(self.now, self.last) {
                Next::Save(cursor) => {
                    self.kept = cursor;
                    follower.saved(cursor);
                }
                Next::Read(after) => {
                    let from = after.max(self.first);
                    let wanted: Vec<u64> = (from + 1..=self.last).filter(|id| id % 2 == 0).take(7).collect();
                    let is_last = wanted.len() < 7;
                    let through = if is_last { self.last } else { wanted[6] };
                    read(
                        follower,
                        Page { forgotten: self.first, is_last, ..page(&wanted, through) },
                        self.now,
                    );
                }
                Next::Deliver => return true,
                Next::Wait(Some(until)) => self.now = until,
                Next::Wait(None) => return false,
            }
        }
    }

    fn gives(&mut self, follower: &mut Follower, count: usize) {
        let count = count.min(follower.pending().len());
        for item in &follower.pending()[..count] {
            self.got.push(match item {
                Item::Event(event) => (event.id, event.id),
                Item::Gap(gap) => (gap.from, gap.to),
            });
        }
        follower.delivered(count, self.now);
    }
}

proptest! {
    /// Every event that is wanted arrives, in order and once, or is in a gap that is told; only a kill repeats some.
    #[test]
    fn nothing_is_lost_silently(happenings in happenings()) {
        let mut world = World::default();
        let mut follower = Follower::new(0);
        let mut since_kill = 0;
        for happens in happenings.into_iter().chain([Happens::Grows(2)]) {
            match happens {
                Happens::Grows(count) => world.last += u64::from(count),
                // The newest event is never forgotten.
                Happens::Forgets(count) => {
                    world.first = (world.first + u64::from(count)).min(world.last.saturating_sub(1));
                }
                Happens::Fails => if world.runs(&mut follower) {
                    follower.failed(again("x"), world.now);
                },
                Happens::Gives(count) => if world.runs(&mut follower) {
                    world.gives(&mut follower, count.into());
                },
                Happens::Killed => {
                    follower = Follower::new(world.kept);
                    since_kill = world.got.len();
                }
            }
            let orderly = world.got[since_kill..].windows(2).all(|pair| pair[0].1 < pair[1].0);
            prop_assert!(orderly, "{:?}", world.got);
        }
        while world.runs(&mut follower) {
            world.gives(&mut follower, 3);
        }
        prop_assert_eq!(follower.cursor(), world.last);
        for id in (1..=world.last).filter(|id| id % 2 == 0) {
            let got = world.got.iter().any(|(from, to)| (from..=to).contains(&&id));
            prop_assert!(got, "{} of {:?}", id, world.got);
        }
    }
}
