//! An image's swarm from admission to release, message by message.

use common::chunk::ChunkIndex;
use common::id::{DeploymentId, Hash, JobId};
use common::limits::GATHER_SECONDS_MAX;
use common::trust::KeyPair;
use common::wire::swarm::Personality;

use super::super::handle::MachinePart;

use super::super::handle::Gather;
use super::topology::neighbours_of;
use super::*;

pub(super) fn key(number: u8) -> PublicKey {
    KeyPair::from_secret([number; 32]).public()
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn admission(number: u8, gather: Option<Gather>) -> Admission {
    of(1, number, gather)
}

fn of(deployment: u64, number: u8, gather: Option<Gather>) -> Admission {
    Admission {
        key: key(number),
        image: ImageId(Hash([0; 32])),
        name: format!("m{number}"),
        site: "a".to_owned(),
        part: Part::Machine(Box::new(MachinePart {
            deployment: DeploymentId(deployment),
            job: JobId(number.into()),
            personality: Personality {
                hostname: format!("m{number}"),
                ssh_keys: vec![],
                user_data: None,
                instance_id: String::new(),
                confirm_url: None,
                seed_mark: common::wire::call_home::SeedMark::default(),
                boot_mac: None,
                hooks: None,
            },
            gather,
        })),
    }
}

pub(super) fn swarm() -> ImageSwarm {
    ImageSwarm::new(ImageId(Hash([0; 32])), Linger::default(), 1)
}

pub(super) fn hello(swarm: &mut ImageSwarm, number: u8, started: bool, now: Duration) -> Vec<Out> {
    let mut wanted = ChunkSet::new(8);
    (0..8).for_each(|chunk| {
        wanted.insert(ChunkIndex(chunk));
    });
    let hello = Hello { addresses: vec![], held: ChunkSet::new(8), started, deltas: ChunkSet::new(0) };
    swarm.hello(key(number), hello, WireImage { wanted, wire_bytes: 8 << 20 }, now)
}

fn told(out: &[Out], number: u8) -> Vec<&ToAgent> {
    out.iter()
        .filter_map(|out| match out {
            Out::Tell(agent, word) if *agent == key(number) => Some(word),
            _ => None,
        })
        .collect()
}

#[test]
fn without_a_gate_an_agent_starts_at_once_and_is_leased_chunks_it_was_granted() {
    let mut swarm = swarm();
    swarm.admit(admission(1, None), at(0));
    let out = hello(&mut swarm, 1, false, at(1));
    let words = told(&out, 1);
    assert!(matches!(words[..], [ToAgent::Welcome { .. }, ToAgent::Start, ToAgent::Lease { .. }]));
    let grant = out.iter().position(|out| matches!(out, Out::Grant(..)));
    let lease = out.iter().position(|out| matches!(out, Out::Tell(_, ToAgent::Lease { .. })));
    assert!(grant < lease, "the right comes before the word of it");
}

#[test]
fn a_gate_opens_when_enough_have_come_and_nobody_is_leased_anything_before() {
    let gather = Some(Gather { wanted: 2, seconds: 60 });
    let mut swarm = swarm();
    (1..=3).for_each(|number| swarm.admit(admission(number, gather), at(0)));
    let out = hello(&mut swarm, 1, false, at(1));
    assert!(told(&out, 1).contains(&&ToAgent::Gather { arrived: 1, wanted: 2, seconds: 60 }));
    assert!(!told(&out, 1).contains(&&ToAgent::Start));
    let out = hello(&mut swarm, 2, false, at(2));
    assert!(told(&out, 1).contains(&&ToAgent::Start) && told(&out, 2).contains(&&ToAgent::Start));
    assert!(told(&hello(&mut swarm, 3, false, at(3)), 3).contains(&&ToAgent::Start), "a late one just joins");
}

#[test]
fn a_gate_opens_when_the_time_is_up() {
    let mut swarm = swarm();
    swarm.admit(admission(1, Some(Gather { wanted: 2, seconds: 60 })), at(0));
    hello(&mut swarm, 1, false, at(0));
    assert!(!told(&swarm.tick(at(59_999)), 1).contains(&&ToAgent::Start));
    assert!(told(&swarm.tick(at(60_000)), 1).contains(&&ToAgent::Start));
}

#[test]
fn who_had_started_before_the_server_restarted_waits_at_no_gate() {
    let mut swarm = swarm();
    swarm.admit(admission(1, Some(Gather { wanted: 2, seconds: 60 })), at(0));
    assert!(told(&hello(&mut swarm, 1, true, at(1)), 1).contains(&&ToAgent::Start));
}

#[test]
fn agents_of_a_site_are_told_of_each_other_and_of_leaving() {
    let mut swarm = swarm();
    (1..=2).for_each(|number| swarm.admit(admission(number, None), at(0)));
    hello(&mut swarm, 1, false, at(1));
    hello(&mut swarm, 2, false, at(1));
    let names = |out: &[Out], number| -> Option<Vec<String>> {
        told(out, number).into_iter().find_map(|word| match word {
            ToAgent::Neighbours { list, .. } => Some(list.iter().map(|other| other.name.clone()).collect()),
            _ => None,
        })
    };
    let out = swarm.tick(at(100));
    assert_eq!((names(&out, 1), names(&out, 2)), (Some(vec!["m2".into()]), Some(vec!["m1".into()])));
    assert_eq!(names(&swarm.tick(at(200)), 1), None, "nothing new, nothing told");
    swarm.left(key(2), String::new(), at(300));
    assert_eq!(names(&swarm.tick(at(400)), 1), Some(vec![]));
}

#[test]
fn a_relay_is_a_neighbour_of_all_and_nobodys_job() {
    let relay = || Admission { part: Part::Relay, ..admission(9, None) };
    let gather = Some(Gather { wanted: 2, seconds: 60 });
    let mut swarm = swarm();
    swarm.admit(relay(), at(0));
    let out = hello(&mut swarm, 9, false, at(0));
    assert!(told(&out, 9).contains(&&ToAgent::Welcome { personality: None }));
    assert!(told(&out, 9).contains(&&ToAgent::Start), "it waits at no gate");
    assert!(swarm.is_active(), "it fetches");
    assert!(!out.iter().any(|out| matches!(out, Out::Fact(_))), "it has no job to tell of");

    swarm.admit(admission(1, gather), at(1));
    assert!(
        !told(&hello(&mut swarm, 1, false, at(1)), 1).contains(&&ToAgent::Start),
        "it does not count as a machine"
    );
    let neighbours = |out: &[Out], number| -> Vec<PublicKey> {
        let lists = told(out, number).into_iter().filter_map(|word| match word {
            ToAgent::Neighbours { list, .. } => Some(list.iter().map(|other| other.key).collect::<Vec<_>>()),
            _ => None,
        });
        lists.flatten().collect()
    };
    let out = swarm.tick(at(100));
    assert_eq!((neighbours(&out, 1), neighbours(&out, 9)), (vec![key(9)], vec![key(1)]));
    let chunks = (0..8).map(ChunkIndex).collect();
    swarm.message(key(9), ToServer::Have { chunks }, at(200));
    let out = swarm.message(key(9), ToServer::Sealed, at(200));
    assert!(out.is_empty(), "it has no disk to seal: {out:?}");
    swarm.expel(key(1), None, at(300));
    swarm.tick(at(10_000));
    assert!(!swarm.is_active() && !swarm.is_empty(), "it stays, and is no news");
    assert!(told(&swarm.tick(at(9_000_000)), 9).is_empty(), "it is not released");
    assert!(swarm.left(key(9), "gone".to_owned(), at(9_000_000)).is_empty());
}

#[test]
fn a_cancelled_agent_is_told_and_then_forgotten() {
    let mut swarm = swarm();
    swarm.admit(admission(1, None), at(0));
    hello(&mut swarm, 1, false, at(1));
    let out = swarm.expel(key(1), Some("no more".to_owned()), at(2));
    assert_eq!(told(&out, 1), [&ToAgent::Cancel { reason: "no more".to_owned() }]);
    assert!(!swarm.tick(at(100)).contains(&Out::Forget(key(1))));
    assert!(swarm.tick(at(2) + FAREWELL).contains(&Out::Forget(key(1))));
    assert!(swarm.is_empty());
}

#[test]
fn who_comes_again_is_spared_no_more_until_it_is_slow_again() {
    let mut swarm = swarm();
    for number in 1..=3 {
        swarm.admit(admission(number, None), at(0));
        hello(&mut swarm, number, false, at(1000));
    }
    let spared = |out: &[Out], number| {
        told(out, number).into_iter().find_map(|word| match word {
            ToAgent::Neighbours { spared, .. } => Some(*spared),
            _ => None,
        })
    };
    swarm.tick(at(2000));
    for (number, sent) in [(1, 1_000_000), (2, 100_000_000), (3, 100_000_000)] {
        let (sending_millis, millis) = (1000, 1000);
        let speed =
            ToServer::Speed { sent, sending_millis, millis, from_peers: 0, from_server: 0, bottleneck: None };
        swarm.message(key(number), speed, at(3000));
    }
    swarm.tick(at(4000));
    assert_eq!(spared(&swarm.tick(at(5000)), 1), Some(true));
    swarm.left(key(1), "cut".to_owned(), at(6000));
    swarm.tick(at(7000));
    hello(&mut swarm, 1, true, at(8000));
    assert_eq!(spared(&swarm.tick(at(9000)), 1), Some(false));
}

#[test]
fn complaints_of_one_agent_are_bounded() {
    let mut swarm = swarm();
    swarm.admit(admission(1, None), at(0));
    hello(&mut swarm, 1, false, at(1));
    let complaint = || ToServer::Corrupt { neighbour: key(2), chunk: ChunkIndex(0) };
    let facts: usize = (0..1000).map(|_| swarm.message(key(1), complaint(), at(2)).len()).sum();
    assert_eq!(facts, COMPLAINTS_MAX as usize);
}

#[test]
fn knowing_is_mutual_and_the_graph_is_whole() {
    for len in [1usize, 2, 16, 17, 18, 33, 64, 100] {
        let mut reached = vec![false; len];
        let mut todo = vec![0];
        while let Some(at) = todo.pop() {
            if std::mem::replace(&mut reached[at], true) {
                continue;
            }
            let others = neighbours_of(at, len);
            assert!(!others.contains(&at));
            assert!(others.iter().all(|other| neighbours_of(*other, len).contains(&at)), "{len}");
            todo.extend(others);
        }
        assert!(reached.into_iter().all(|reached| reached), "{len}");
    }
}

fn starts(out: &[Out], number: u8) -> bool {
    told(out, number).contains(&&ToAgent::Start)
}

#[test]
fn each_deployment_has_a_gate_of_its_own_which_ends_with_it() {
    let gather = Some(Gather { wanted: 2, seconds: 60 });
    let mut swarm = swarm();
    (1..=3).for_each(|number| swarm.admit(of(1, number, gather), at(0)));
    (4..=5).for_each(|number| swarm.admit(of(2, number, gather), at(0)));
    hello(&mut swarm, 1, false, at(1));
    assert!(starts(&hello(&mut swarm, 2, false, at(2)), 2));
    assert!(!starts(&hello(&mut swarm, 4, false, at(3)), 4), "another order's gate is not this one's");
    let out = hello(&mut swarm, 5, false, at(4));
    assert!(starts(&out, 4) && starts(&out, 5));
    let opened = Out::Fact(SwarmFact::GatherOpened { jobs: vec![JobId(4), JobId(5)] });
    assert!(out.contains(&opened), "{out:?}");
    // One machine of the first deployment never came. When all of it are gone, its gate is removed.
    (1..=3).for_each(|number| drop(swarm.expel(key(number), None, at(5))));
    swarm.tick(at(5) + FAREWELL);
    swarm.admit(of(1, 6, gather), at(9000));
    assert!(!starts(&hello(&mut swarm, 6, false, at(9001)), 6), "a fresh gate");
}

#[test]
fn no_number_of_seconds_is_too_long_for_a_gate() {
    let mut swarm = swarm();
    swarm.admit(admission(1, Some(Gather { wanted: 2, seconds: u64::MAX })), at(5000));
    let out = hello(&mut swarm, 1, false, at(5000));
    let day = ToAgent::Gather { arrived: 1, wanted: 2, seconds: GATHER_SECONDS_MAX };
    assert!(told(&out, 1).contains(&&day), "{out:?}");
    assert!(starts(&swarm.tick(at(5000) + Duration::from_secs(GATHER_SECONDS_MAX)), 1));
}

#[test]
fn who_vanishes_while_it_lingers_is_forgotten() {
    let mut swarm = swarm();
    swarm.admit(admission(1, None), at(0));
    hello(&mut swarm, 1, false, at(1));
    swarm.message(key(1), ToServer::Sealed, at(2));
    swarm.left(key(1), "power cut".to_owned(), at(3));
    assert!(!swarm.tick(at(60_000)).contains(&Out::Forget(key(1))), "it may have lost its line only");
    assert!(swarm.tick(at(3) + Linger::default().expected).contains(&Out::Forget(key(1))));
    assert!(swarm.is_empty());
}

#[test]
fn who_is_kept_for_its_boot_files_goes_when_its_time_is_over() {
    let mut swarm = swarm();
    swarm.admit(admission(1, None), at(0));
    hello(&mut swarm, 1, false, at(1));
    swarm.message(key(1), ToServer::Sealed, at(2));
    swarm.keep(&BTreeMap::from([(key(1), at(60_000))]));
    let goes = |swarm: &mut ImageSwarm, now| told(&swarm.tick(at(now)), 1).contains(&&ToAgent::Release);
    assert!(!goes(&mut swarm, 60_000), "it gives out boot files");
    assert!(goes(&mut swarm, 60_002), "its machine has waited for its new OS long enough");
}

#[test]
fn whose_part_is_done_may_go_and_whoever_is_in_the_middle_is_told_to_stop() {
    let mut swarm = swarm();
    (1..=2).for_each(|number| swarm.admit(admission(number, None), at(0)));
    (1..=2).for_each(|number| drop(hello(&mut swarm, number, false, at(1))));
    swarm.message(key(1), ToServer::Sealed, at(2));
    assert_eq!(told(&swarm.expel(key(1), None, at(3)), 1), [&ToAgent::Release]);
    assert!(matches!(told(&swarm.expel(key(2), None, at(3)), 2)[..], [ToAgent::Cancel { .. }]));
    assert_eq!(told(&hello(&mut swarm, 1, true, at(4)), 1), [&ToAgent::Release], "said again");
    swarm.tick(at(3) + FAREWELL);
    assert!(swarm.is_empty());
}

#[test]
fn a_chunk_that_cannot_be_read_is_leased_to_nobody_until_it_is_mended() {
    let mut swarm = swarm();
    swarm.admit(admission(1, None), at(0));
    let leases = |out: &[Out]| -> Vec<ChunkIndex> {
        let words = told(out, 1).into_iter();
        words
            .flat_map(|word| if let ToAgent::Lease { chunks } = word { chunks.clone() } else { vec![] })
            .collect()
    };
    let leased = leases(&hello(&mut swarm, 1, false, at(1)));
    let lost = leased[0];
    let out = swarm.failed(key(1), lost, "rotten".to_owned(), at(2));
    assert!(matches!(out[0], Out::Fact(SwarmFact::ChunkLost { .. })));
    let mut mends = 0;
    for tick in 1..=100 {
        let out = swarm.tick(at(100 * tick));
        assert!(!leases(&out).contains(&lost), "leased again");
        assert!(swarm.failed(key(1), lost, "rotten".to_owned(), at(100 * tick)).is_empty(), "said once");
        mends += out.iter().filter(|out| matches!(out, Out::Mend(chunk, _) if *chunk == lost)).count();
    }
    assert_eq!(mends, 2, "ten seconds: at once, and after five");
    let others = (0..8).map(ChunkIndex).filter(|chunk| *chunk != lost).collect();
    assert!(!leases(&swarm.message(key(1), ToServer::Have { chunks: others }, at(10_000))).contains(&lost));
    let out = swarm.mended(lost, None, at(10_001));
    assert!(out.contains(&Out::Fact(SwarmFact::ChunkMended { image: swarm.image, chunk: lost, from: None })));
    assert_eq!(leases(&out), [lost]);
}

#[test]
fn who_lacks_only_what_is_lost_is_told_so_once_and_who_holds_it_is_asked() {
    let mut swarm = swarm();
    (1..=2).for_each(|number| swarm.admit(admission(number, None), at(0)));
    hello(&mut swarm, 1, false, at(1));
    swarm.failed(key(1), ChunkIndex(3), "rotten".to_owned(), at(2));
    let chunks = (0..8).filter(|chunk| *chunk != 3).map(ChunkIndex).collect();
    swarm.message(key(1), ToServer::Have { chunks }, at(3));
    let broken = |out: &[Out]| told(out, 1).iter().any(|word| matches!(word, ToAgent::Broken { .. }));
    assert!(!broken(&swarm.tick(at(14_000))), "it may be mended yet");
    assert!(broken(&swarm.tick(at(16_000))));
    assert!(!broken(&swarm.tick(at(17_000))), "once");
    hello(&mut swarm, 1, true, at(18_000));
    let chunks = (0..8).filter(|chunk| *chunk != 3).map(ChunkIndex).collect();
    swarm.message(key(1), ToServer::Have { chunks }, at(18_001));
    assert!(broken(&swarm.tick(at(19_000))), "and on each new stream");
    hello(&mut swarm, 2, false, at(20_000));
    swarm.message(key(2), ToServer::Have { chunks: vec![ChunkIndex(3)] }, at(20_001));
    let asked = (0..60).flat_map(|tick| swarm.tick(at(20_100 + 100 * tick)));
    let asked: Vec<PublicKey> = asked
        .filter_map(|out| if let Out::Mend(_, holders) = out { Some(holders) } else { None })
        .flatten()
        .map(|holder| holder.key)
        .collect();
    assert!(asked.contains(&key(2)), "{asked:?}");
}

#[test]
fn numbers_that_an_agent_says_of_its_line_do_no_harm() {
    let mut swarm = swarm();
    (1..=2).for_each(|number| swarm.admit(admission(number, None), at(0)));
    (1..=2).for_each(|number| drop(hello(&mut swarm, number, false, at(1))));
    for second in 1..=40 {
        for number in 1..=2 {
            let speed = ToServer::Speed {
                sent: u64::MAX,
                sending_millis: u64::MAX - second,
                millis: 0,
                from_peers: u64::MAX,
                from_server: u64::MAX,
                bottleneck: None,
            };
            swarm.message(key(number), speed.clone(), at(1000 * second));
            swarm.message(
                key(number),
                ToServer::Speed {
                    sent: u64::MAX,
                    sending_millis: 200,
                    millis: 1,
                    from_peers: 0,
                    from_server: 0,
                    bottleneck: None,
                },
                at(1000 * second),
            );
        }
        swarm.tick(at(1000 * second));
    }
}
