//! The injection's rules as cases, and its invariants over random histories.

use proptest::prelude::*;

use common::trust::KeyPair;

use super::*;

fn key(number: u8) -> PublicKey {
    KeyPair::from_secret([number; 32]).public()
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn full(len: u32) -> ChunkSet {
    let mut set = ChunkSet::new(len);
    (0..len).for_each(|chunk| {
        set.insert(ChunkIndex(chunk));
    });
    set
}

fn injector(len: u32) -> Injector {
    Injector::new(full(len), u64::from(len) << 20, 7)
}

fn join(injector: &mut Injector, agent: u8, site: &str, held: ChunkSet, now: Duration) -> Vec<Effect> {
    let (site, deltas) = (site.to_owned(), ChunkSet::new(0));
    injector.handle(Event::Joined { agent: key(agent), site, held, deltas, is_relay: false }, now)
}

fn leases(effects: &[Effect]) -> Vec<(PublicKey, ChunkIndex)> {
    effects
        .iter()
        .flat_map(|effect| match effect {
            Effect::Lease { agent, chunks } => chunks.iter().map(|chunk| (*agent, *chunk)).collect(),
            _ => vec![],
        })
        .collect()
}

/// Serves and announces every lease at once until there are none left; returns which agent got which chunk.
fn run(injector: &mut Injector, first: Vec<Effect>, now: Duration) -> Vec<(PublicKey, ChunkIndex)> {
    let (mut todo, mut done) = (std::collections::VecDeque::from(leases(&first)), Vec::new());
    while let Some((agent, chunk)) = todo.pop_front() {
        done.push((agent, chunk));
        let effects = injector.handle(Event::Have { agent, chunks: vec![chunk] }, now);
        todo.extend(leases(&effects));
    }
    done
}

#[test]
fn one_agent_alone_gets_everything_once() {
    let mut injector = injector(100);
    let first = join(&mut injector, 1, "a", ChunkSet::new(100), at(0));
    let got = run(&mut injector, first, at(1));
    let distinct: BTreeSet<ChunkIndex> = got.iter().map(|(_, chunk)| *chunk).collect();
    assert_eq!((got.len(), distinct.len()), (100, 100));
    assert!(!injector.lacking(&injector.agents[&key(1)]));
}

/// A delta is a fraction of its chunk, so where one agent can take it, no other is sent the chunk whole; in the order of
/// place, because its bases are overwritten in that order.
#[test]
fn who_can_take_a_delta_gets_the_chunk_and_the_others_the_rest() {
    for able in 1..4 {
        let mut injector = injector(60);
        let mut deltas = ChunkSet::new(60);
        (0..40).for_each(|chunk| {
            deltas.insert(ChunkIndex(chunk));
        });
        let mut first = vec![];
        for agent in 0..4 {
            let deltas = if agent < able { deltas.clone() } else { ChunkSet::new(0) };
            let (agent, site, held) = (key(agent + 1), "a".to_owned(), ChunkSet::new(60));
            first
                .extend(injector.handle(Event::Joined { agent, site, held, deltas, is_relay: false }, at(0)));
        }
        let got = run(&mut injector, first, at(1));
        assert_eq!(got.len(), 60, "each chunk once");
        let takers: BTreeSet<PublicKey> = (1..=able).map(key).collect();
        let wrong = got.iter().filter(|(agent, chunk)| chunk.0 < 40 && !takers.contains(agent));
        // The first leases were given before the others had joined, all of them to an able one.
        assert_eq!(wrong.count(), 0, "{able} of 4: {got:?}");
        let order: Vec<u32> = got.iter().map(|(_, chunk)| chunk.0).collect();
        let late = order.windows(2).filter(|pair| pair[1] + 8 < pair[0]).count();
        assert_eq!(late, 0, "{order:?}");
    }
}

/// An able agent that makes no progress loses its leases, and the chunks go whole to the others.
#[test]
fn a_silent_agent_that_could_take_deltas_holds_up_nobody() {
    let mut injector = injector(10);
    let (agent, site, held) = (key(1), "a".to_owned(), ChunkSet::new(10));
    injector.handle(Event::Joined { agent, site, held, deltas: full(10), is_relay: false }, at(0));
    assert!(leases(&join(&mut injector, 2, "a", ChunkSet::new(10), at(1))).is_empty());
    let mut given = vec![];
    for tick in 1..300 {
        given.extend(leases(&injector.handle(Event::Tick, at(tick * 100))));
    }
    assert!(given.iter().any(|(agent, _)| *agent == key(2)), "{given:?}");
}

#[test]
fn two_agents_get_half_each_and_each_chunk_leaves_once() {
    let mut injector = injector(100);
    let mut first = join(&mut injector, 1, "a", ChunkSet::new(100), at(0));
    first.extend(join(&mut injector, 2, "a", ChunkSet::new(100), at(0)));
    let got = run(&mut injector, first, at(1));
    let distinct: BTreeSet<ChunkIndex> = got.iter().map(|(_, chunk)| *chunk).collect();
    assert_eq!((got.len(), distinct.len()), (100, 100));
    let one = got.iter().filter(|(agent, _)| *agent == key(1)).count();
    assert!((40..=60).contains(&one), "{one}");
}

#[test]
fn a_relay_takes_the_first_copies_as_long_as_it_passes_them_on() {
    let relay = |injector: &mut Injector| {
        let (agent, site, held) = (key(9), "a".to_owned(), ChunkSet::new(100));
        injector.handle(Event::Joined { agent, site, held, deltas: ChunkSet::new(0), is_relay: true }, at(0))
    };
    let mut injector = injector(100);
    let mut first = join(&mut injector, 1, "a", ChunkSet::new(100), at(0));
    first.extend(relay(&mut injector));
    let got = run(&mut injector, first, at(1));
    let others = got.iter().filter(|(agent, _)| *agent != key(9)).count();
    assert!(got.len() == 100 && others <= SENDING_PER_SITE + 1, "{others} before it came");

    let mut slow = self::injector(100);
    let mut first = relay(&mut slow);
    first.extend(join(&mut slow, 1, "a", ChunkSet::new(100), at(0)));
    slow.sites.get_mut("a").unwrap().rate = 10_000_000;
    let report = |agent, sent| Event::Speed { agent: key(agent), sent, sending: at(1000), from_peers: 0 };
    first.extend(slow.handle(report(9, 5_000_000), at(500)));
    first.extend(slow.handle(report(1, 5_000_000), at(500)));
    let got = run(&mut slow, first, at(501));
    let others = got.iter().filter(|(agent, _)| *agent != key(9)).count();
    assert!((30..=70).contains(&others), "a line that is faster than it sends: {others}");
}

#[test]
fn a_late_joiner_is_leased_nothing_that_others_hold() {
    let mut injector = injector(10);
    join(&mut injector, 1, "a", full(10), at(0));
    assert_eq!(leases(&join(&mut injector, 2, "a", ChunkSet::new(10), at(1))), []);
    let other_site = join(&mut injector, 3, "b", ChunkSet::new(10), at(1));
    assert!(!leases(&other_site).is_empty(), "another site has nothing yet");
}

#[test]
fn a_lease_without_progress_goes_to_another() {
    let mut injector = injector(4);
    let first = leases(&join(&mut injector, 1, "a", ChunkSet::new(4), at(0)));
    assert_eq!(first.len(), 2);
    join(&mut injector, 2, "a", ChunkSet::new(4), at(10));
    let effects = injector.handle(Event::Tick, at(30_000));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Revoke { agent, .. } if *agent == key(1))));
    let second = leases(&effects);
    assert_eq!(second.len(), 2);
    assert!(second.iter().all(|(agent, _)| *agent == key(2)));
}

#[test]
fn a_sole_holder_that_leaves_is_replaced() {
    let mut injector = injector(10);
    let first = join(&mut injector, 1, "a", ChunkSet::new(10), at(0));
    assert_eq!(run(&mut injector, first, at(1)).len(), 10);
    assert_eq!(leases(&join(&mut injector, 2, "a", ChunkSet::new(10), at(2))), []);
    let effects = injector.handle(Event::Left { agent: key(1) }, at(3));
    assert_eq!(run(&mut injector, effects, at(3)).len(), 10);
}

#[test]
fn a_slow_uplink_is_not_chosen_while_others_can() {
    let mut injector = injector(64);
    let none = || ChunkSet::new(64);
    let mut first = join(&mut injector, 1, "a", none(), at(0));
    first.extend(join(&mut injector, 2, "a", none(), at(0)));
    first.extend(join(&mut injector, 3, "a", none(), at(0)));
    for (agent, sent) in [(1, 1_000_000), (2, 100_000_000), (3, 100_000_000)] {
        let (agent, sending) = (key(agent), at(1000));
        let event = Event::Speed { agent, sent, sending, from_peers: 0 };
        first.extend(injector.handle(event, at(1)));
    }
    let before = leases(&first).into_iter().filter(|(agent, _)| *agent == key(1)).count();
    let got = run(&mut injector, first, at(2));
    assert_eq!(got.len(), 64);
    assert_eq!(got.iter().filter(|(agent, _)| *agent == key(1)).count(), before);
}

#[test]
fn a_slow_uplink_is_spared_until_it_is_slow_no_more() {
    let mut injector = injector(2);
    let mut told = vec![];
    for agent in 1..=3 {
        told.extend(join(&mut injector, agent, "a", ChunkSet::new(2), at(0)));
    }
    let speed = |agent, sent| Event::Speed { agent: key(agent), sent, sending: at(1000), from_peers: 0 };
    let have = |chunk| Event::Have { agent: key(1), chunks: vec![ChunkIndex(chunk)] };
    let cases = [
        (speed(2, 16_000_000), None),
        (speed(3, 16_000_000), None),
        (speed(1, 2_100_000), None),
        // Its smoothed uplink is now below an eighth of the median.
        (speed(1, 1_000_000), Some(true)),
        (speed(1, 4_000_000), None),
        (speed(1, 8_000_000), Some(false)),
        (speed(1, 100_000), None),
        (speed(1, 100_000), Some(true)),
        (have(0), None),
        // A peer that requested its last chunk from this agent would wait for seconds, though others have it.
        (have(1), None),
    ];
    for (number, (event, spared)) in (1u64..).zip(cases) {
        let mut effects = injector.handle(event.clone(), at(number * 1000));
        effects.extend(injector.handle(Event::Tick, at(number * 1000)));
        effects.retain(|effect| matches!(effect, Effect::Spare { .. }));
        let wanted: Vec<Effect> =
            spared.into_iter().map(|spared| Effect::Spare { agent: key(1), spared }).collect();
        assert_eq!(effects, wanted, "{number}: {event:?}");
    }
}

#[test]
fn who_gets_nothing_from_peers_is_served_directly_in_the_end() {
    let mut injector = injector(100);
    join(&mut injector, 1, "a", full(100), at(0));
    join(&mut injector, 2, "a", ChunkSet::new(100), at(0));
    assert_eq!(leases(&injector.handle(Event::Tick, at(5_000))), []);
    assert_eq!(leases(&injector.handle(Event::Tick, at(6_000))).len(), 1, "one, to begin with");
    let effects = injector.handle(Event::Tick, at(15_000));
    assert!(effects.contains(&Effect::CutOff { agent: key(2) }));
    assert_eq!(run(&mut injector, effects, at(15_001)).len(), 99);
}

#[test]
fn whoever_was_alone_is_not_cut_off_when_a_neighbour_comes() {
    let mut injector = injector(10);
    let first = join(&mut injector, 1, "a", ChunkSet::new(10), at(0));
    // It waits for a server that cannot read any chunk, and has no peers.
    let mut lost = leases(&first);
    while let Some((agent, chunk)) = lost.pop() {
        lost.extend(leases(&injector.handle(Event::Failed { agent, chunk }, at(1))));
    }
    let cut_off = |injector: &mut Injector, millis: std::ops::Range<u64>| {
        let ticks = (millis.start / 500..millis.end / 500).map(|tick| at(500 * tick));
        let effects: Vec<Effect> = ticks.flat_map(|now| injector.handle(Event::Tick, now)).collect();
        effects.contains(&Effect::CutOff { agent: key(1) })
    };
    assert!(!cut_off(&mut injector, 500..40_000), "nobody is there");
    join(&mut injector, 2, "a", full(10), at(40_000));
    (0..10).for_each(|chunk| drop(injector.handle(Event::Mended(ChunkIndex(chunk)), at(40_000))));
    assert!(!cut_off(&mut injector, 40_000..54_500), "one has been there for less than it takes");
    assert!(cut_off(&mut injector, 54_500..56_500), "and gives nothing");
}

#[test]
fn chunks_of_an_accused_sender_do_not_count_but_an_accuser_of_all_is_not_believed() {
    let mut injector = injector(10);
    join(&mut injector, 1, "a", full(10), at(0));
    join(&mut injector, 2, "a", ChunkSet::new(10), at(0));
    let effects = injector.handle(Event::Corrupt { by: key(2), from: key(1) }, at(1));
    assert!(!leases(&effects).is_empty(), "the server gives what only the accused holds");

    let mut injector = self::injector(10);
    for agent in 1..=4 {
        join(&mut injector, agent, "a", full(10), at(0));
    }
    join(&mut injector, 5, "a", ChunkSet::new(10), at(0));
    let mut given = vec![];
    for from in 1..=4 {
        given.extend(injector.handle(Event::Corrupt { by: key(5), from: key(from) }, at(1)));
    }
    assert_eq!(leases(&given), []);
}

/// An agent that holds everything, served at 10 MB/s, and one that lacks everything, with nothing left to lease.
fn full_and_empty(uplink: Option<u64>) -> Injector {
    let mut injector = injector(100);
    let mut first = join(&mut injector, 1, "a", ChunkSet::new(100), at(0));
    injector.handle(Event::Sent { agent: key(1), bytes: 10_000_000 }, at(999));
    first.extend(injector.handle(Event::Tick, at(1000)));
    assert_eq!(run(&mut injector, first, at(1000)).len(), 100);
    join(&mut injector, 2, "a", ChunkSet::new(100), at(1000));
    if let Some(sent) = uplink {
        let event = Event::Speed { agent: key(1), sent, sending: at(1000), from_peers: 0 };
        injector.handle(event, at(3000));
    }
    injector.handle(Event::Speed { agent: key(2), sent: 0, sending: at(0), from_peers: TRICKLE }, at(3000));
    assert_eq!(leases(&injector.handle(Event::Tick, at(3000))), [], "its peer may do");
    injector
}

#[test]
fn what_is_stuck_at_a_weak_uplink_leaves_the_server_again() {
    for (uplink, helped) in [(Some(1_000_000), true), (None, true), (Some(2_000_000), false)] {
        let mut injector = full_and_empty(uplink);
        let effects = injector.handle(Event::Tick, at(8_500));
        assert_eq!(!leases(&effects).is_empty(), helped, "{uplink:?}");
        assert!(leases(&effects).iter().all(|(agent, _)| *agent == key(2)));
        check(&injector);
    }
}

#[test]
fn what_is_known_to_be_stuck_leaves_again_the_sooner_the_younger_the_image_is() {
    for (uplink, helped) in [(Some(1_000_000), true), (None, false), (Some(2_000_000), false)] {
        let mut injector = full_and_empty(uplink);
        let effects = injector.handle(Event::Tick, at(4_000));
        assert_eq!(!leases(&effects).is_empty(), helped, "{uplink:?}");
    }
}

#[test]
fn who_has_just_come_asks_its_peers_first_however_slow() {
    let mut injector = full_and_empty(Some(1_000_000));
    injector.handle(Event::Left { agent: key(2) }, at(98_000));
    injector.handle(Event::Tick, at(99_000));
    join(&mut injector, 3, "a", ChunkSet::new(100), at(100_000));
    assert_eq!(leases(&injector.handle(Event::Tick, at(104_000))), []);
    assert!(!leases(&injector.handle(Event::Tick, at(105_000))).is_empty());
}

#[test]
fn who_has_passed_nothing_on_gets_no_more_while_others_do() {
    let mut injector = injector(100);
    let mut first = join(&mut injector, 1, "a", ChunkSet::new(100), at(0));
    first.extend(join(&mut injector, 2, "a", ChunkSet::new(100), at(0)));
    let event = Event::Speed { agent: key(2), sent: 1 << 20, sending: at(500), from_peers: 0 };
    first.extend(injector.handle(event, at(2000)));
    // Its first leases, those until it alone holds four chunks, and three rescues. Without the rule it would get half
    // of all.
    let got = run(&mut injector, first, at(6000));
    assert!(got.iter().filter(|(agent, _)| *agent == key(1)).count() <= 15);
    let distinct: BTreeSet<ChunkIndex> = got.iter().map(|(_, chunk)| *chunk).collect();
    assert_eq!(distinct.len(), 100);
}

#[test]
fn who_lied_is_not_believed_when_it_comes_again() {
    let mut injector = injector(10);
    join(&mut injector, 1, "a", ChunkSet::new(10), at(0));
    // The accusation comes before the accused joins, as after a restart of the server.
    injector.handle(Event::Corrupt { by: key(1), from: key(2) }, at(1));
    for round in 0..2 {
        let given = leases(&join(&mut injector, 2, "a", full(10), at(2 + round)));
        assert!(injector.sites["a"].copies.iter().all(|copies| *copies == 0), "{given:?}");
        injector.handle(Event::Left { agent: key(2) }, at(3 + round));
    }
}

#[derive(Debug, Clone)]
enum Act {
    Join(u8, bool, Vec<u32>),
    Leave(u8),
    Have(u8, u32),
    Serve(usize),
    Fail(usize),
    Mend(u32),
    Accuse(u8, u8),
    Pass(u16),
}

fn act() -> impl Strategy<Value = Act> {
    let who = 1u8..6;
    prop_oneof![
        (who.clone(), any::<bool>(), proptest::collection::vec(0u32..30, 0..10))
            .prop_map(|(who, site, held)| Act::Join(who, site, held)),
        who.clone().prop_map(Act::Leave),
        (who.clone(), 0u32..33).prop_map(|(who, chunk)| Act::Have(who, chunk)),
        any::<usize>().prop_map(Act::Serve),
        any::<usize>().prop_map(Act::Fail),
        (who.clone(), who).prop_map(|(by, from)| Act::Accuse(by, from)),
        (0u32..30).prop_map(Act::Mend),
        any::<u16>().prop_map(Act::Pass),
    ]
}

fn play(acts: &[Act]) -> Vec<Effect> {
    let mut injector = injector(30);
    let (mut now, mut trace, mut out) = (at(0), Vec::new(), Vec::new());
    for act in acts {
        let event = match act.clone() {
            Act::Join(agent, site, picks) => {
                let mut held = ChunkSet::new(30);
                picks.into_iter().for_each(|pick| {
                    held.insert(ChunkIndex(pick));
                });
                let site = if site { "a" } else { "b" }.to_owned();
                let deltas = ChunkSet::new(0);
                Event::Joined { agent: key(agent), site, held, deltas, is_relay: agent == 1 }
            }
            Act::Leave(agent) => Event::Left { agent: key(agent) },
            Act::Have(agent, chunk) => Event::Have { agent: key(agent), chunks: vec![ChunkIndex(chunk)] },
            Act::Serve(_) | Act::Fail(_) if out.is_empty() => Event::Tick,
            Act::Serve(which) => {
                let (agent, chunk) = out.swap_remove(which % out.len());
                Event::Have { agent, chunks: vec![chunk] }
            }
            Act::Fail(which) => {
                let (agent, chunk) = out.swap_remove(which % out.len());
                Event::Failed { agent, chunk }
            }
            Act::Mend(chunk) => Event::Mended(ChunkIndex(chunk)),
            Act::Accuse(by, from) => Event::Corrupt { by: key(by), from: key(from) },
            Act::Pass(millis) => {
                now += at(u64::from(millis) / 4);
                Event::Tick
            }
        };
        let effects = injector.handle(event, now);
        assert!(
            leases(&effects).iter().all(|(_, chunk)| !injector.lost.contains(*chunk)),
            "a lost one is leased"
        );
        out.extend(leases(&effects));
        trace.extend(effects);
        check(&injector);
    }
    trace
}

fn check(injector: &Injector) {
    for (name, site) in &injector.sites {
        let here = || injector.agents.values().filter(|agent| agent.site == *name);
        assert_eq!(site.agents, here().count());
        assert_eq!(site.open.iter().collect::<BTreeSet<_>>().len(), site.open.len(), "each is listed once");
        assert_eq!(site.open.len(), site.listed.count() as usize);
        for chunk in injector.wanted.iter() {
            let copies = here().filter(|agent| agent.trusted && agent.held.contains(chunk)).count();
            assert_eq!(site.copies[chunk.at()] as usize, copies, "copies of {chunk:?} at {name}");
            let leases = here().filter(|agent| agent.leases.contains(&chunk)).count();
            assert!(leases <= 1, "{chunk:?} is leased {leases} times at {name}");
            assert_eq!(site.leased.contains(chunk), leases == 1);
            let somewhere =
                copies > 0 || leases > 0 || site.open.contains(&chunk) || injector.lost.contains(chunk);
            assert!(somewhere, "{chunk:?} is lost at {name}");
        }
    }
    for agent in injector.agents.values().filter(|agent| agent.trusted) {
        let copies = &injector.sites[&agent.site].copies;
        let sole = agent.held.iter().filter(|chunk| copies[chunk.at()] == 1).count();
        assert_eq!(agent.sole, sole);
        assert!(agent.leases.iter().all(|chunk| !agent.held.contains(*chunk)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn no_chunk_is_lost_or_leased_twice(acts in proptest::collection::vec(act(), 0..120)) {
        let trace = play(&acts);
        prop_assert_eq!(trace, play(&acts), "same seed, same trace");
    }
}
