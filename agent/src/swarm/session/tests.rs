//! The session's decisions, one by one: whom it dials and blames, what it tells, when it gives up and stops serving.

use common::id::{Hash, JobId};
use common::trust::KeyPair;
use common::wire::call_home::SeedMark;
use common::wire::swarm::{Member, Personality, ToAgent};

use super::*;
use crate::swarm::verify::NotTheChunk;

// What it reports, and how often.
mod reports;

const SEED: u8 = 1;
const OWN: u8 = 2;
const CHUNKS: u32 = 8;
const FAR: &str = "/ip4/10.0.0.9/tcp/4001";

fn key(number: u8) -> PublicKey {
    KeyPair::from_secret([number; 32]).public()
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn chunks(list: &[u32]) -> Vec<ChunkIndex> {
    list.iter().copied().map(ChunkIndex).collect()
}

fn set(list: impl IntoIterator<Item = u32>) -> ChunkSet {
    let mut set = ChunkSet::new(CHUNKS);
    list.into_iter().for_each(|chunk| {
        set.insert(ChunkIndex(chunk));
    });
    set
}

fn neighbour(number: u8, addresses: &[&str]) -> Neighbour {
    Neighbour {
        key: key(number),
        name: format!("m{number}"),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        spared: false,
    }
}

fn welcome() -> ToAgent {
    ToAgent::Welcome {
        personality: Some(Personality {
            hostname: "m2".to_owned(),
            ssh_keys: vec![],
            user_data: None,
            instance_id: String::new(),
            confirm_url: None,
            seed_mark: SeedMark::default(),
            boot_mac: None,
            hooks: None,
        }),
    }
}

fn notes(effects: &[Effect]) -> Vec<&str> {
    let found = effects.iter().filter_map(|effect| match effect {
        Effect::Tell(SwarmEvent::Note(text)) => Some(text.as_str()),
        _ => None,
    });
    found.collect()
}

fn told(effects: &[Effect]) -> Vec<&SwarmEvent> {
    let found = effects.iter().filter_map(|effect| match effect {
        Effect::Tell(event) => Some(event),
        _ => None,
    });
    found.collect()
}

fn said(effects: &[Effect]) -> Vec<&ToServer> {
    let found = effects.iter().filter_map(|effect| match effect {
        Effect::Say { word, .. } => Some(word),
        _ => None,
    });
    found.collect()
}

fn dialled(effects: &[Effect]) -> Vec<(Dial, PublicKey, Protocol)> {
    let dialled = |effect: &Effect| match effect {
        Effect::Dial { dial, to, protocol, .. } => Some((*dial, *to, *protocol)),
        _ => None,
    };
    effects.iter().filter_map(dialled).collect()
}

fn asked(effects: &[Effect]) -> Vec<(Dial, ChunkIndex)> {
    let asked = |effect: &Effect| match effect {
        Effect::Ask { dial, chunk } => Some((*dial, *chunk)),
        _ => None,
    };
    effects.iter().filter_map(asked).collect()
}

/// A session, and the dial of its control stream.
struct Agent {
    session: Session,
    control: Dial,
}

impl Agent {
    /// A session whose control stream opened at the time zero.
    fn new() -> Self {
        let mut session = Session::new(SessionConfig {
            own: key(OWN),
            seed: key(SEED),
            seed_addresses: vec!["/ip4/10.0.0.1/tcp/4001".parse().unwrap()],
            listening: vec!["/ip4/10.0.0.2/tcp/4001".to_owned()],
            member: Member::Job(JobId(7)),
            image: ImageId(Hash([3; 32])),
            wanted: set(0..CHUNKS),
            deltas: ChunkSet::new(0),
            fetch_parallel: 16,
            upload_parallel: 4,
            write_backlog: 2,
            cores: 1,
            rng_seed: 5,
        });
        let effects = session.handle(Event::Tick(Load::default()), at(0));
        let [(control, to, Protocol::Control)] = dialled(&effects)[..] else { panic!("{effects:?}") };
        assert_eq!(to, key(SEED));
        session.handle(Event::Opened(control), at(0));
        Self { session, control }
    }

    /// A session that was welcomed and told to start.
    fn started() -> Self {
        let mut agent = Self::new();
        agent.hears(welcome(), 0);
        agent.hears(ToAgent::Start, 0);
        agent
    }

    /// A session that found every chunk on its disk, and has sealed the disk.
    fn sealed() -> Self {
        let mut agent = Self::started();
        agent.session.handle(Event::OnDisk(set(0..CHUNKS).iter().collect()), at(0));
        agent.session.handle(Event::Sealed, at(0));
        agent
    }

    fn hears(&mut self, word: ToAgent, now: u64) -> Vec<Effect> {
        self.session.handle(Event::Server { dial: self.control, word }, at(now))
    }

    fn tick(&mut self, now: u64) -> Vec<Effect> {
        self.session.handle(Event::Tick(Load::default()), at(now))
    }

    /// Is given this list of neighbours, and opens a stream to each that it dials.
    fn meets(&mut self, list: Vec<Neighbour>, now: u64) -> Vec<Dial> {
        self.hears(ToAgent::Neighbours { list, spared: false }, now);
        let dials = dialled(&self.tick(now));
        let pulls = dials.into_iter().filter(|(_, to, _)| *to != key(SEED));
        let dials: Vec<Dial> = pulls.map(|(dial, ..)| dial).collect();
        for dial in &dials {
            self.session.handle(Event::Opened(*dial), at(now));
        }
        dials
    }

    fn pulls(&mut self, from: u8, dial: Dial, word: Pulled, now: u64) -> Vec<Effect> {
        self.session.handle(Event::Pulled { from: key(from), dial, word }, at(now))
    }

    /// A chunk that was requested came, and passes its check.
    fn gets(&mut self, from: u8, dial: Dial, chunk: ChunkIndex, now: u64) -> Vec<Effect> {
        let arrived = self.pulls(from, dial, Pulled::Arrived { chunk, bytes: 10 }, now);
        assert!(arrived.contains(&Effect::Check { from: key(from), chunk }), "{arrived:?}");
        self.session.handle(Event::Verified { from: key(from), chunk, bytes: 10 }, at(now))
    }
}

#[test]
fn it_meets_whom_the_server_names_and_can_be_reached() {
    let many: Vec<&str> = vec![FAR; 40];
    // Name, the list, who is admitted, who is dialled for chunks.
    type Row<'a> = (&'a str, Vec<Neighbour>, &'a [u8], &'a [u8]);
    let cases: [Row; 6] = [
        ("nobody", vec![], &[], &[]),
        ("two", vec![neighbour(4, &[FAR]), neighbour(5, &[FAR])], &[4, 5], &[4, 5]),
        ("itself and the server", vec![neighbour(OWN, &[FAR]), neighbour(SEED, &[FAR])], &[], &[]),
        ("one who listens nowhere", vec![neighbour(4, &[])], &[4], &[]),
        ("one whose address is none", vec![neighbour(4, &["rack 4"])], &[4], &[]),
        ("one with many addresses", vec![neighbour(4, &many)], &[4], &[4]),
    ];
    let sorted = |list: &[u8]| {
        let mut keys: Vec<PublicKey> = list.iter().copied().map(key).collect();
        keys.sort_unstable();
        keys
    };
    for (what, list, let_in, called) in cases {
        let mut agent = Agent::started();
        let effects = agent.hears(ToAgent::Neighbours { list, spared: false }, 10);
        assert!(effects.contains(&Effect::Allow(sorted(let_in))), "{what}: {effects:?}");
        let effects = agent.tick(50);
        let peers = dialled(&effects).into_iter().filter(|(_, to, _)| *to != key(SEED));
        assert_eq!(peers.map(|(_, to, _)| to).collect::<Vec<_>>(), sorted(called), "{what}");
        let addresses = effects.iter().find_map(|effect| match effect {
            Effect::Dial { to, addresses, .. } if *to == key(4) => Some(addresses.len()),
            _ => None,
        });
        assert!(addresses.is_none_or(|count| count <= 16), "{what}: {addresses:?}");
    }
}

#[test]
fn who_is_named_no_more_is_let_go_and_what_was_asked_there_is_asked_elsewhere() {
    let mut agent = Agent::started();
    let dials = agent.meets(vec![neighbour(4, &[FAR])], 50);
    let effects = agent.pulls(4, dials[0], Pulled::Holding(set([0])), 60);
    assert_eq!(asked(&effects), [(dials[0], ChunkIndex(0))]);
    let list = vec![neighbour(5, &[FAR])];
    let effects = agent.hears(ToAgent::Neighbours { list, spared: false }, 70);
    assert!(effects.contains(&Effect::Close(dials[0])), "{effects:?}");
    assert!(!agent.session.awaits(dials[0]));
    let late = Pulled::Arrived { chunk: ChunkIndex(0), bytes: 10 };
    assert_eq!(agent.pulls(4, dials[0], late, 75), [], "an older stream's words count no more");
    let (dial, ..) = dialled(&agent.tick(100))[0];
    agent.session.handle(Event::Opened(dial), at(110));
    let effects = agent.pulls(5, dial, Pulled::Holding(set([0])), 120);
    assert_eq!(asked(&effects), [(dial, ChunkIndex(0))]);
}

#[test]
fn who_is_of_no_use_is_named_once_and_the_server_never() {
    let ended = |broken| Pulled::Ended { cause: "no CBOR".to_owned(), broken };
    let bad = |number| Event::BadPuller { key: key(number), cause: "no CBOR".to_owned() };
    type Act = Box<dyn Fn(&mut Agent, Dial) -> Vec<Effect>>;
    let cases: [(&str, Act, Option<&str>); 6] = [
        (
            "its stream breaks the protocol",
            Box::new(move |agent, dial| agent.pulls(4, dial, ended(true), 100)),
            Some("m4 breaks the protocol: no CBOR"),
        ),
        ("its stream ends", Box::new(move |agent, dial| agent.pulls(4, dial, ended(false), 100)), None),
        (
            "its requests break the protocol",
            Box::new(move |agent, _| agent.session.handle(bad(4), at(100))),
            Some("m4 breaks the protocol: no CBOR"),
        ),
        ("the server's do", Box::new(move |agent, _| agent.session.handle(bad(SEED), at(100))), None),
        (
            "it sends nothing that it was asked for",
            Box::new(|agent, dial| {
                agent.pulls(4, dial, Pulled::Holding(set([0])), 100);
                agent.tick(6200)
            }),
            Some("m4 moves nothing, and is dialled again"),
        ),
        (
            "it takes no requests",
            Box::new(|agent, dial| agent.session.handle(Event::NotAsked(dial), at(100))),
            None,
        ),
    ];
    for (what, act, expected) in cases {
        let mut agent = Agent::started();
        let dials = agent.meets(vec![neighbour(4, &[FAR])], 50);
        let effects = act(&mut agent, dials[0]);
        assert_eq!(notes(&effects), Vec::from_iter(expected), "{what}");
        if expected.is_some() {
            assert!(notes(&agent.session.handle(bad(4), at(7000))).is_empty(), "{what}: twice");
        }
    }
}

#[test]
fn a_neighbour_that_cannot_be_reached_is_named_after_the_fifth_try() {
    let mut agent = Agent::started();
    let list = vec![neighbour(4, &[FAR])];
    agent.hears(ToAgent::Neighbours { list, spared: false }, 0);
    let (mut now, mut said) = (0, vec![]);
    for _ in 0..8 {
        for (dial, to, _) in dialled(&agent.tick(now)) {
            if to == key(4) {
                let cause = "no route".to_owned();
                let effects = agent.session.handle(Event::Failed { dial, cause }, at(now));
                said.push(notes(&effects).iter().map(ToString::to_string).collect::<Vec<_>>());
            }
        }
        now += 5000;
    }
    let named = vec!["m4 cannot be reached: no route".to_owned()];
    assert_eq!(said, [vec![], vec![], vec![], vec![], named, vec![], vec![], vec![]]);
}

#[test]
fn the_log_hears_once_that_the_server_is_gone_and_that_it_is_back() {
    let mut agent = Agent::started();
    let cause = "it closed the line".to_owned();
    let effects = agent.session.handle(Event::Failed { dial: agent.control, cause: cause.clone() }, at(100));
    let gone = "the server cannot be reached, and is dialled again and again: it closed the line";
    assert_eq!(notes(&effects), [gone]);
    let again = |agent: &mut Agent, now| {
        let list = dialled(&agent.tick(now));
        let (dial, ..) = *list.iter().find(|(.., protocol)| *protocol == Protocol::Control).unwrap();
        dial
    };
    let dial = again(&mut agent, 1000);
    assert!(notes(&agent.session.handle(Event::Failed { dial, cause }, at(1000))).is_empty());
    agent.control = again(&mut agent, 9000);
    let effects = agent.session.handle(Event::Opened(agent.control), at(9000));
    assert!(matches!(said(&effects)[..], [ToServer::Hello { started: true, .. }]));
    assert_eq!(notes(&agent.hears(welcome(), 9100)), ["the server is back"]);
    assert!(notes(&agent.hears(ToAgent::Heard, 9200)).is_empty());
}

#[test]
fn it_despairs_when_nobody_is_there_any_more() {
    let minutes = |count: u64| count * 60_000;
    let gone = |agent: &mut Agent| {
        let cause = "gone".to_owned();
        agent.session.handle(Event::Failed { dial: agent.control, cause }, at(0));
    };
    let nothing = |_: &mut Agent| {};
    let pulled_from = |agent: &mut Agent| {
        let load = Load { uploaded: 10, ..Load::default() };
        let cause = "gone".to_owned();
        agent.session.handle(Event::Failed { dial: agent.control, cause }, at(0));
        agent.session.handle(Event::Tick(load), at(30_000));
    };
    type Row<'a> = (&'a str, fn() -> Agent, &'a dyn Fn(&mut Agent), u64, Option<SwarmEvent>);
    let broken =
        || SwarmEvent::Broken("neither the server nor a peer was heard of for 10 minutes".to_owned());
    let cases: [Row; 7] = [
        ("fetching, nine minutes alone", Agent::started, &nothing, minutes(10) - 1, None),
        ("fetching, ten minutes alone", Agent::started, &nothing, minutes(10), Some(broken())),
        ("not let in for ten minutes", Agent::new, &gone, minutes(10), Some(broken())),
        ("sealed, the server there", Agent::sealed, &nothing, minutes(10), None),
        ("sealed, the server gone a moment ago", Agent::sealed, &gone, minutes(1) - 1, None),
        ("sealed, the server gone", Agent::sealed, &gone, minutes(1), Some(SwarmEvent::Release)),
        ("sealed, the server gone, somebody pulls", Agent::sealed, &pulled_from, minutes(1), None),
    ];
    for (what, begin, before, now, expected) in cases {
        let mut agent = begin();
        before(&mut agent);
        let ends = |effects: &[Effect]| {
            let ends = |event: &&&SwarmEvent| matches!(event, SwarmEvent::Broken(_) | SwarmEvent::Release);
            told(effects).iter().find(ends).map(|event| (*event).clone())
        };
        // A process's count of bytes sent never shrinks.
        let load = Load { uploaded: 10, ..Load::default() };
        let load = if what.contains("pulls") { load } else { Load::default() };
        let tick = |agent: &mut Agent, now| ends(&agent.session.handle(Event::Tick(load), at(now)));
        assert_eq!(tick(&mut agent, now), expected, "{what}");
        if expected.is_some() {
            assert_eq!(tick(&mut agent, now + 50), None, "{what}: twice");
        }
    }
}

#[test]
fn the_server_hears_of_each_chunk_once_and_of_all_when_it_is_back() {
    let mut agent = Agent::started();
    let have = |effects: &[Effect]| {
        let have = |word: &&ToServer| matches!(word, ToServer::Have { .. });
        said(effects).into_iter().find(have).cloned()
    };
    agent.session.handle(Event::OnDisk(chunks(&[2, 5, 2, 99])), at(10));
    let news = ToServer::Have { chunks: chunks(&[2, 5]) };
    assert_eq!(have(&agent.tick(50)), Some(news), "what the image does not have is no news");
    assert_eq!(have(&agent.tick(100)), None);
    agent.session.handle(Event::OnDisk(chunks(&[2, 3])), at(110));
    agent.session.handle(Event::NotSaid(chunks(&[6])), at(120));
    let news = ToServer::Have { chunks: chunks(&[6, 3]) };
    assert_eq!(have(&agent.tick(150)), Some(news), "what its stream did not take is said again");
    agent.session.handle(Event::Failed { dial: agent.control, cause: "gone".to_owned() }, at(160));
    agent.session.handle(Event::OnDisk(chunks(&[7])), at(170));
    agent.session.handle(Event::NotSaid(chunks(&[6])), at(180));
    let (dial, ..) = dialled(&agent.tick(5000))[0];
    let effects = agent.session.handle(Event::Opened(dial), at(5010));
    let all = set([2, 3, 5, 7]);
    assert!(matches!(said(&effects)[..], [ToServer::Hello { held, .. }] if *held == all), "{effects:?}");
    assert_eq!(have(&agent.tick(5050)), None, "the hello said it");
}

#[test]
fn a_slow_disk_pauses_the_asking() {
    let mut agent = Agent::started();
    agent.session.handle(Event::Backlog(Backlog { unhanded: 1, queued: 1 }), at(10));
    let dials = agent.meets(vec![neighbour(4, &[FAR])], 50);
    assert!(asked(&agent.pulls(4, dials[0], Pulled::Holding(set([0])), 60)).is_empty());
    let effects = agent.session.handle(Event::Backlog(Backlog { unhanded: 0, queued: 1 }), at(70));
    assert_eq!(asked(&effects), [(dials[0], ChunkIndex(0))]);
}

#[test]
fn it_is_complete_when_the_last_chunk_was_handed_over_and_goes_when_it_is_let_go() {
    let mut agent = Agent::started();
    let dials = agent.meets(vec![neighbour(4, &[FAR])], 50);
    agent.session.handle(Event::OnDisk((1..CHUNKS).map(ChunkIndex).collect()), at(55));
    agent.pulls(4, dials[0], Pulled::Holding(set(0..CHUNKS)), 60);
    let effects = agent.gets(4, dials[0], ChunkIndex(0), 80);
    assert!(effects.contains(&Effect::Keep(ChunkIndex(0))), "{effects:?}");
    assert!(told(&effects).is_empty(), "the disk has not been given the last");
    let effects = agent.session.handle(Event::Backlog(Backlog::default()), at(90));
    assert_eq!(told(&effects), [&SwarmEvent::Complete]);
    assert!(effects.contains(&Effect::EndChunks) && effects.contains(&Effect::Close(dials[0])));
    assert!(!effects.contains(&Effect::Close(agent.control)), "it still listens to the server");
    let effects = agent.session.handle(Event::Sealed, at(100));
    assert_eq!(said(&effects), [&ToServer::Sealed]);
    assert_eq!(told(&agent.hears(ToAgent::Release, 200)), [&SwarmEvent::Release]);
    assert!(told(&agent.hears(ToAgent::Release, 300)).is_empty(), "once");
}

#[test]
fn wrong_chunks_are_told_of_and_too_many_from_the_server_break_the_swarm() {
    let mut agent = Agent::started();
    let wrong = || NotTheChunk::Length { wanted: 2, got: 1 };
    let event = |from, wrong| Event::Wrong { from: key(from), chunk: ChunkIndex(3), wrong };
    let effects = agent.session.handle(event(4, wrong()), at(10));
    let corrupt = ToServer::Corrupt { neighbour: key(4), chunk: ChunkIndex(3) };
    assert_eq!(said(&effects), [&corrupt]);
    assert!(matches!(told(&effects)[..], [SwarmEvent::Corrupt { .. }]));
    for count in 1..=9 {
        let effects = agent.session.handle(event(SEED, wrong()), at(20));
        assert!(said(&effects).is_empty(), "the server is not told of itself");
        let broken = matches!(told(&effects)[..], [_, SwarmEvent::Broken(_)]);
        assert_eq!(broken, count == 8, "{count}");
    }
    let effects = Agent::started().session.handle(event(4, NotTheChunk::Image("bad".to_owned())), at(10));
    assert!(matches!(told(&effects)[..], [_, SwarmEvent::Broken(_)]));
}

#[test]
fn a_server_that_was_started_again_hears_all_that_it_must_know() {
    let mut agent = Agent::sealed();
    let wrong = NotTheChunk::Length { wanted: 2, got: 1 };
    agent.session.handle(Event::Wrong { from: key(4), chunk: ChunkIndex(3), wrong }, at(10));
    agent.session.handle(Event::Failed { dial: agent.control, cause: "gone".to_owned() }, at(20));
    let (dial, ..) = dialled(&agent.tick(1000))[0];
    let effects = agent.session.handle(Event::Opened(dial), at(1010));
    let [ToServer::Hello { held, started: true, .. }, corrupt, ToServer::Sealed] = said(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(*held, set(0..CHUNKS));
    assert_eq!(*corrupt, ToServer::Corrupt { neighbour: key(4), chunk: ChunkIndex(3) });
}

/// A delta whose bases are gone: nobody is blamed, the log is told once, and the chunk is requested again at once.
#[test]
fn a_delta_that_cannot_be_decoded_is_requested_again_and_blames_nobody() {
    let mut agent = Agent::started();
    let dials = dialled(&agent.tick(5)).into_iter();
    let mut own = dials.filter(|(_, to, protocol)| *to == key(SEED) && *protocol == Protocol::Pull);
    let Some((dial, ..)) = own.next() else { panic!("the server is not dialled") };
    agent.session.handle(Event::Opened(dial), at(6));
    agent.pulls(SEED, dial, Pulled::Holding(ChunkSet::new(CHUNKS)), 7);
    agent.hears(ToAgent::Lease { chunks: vec![ChunkIndex(1), ChunkIndex(2)] }, 10);
    for (chunk, noted) in [(1, 1), (2, 0)] {
        let chunk = ChunkIndex(chunk);
        agent.pulls(SEED, dial, Pulled::Arrived { chunk, bytes: 100 }, 20);
        let wrong = NotTheChunk::Undecoded("the earlier build is overwritten".to_owned());
        let effects = agent.session.handle(Event::Wrong { from: key(SEED), chunk, wrong }, at(30));
        assert!(effects.contains(&Effect::Ask { dial, chunk }), "{effects:?}");
        let notes = effects.iter().filter(|effect| matches!(effect, Effect::Tell(SwarmEvent::Note(_))));
        assert_eq!(notes.count(), noted);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Tell(SwarmEvent::Corrupt { .. }))));
    }
    assert_eq!(agent.session.server_wrong, 0);
}
