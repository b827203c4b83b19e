//! The scheduler's rules as cases, and its invariants over random histories.

use std::collections::BTreeSet;

use proptest::prelude::*;

use common::trust::KeyPair;

use super::faults::SILENCE;
use super::*;

fn key(number: u8) -> PublicKey {
    KeyPair::from_secret([number; 32]).public()
}

const SEED: u8 = 200;

fn set(len: u32, chunks: impl IntoIterator<Item = u32>) -> ChunkSet {
    let mut set = ChunkSet::new(len);
    chunks.into_iter().for_each(|chunk| {
        set.insert(ChunkIndex(chunk));
    });
    set
}

fn scheduler(len: u32, parallel: usize) -> Scheduler {
    Scheduler::new(key(SEED), &set(len, 0..len), parallel, 1)
}

fn up(scheduler: &mut Scheduler, from: u8, chunks: impl IntoIterator<Item = u32>) {
    let held = set(scheduler.missing.len(), chunks);
    scheduler.handle(Event::Up { from: key(from), held }, at(0));
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn all(scheduler: &mut Scheduler, now: Duration) -> Vec<Request> {
    std::iter::from_fn(|| scheduler.next_request(now)).collect()
}

fn fetch(scheduler: &mut Scheduler, request: Request, now: Duration) -> Vec<Effect> {
    assert!(scheduler.arrived(request.from, request.chunk, now));
    scheduler.handle(Event::Verified { chunk: request.chunk }, now)
}

#[test]
fn the_rarest_is_asked_for_first() {
    let mut scheduler = scheduler(4, 1);
    up(&mut scheduler, 1, 0..4);
    up(&mut scheduler, 2, [0, 1, 3]);
    let first = scheduler.next_request(at(0));
    assert_eq!(first, Some(Request { from: key(1), chunk: ChunkIndex(2) }));
    assert_eq!(scheduler.next_request(at(0)), None, "one at a time");
}

#[test]
fn the_server_is_asked_for_leases_alone_and_for_them_first() {
    let mut scheduler = scheduler(4, 8);
    up(&mut scheduler, SEED, 0..4);
    assert_eq!(scheduler.next_request(at(0)), None);
    up(&mut scheduler, 1, 0..4);
    scheduler.handle(Event::Leased(vec![ChunkIndex(3)]), at(0));
    let first = scheduler.next_request(at(0));
    assert_eq!(first, Some(Request { from: key(SEED), chunk: ChunkIndex(3) }));
    assert!(all(&mut scheduler, at(0)).iter().all(|request| request.from == key(1)));
}

#[test]
fn a_revoked_lease_is_not_asked_for() {
    let mut scheduler = scheduler(4, 8);
    up(&mut scheduler, SEED, []);
    scheduler.handle(Event::Leased(vec![ChunkIndex(1), ChunkIndex(2)]), at(0));
    scheduler.handle(Event::Revoked(vec![ChunkIndex(1)]), at(0));
    assert_eq!(all(&mut scheduler, at(0)), [Request { from: key(SEED), chunk: ChunkIndex(2) }]);
}

#[test]
fn who_is_spared_is_asked_only_for_what_nobody_else_holds() {
    let mut scheduler = scheduler(4, 8);
    up(&mut scheduler, 1, [0, 1]);
    let asked = all(&mut scheduler, at(0));
    assert!(asked.len() == 2 && asked.iter().all(|request| request.from == key(1)));
    up(&mut scheduler, 2, [1, 3]);
    let spared = scheduler.handle(Event::Spare([key(1)].into()), at(1));
    assert_eq!(spared, [Effect::Cancel { from: key(1), chunk: ChunkIndex(1) }], "another holds it");
    let asked: BTreeSet<u32> = all(&mut scheduler, at(1))
        .iter()
        .map(|request| {
            assert_eq!(request.from, key(2));
            request.chunk.0
        })
        .collect();
    assert_eq!(asked, [1, 3].into());
    // The chunk was on its way already, and is as good as the other neighbour's.
    let late = Request { from: key(1), chunk: ChunkIndex(1) };
    assert_eq!(fetch(&mut scheduler, late, at(2)), [Effect::Cancel { from: key(2), chunk: ChunkIndex(1) }]);
    // Chunks that nobody else holds are requested from it; requests for chunks that others come to hold are cancelled.
    scheduler.handle(Event::Have { from: key(1), chunks: vec![ChunkIndex(2)] }, at(3));
    assert_eq!(all(&mut scheduler, at(3)), [Request { from: key(1), chunk: ChunkIndex(2) }]);
    scheduler.handle(Event::Have { from: key(2), chunks: vec![ChunkIndex(2)] }, at(4));
    let taken_back = scheduler.handle(Event::Tick, at(4));
    assert_eq!(taken_back, [Effect::Cancel { from: key(1), chunk: ChunkIndex(2) }]);
    assert!(all(&mut scheduler, at(4)).contains(&Request { from: key(2), chunk: ChunkIndex(2) }));
}

#[test]
fn a_neighbour_that_sent_two_wrong_chunks_is_asked_nothing_more() {
    let mut scheduler = scheduler(8, 8);
    up(&mut scheduler, 1, 0..8);
    up(&mut scheduler, 2, 0..8);
    let mut wrong = 0;
    while wrong < 2 {
        let Some(request) = scheduler.next_request(at(0)) else { panic!("nothing to ask") };
        if request.from == key(1) {
            assert!(scheduler.arrived(request.from, request.chunk, at(1)));
            let effects =
                scheduler.handle(Event::Corrupt { from: request.from, chunk: request.chunk }, at(1));
            wrong += 1;
            assert_eq!(effects.contains(&Effect::Quarantined { from: key(1) }), wrong == 2);
        }
    }
    up(&mut scheduler, 1, 0..8);
    let mut got = BTreeSet::new();
    for step in 0..100 {
        for request in all(&mut scheduler, at(step)) {
            assert_eq!(request.from, key(2));
            fetch(&mut scheduler, request, at(step));
            got.insert(request.chunk);
        }
        if scheduler.complete() {
            break;
        }
        // Requests that were open when the test began.
        for chunk in scheduler.flights.keys().copied().collect::<Vec<_>>() {
            fetch(&mut scheduler, Request { from: key(2), chunk }, at(step));
        }
    }
    assert!(scheduler.complete());
}

#[test]
fn the_last_chunks_are_asked_for_twice_when_their_source_is_silent_and_the_loser_is_told() {
    let mut scheduler = scheduler(1, 8);
    up(&mut scheduler, 1, [0]);
    let first = scheduler.next_request(at(0)).unwrap();
    up(&mut scheduler, 2, [0]);
    up(&mut scheduler, 3, [0]);
    assert_eq!(scheduler.next_request(at(1999)), None);
    let second = scheduler.next_request(at(2000)).unwrap();
    assert_ne!(second.from, first.from);
    assert_eq!(scheduler.next_request(at(5000)), None, "never a third time");
    let effects = fetch(&mut scheduler, second, at(2500));
    assert_eq!(effects, [Effect::Cancel { from: first.from, chunk: ChunkIndex(0) }]);
    assert_eq!(scheduler.in_flight(), 0);
    assert!(scheduler.complete());
}

#[test]
fn a_silent_source_is_given_up_and_its_chunks_go_elsewhere() {
    let mut scheduler = scheduler(2, 8);
    up(&mut scheduler, 1, 0..2);
    assert_eq!(all(&mut scheduler, at(0)).len(), 2);
    scheduler.handle(Event::Moved { from: key(1) }, at(3000));
    assert_eq!(scheduler.handle(Event::Tick, at(3000) + SILENCE - at(1)), []);
    let effects = scheduler.handle(Event::Tick, at(3000) + SILENCE);
    assert_eq!(effects, [Effect::Reset { from: key(1) }]);
    up(&mut scheduler, 2, 0..2);
    assert_eq!(all(&mut scheduler, at(9001)).len(), 2);
}

#[test]
fn a_chunk_that_was_refused_is_asked_for_again_after_a_while() {
    let mut scheduler = scheduler(1, 8);
    up(&mut scheduler, 1, [0]);
    let request = scheduler.next_request(at(0)).unwrap();
    scheduler.handle(Event::Unavailable { from: request.from, chunk: request.chunk }, at(1));
    scheduler.handle(Event::Tick, at(1000));
    assert_eq!(scheduler.next_request(at(1000)), None);
    scheduler.handle(Event::Tick, at(1001));
    assert_eq!(scheduler.next_request(at(1001)), Some(request));
}

#[test]
fn who_does_nothing_but_refuse_is_believed_no_more() {
    let mut scheduler = scheduler(4, 8);
    up(&mut scheduler, 1, 0..4);
    let mut effects = vec![];
    let mut refused = 0;
    for step in 0..200 {
        effects.extend(scheduler.handle(Event::Tick, at(step * 100)));
        for Request { from, chunk } in all(&mut scheduler, at(step * 100)) {
            effects.extend(scheduler.handle(Event::Unavailable { from, chunk }, at(step * 100)));
            refused += 1;
        }
    }
    assert_eq!(effects, [Effect::Hollow { from: key(1) }], "after {refused} refusals");
    // Chunks that it announces anew are requested; once it sends one, its refusals are forgotten.
    scheduler.handle(Event::Have { from: key(1), chunks: vec![ChunkIndex(2), ChunkIndex(3)] }, at(30_000));
    let asked = all(&mut scheduler, at(30_000));
    assert_eq!(asked.len(), 2);
    fetch(&mut scheduler, asked[0], at(30_000));
    let refusal = Event::Unavailable { from: key(1), chunk: asked[1].chunk };
    assert_eq!(scheduler.handle(refusal, at(60_000)), []);
}

#[test]
fn what_is_found_on_the_disk_is_not_fetched() {
    let mut scheduler = scheduler(3, 1);
    up(&mut scheduler, 1, 0..3);
    let request = scheduler.next_request(at(0)).unwrap();
    let effects = scheduler.handle(Event::Found((0..3).map(ChunkIndex).collect()), at(1));
    assert_eq!(effects, [Effect::Cancel { from: key(1), chunk: request.chunk }]);
    assert!(scheduler.complete());
    assert!(!scheduler.arrived(key(1), request.chunk, at(2)), "no longer wanted");
}

#[derive(Debug, Clone)]
enum Act {
    Up(u8, Vec<u32>),
    Have(u8, u32),
    Gone(u8),
    Lease(u32),
    Revoke(u32),
    Ask(u8),
    Arrive(usize, bool),
    Refuse(usize),
    Found(u32),
    Spare(Vec<u8>),
    Pass(u16),
}

fn act() -> impl Strategy<Value = Act> {
    let who = prop_oneof![0u8..4, Just(SEED)];
    let chunk = 0u32..48;
    prop_oneof![
        (who.clone(), proptest::collection::vec(0u32..40, 0..40)).prop_map(|(who, held)| Act::Up(who, held)),
        (who.clone(), chunk.clone()).prop_map(|(who, chunk)| Act::Have(who, chunk)),
        who.prop_map(Act::Gone),
        chunk.clone().prop_map(Act::Lease),
        chunk.clone().prop_map(Act::Revoke),
        (1u8..9).prop_map(Act::Ask),
        (any::<usize>(), any::<bool>()).prop_map(|(at, good)| Act::Arrive(at, good)),
        any::<usize>().prop_map(Act::Refuse),
        chunk.prop_map(Act::Found),
        proptest::collection::vec(0u8..4, 0..4).prop_map(Act::Spare),
        any::<u16>().prop_map(Act::Pass),
    ]
}

/// Plays `acts` and checks the invariants after each; returns the requests in order.
fn play(acts: &[Act]) -> Vec<Request> {
    const LEN: u32 = 40;
    const PARALLEL: usize = 6;
    let mut scheduler = scheduler(LEN, PARALLEL);
    let (mut now, mut trace, mut out) = (at(0), Vec::new(), Vec::<Request>::new());
    for act in acts {
        let event = match act.clone() {
            Act::Up(from, held) => Event::Up { from: key(from), held: set(LEN, held) },
            Act::Have(from, chunk) => Event::Have { from: key(from), chunks: vec![ChunkIndex(chunk)] },
            Act::Gone(from) => Event::Gone { from: key(from) },
            Act::Lease(chunk) => Event::Leased(vec![ChunkIndex(chunk)]),
            Act::Revoke(chunk) => Event::Revoked(vec![ChunkIndex(chunk)]),
            Act::Found(chunk) => Event::Found(vec![ChunkIndex(chunk)]),
            Act::Spare(who) => Event::Spare(who.into_iter().map(key).collect()),
            Act::Ask(times) => {
                for request in (0..times).filter_map(|_| scheduler.next_request(now)) {
                    trace.push(request);
                    out.push(request);
                }
                Event::Tick
            }
            Act::Arrive(..) | Act::Refuse(_) if out.is_empty() => Event::Tick,
            Act::Arrive(which, good) => {
                let request = out.swap_remove(which % out.len());
                match scheduler.arrived(request.from, request.chunk, now) {
                    false => Event::Tick,
                    true if good => Event::Verified { chunk: request.chunk },
                    true => Event::Corrupt { from: request.from, chunk: request.chunk },
                }
            }
            Act::Refuse(which) => {
                let request = out.swap_remove(which % out.len());
                Event::Unavailable { from: request.from, chunk: request.chunk }
            }
            Act::Pass(millis) => {
                now += at(u64::from(millis) / 8);
                Event::Tick
            }
        };
        scheduler.handle(event, now);
        check(&scheduler, PARALLEL);
    }
    trace
}

fn check(scheduler: &Scheduler, parallel: usize) {
    for chunk in (0..scheduler.missing.len()).map(ChunkIndex) {
        let states = [
            scheduler.missing.contains(chunk),
            scheduler.flights.contains_key(&chunk),
            scheduler.verified.contains(chunk),
        ];
        assert_eq!(states.iter().filter(|state| **state).count(), 1, "chunk {chunk:?} is in one state");
        let holders = scheduler
            .sources
            .iter()
            .filter(|(from, source)| source.held.contains(chunk) && !scheduler.quarantined(from));
        assert_eq!(usize::from(scheduler.copies[chunk.at()]), holders.count(), "copies of {chunk:?}");
    }
    let flights: usize = scheduler.flights.values().map(Vec::len).sum();
    assert_eq!(flights, scheduler.in_flight());
    assert!(flights <= parallel);
    for (from, source) in &scheduler.sources {
        assert!(*from == scheduler.seed || source.asked.len() <= *PER_PEER.end());
        for chunk in &source.asked {
            let flights = &scheduler.flights[chunk];
            assert!(flights.len() <= 2 && flights.iter().any(|flight| flight.from == *from));
        }
    }
}

proptest! {
    #[test]
    fn every_chunk_is_in_one_state_whatever_happens(acts in proptest::collection::vec(act(), 0..200)) {
        let trace = play(&acts);
        prop_assert_eq!(trace, play(&acts), "same seed, same trace");
    }

    #[test]
    fn it_finishes_when_one_honest_neighbour_stays(
        acts in proptest::collection::vec(act(), 0..80), rng_seed in any::<u64>()
    ) {
        drop(play(&acts));
        let mut scheduler = Scheduler::new(key(SEED), &set(40, 0..40), 6, rng_seed);
        up(&mut scheduler, 9, 0..40);
        for step in 0..40 {
            for request in all(&mut scheduler, at(step)) {
                fetch(&mut scheduler, request, at(step));
            }
        }
        prop_assert!(scheduler.complete());
    }
}
