//! A site whose machines ask for their boot files, with scouts that die and neighbours that fail. Touches nothing.

use common::id::Mac;
use common::trust::KeyPair;

use super::*;

const SITE: &str = "branch";
/// 20 Mbit/s, as payload.
const THIN: Option<u64> = Some(2_390_000);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn files() -> Vec<Object> {
    [(1, 8 << 20), (2, 4 << 20)].map(|(n, bytes)| Object { hash: Hash([n; 32]), bytes }).to_vec()
}

fn who(n: u8) -> Who {
    Who { mac: Some(Mac([2, 0, 0, 0, 0, n])), address: [10, 0, 0, n].into() }
}

fn key(n: u8) -> PublicKey {
    KeyPair::from_secret([n; 32]).public()
}

fn door(n: u8) -> SocketAddr {
    SocketAddr::new(who(n).address, 8069)
}

/// A site whose machines are ordered and can check what neighbours give them.
struct World {
    sites: Sites,
    rate: Option<u64>,
    ordered: bool,
    expected: usize,
}

impl World {
    fn new(rate: Option<u64>) -> Self {
        Self { sites: Sites::default(), rate, ordered: true, expected: 30 }
    }

    fn ask(&mut self, n: u8, now: u64) -> Advice {
        let asking = Asking {
            who: who(n),
            files: &files(),
            may_share: true,
            ordered: self.ordered,
            expected: self.expected,
            rate: self.rate,
        };
        self.sites.ask(SITE, &asking, at(now))
    }

    fn holds(&mut self, n: u8, all: bool, now: u64) {
        let held = files().iter().filter(|_| all).map(|file| file.hash).collect();
        self.sites.holding(SITE, key(n), who(n), door(n), held, at(now));
    }

    /// Every machine asks as its script does until it goes; the second at which each went, by `step` at each second.
    fn until_all_go(&mut self, machines: u8, mut step: impl FnMut(&mut Self, u64)) -> Vec<u64> {
        let mut next: BTreeMap<u8, u64> = (1..=machines).map(|n| (n, 0)).collect();
        let mut went = vec![];
        for now in 0..2_000 {
            step(self, now);
            for (n, due) in next.clone() {
                if due > now {
                    continue;
                }
                match self.ask(n, now) {
                    Advice::Wait(seconds) => {
                        next.insert(n, now + u64::from(seconds));
                    }
                    Advice::Server | Advice::Peers(_) => {
                        went.push(now);
                        next.remove(&n);
                    }
                }
            }
        }
        assert!(next.is_empty(), "a machine waits for ever");
        went
    }
}

#[test]
fn one_goes_and_the_others_take_it_from_there() {
    let mut world = World::new(THIN);
    assert_eq!(world.ask(1, 0), Advice::Server);
    for n in 2..=30 {
        assert_eq!(world.ask(n, 1), Advice::Wait(10), "machine {n}");
    }
    assert_eq!(world.sites.sites[SITE].scouts.waiting(), 29);
    world.holds(1, false, 50);
    assert_eq!(world.ask(2, 50), Advice::Wait(5));
    let told = world.sites.tick(at(51));
    assert_eq!(told, [Hold { agent: key(1), objects: files(), peers: vec![] }]);
    assert!(world.sites.tick(at(52)).is_empty(), "once into the site");
    world.holds(1, true, 60);
    for n in 2..=30 {
        assert_eq!(world.ask(n, 61), Advice::Peers(vec![door(1)]));
    }
}

#[test]
fn files_spread_to_a_few_and_the_load_with_them() {
    let mut world = World::new(THIN);
    world.ask(1, 0);
    for n in 1..=20 {
        world.holds(n, n == 1, 1);
    }
    world.ask(30, 2);
    let (mut holders, mut from_server) = (1, 0);
    for now in 3..30 {
        for hold in world.sites.tick(at(now)) {
            from_server += usize::from(hold.peers.is_empty());
            holders += 1;
            let n = (1..=20).find(|n| key(*n) == hold.agent).unwrap();
            world.holds(n, true, now);
        }
    }
    assert_eq!((holders, from_server), (8, 0));
    let mut offered: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for n in 100..140 {
        let Advice::Peers(peers) = world.ask(n, 40) else { panic!("{n}") };
        assert_eq!(peers.len(), 2);
        *offered.entry(peers[0]).or_default() += 1;
    }
    assert!(offered.len() >= 4 && offered.values().all(|times| *times <= 10), "{offered:?}");
}

#[test]
fn a_scout_that_dies_costs_at_most_ninety_seconds() {
    // When it last shows a sign: never, after its kernel, after its loader, at its report.
    for last_sign in [0, 4, 9, 60] {
        let mut world = World::new(THIN);
        let went = world.until_all_go(12, |world, now| {
            if now > 0 && now == last_sign {
                world.sites.sign(SITE, who(1).address, at(now));
            }
            // The second scout becomes an agent, and fetches.
            if now == last_sign + 90 + 45 {
                world.holds(2, true, now);
            }
        });
        let second_scout = went[1];
        assert!(second_scout <= last_sign + 90, "{second_scout} s after a sign at {last_sign}");
        assert!(went.iter().all(|at| *at <= last_sign + 90 + 60), "{went:?}");
    }
}

#[test]
fn a_line_that_breaks_for_a_minute_makes_no_second_scout() {
    let mut world = World::new(THIN);
    let went = world.until_all_go(12, |world, now| match now {
        5 | 70 => world.sites.sign(SITE, who(1).address, at(now)),
        120 => world.holds(1, true, now),
        _ => {}
    });
    assert_eq!(went[0], 0);
    assert!(went[1..].iter().all(|at| (120..=125).contains(at)), "{went:?}");
}

#[test]
fn when_two_scouts_die_all_go_over_the_line() {
    let mut world = World::new(THIN);
    let went = world.until_all_go(12, |_, _| ());
    assert_eq!(went.len(), 12);
    assert!(*went.last().unwrap() <= 180, "{went:?}");
    // And later machines of that site too, for a while.
    assert_eq!((world.ask(50, 300), world.ask(51, 300)), (Advice::Server, Advice::Server));
}

#[test]
fn an_agent_that_fetches_nothing_or_leaves_holds_nobody_up() {
    type Step = fn(&mut World, u64);
    let fetches_nothing: Step = |world, now| {
        if now == 40 {
            world.holds(1, false, now);
        }
        world.sites.tick(at(now));
    };
    let leaves: Step = |world, now| match now {
        40 => world.holds(1, false, now),
        50 => world.sites.gone(&key(1), at(now)),
        _ => {}
    };
    let all_restart: Step = |world, now| {
        if now % 40 == 20 {
            (1..=3).for_each(|n| world.holds(n, false, now));
        }
        if now % 40 == 39 {
            (1..=3).for_each(|n| world.sites.gone(&key(n), at(now)));
        }
    };
    for (what, step) in
        [("fetches nothing", fetches_nothing), ("leaves", leaves), ("all restart", all_restart)]
    {
        let mut world = World::new(THIN);
        let went = world.until_all_go(12, step);
        assert!(*went.last().unwrap() <= 300, "{what}: {went:?}");
    }
}

#[test]
fn who_gains_nothing_does_not_wait() {
    // The rate, whether there is an order, how many are expected, and how long the last of four machines waits.
    let cases = [
        ("a fast line", Some(125_000_000), true, 4, 6..=10),
        ("a thin line, two machines", THIN, true, 2, 6..=10),
        ("a line of unknown rate", None, true, 30, 10..=20),
        ("no orders", THIN, false, 0, 0..=0),
    ];
    for (what, rate, ordered, expected, waits) in cases {
        let mut world = World { ordered, expected, ..World::new(rate) };
        let went = world.until_all_go(4, |_, _| ());
        assert!(waits.contains(went.last().unwrap()), "{what}: {went:?}");
    }
    let mut world = World::new(THIN);
    world.ask(1, 0);
    let cannot =
        Asking { who: who(2), files: &files(), may_share: false, ordered: true, expected: 30, rate: THIN };
    assert_eq!(world.sites.ask(SITE, &cannot, at(1)), Advice::Server, "it may not take them from neighbours");
}

#[test]
fn a_fast_line_is_not_held_up_by_an_agent_either() {
    let mut world = World::new(Some(125_000_000));
    world.holds(1, false, 0);
    assert_eq!(world.ask(2, 1), Advice::Server);
}

#[test]
fn who_failed_is_not_offered_again_and_a_liar_silences_nobody_for_others() {
    let mut world = World::new(THIN);
    world.holds(1, true, 0);
    let offered = |world: &mut World, n| world.ask(n, 10) == Advice::Peers(vec![door(1)]);
    assert!(world.sites.complain(SITE, who(2).address, door(1), at(1)));
    assert!(!world.sites.complain(SITE, who(2).address, door(1), at(2)), "said already");
    assert!(!offered(&mut world, 2), "not to the one that it failed");
    assert!(offered(&mut world, 3), "one word is not enough for the others");
    assert!(!world.sites.complain("elsewhere", who(9).address, door(1), at(3)), "of another site");
    assert!(!world.sites.complain(SITE, who(1).address, door(1), at(3)), "of itself");
    assert!(!world.sites.complain(SITE, who(3).address, door(77), at(3)), "nobody is there");
    assert!(offered(&mut world, 3));
    assert!(world.sites.complain(SITE, who(4).address, door(1), at(4)));
    assert!(!offered(&mut world, 3), "two are");
    // With another neighbour that is whole, the doubted one comes last.
    let mut world = World::new(THIN);
    world.holds(1, true, 0);
    world.holds(5, true, 0);
    world.sites.complain(SITE, who(2).address, door(1), at(1));
    for n in 10..14 {
        assert_eq!(world.ask(n, 2), Advice::Peers(vec![door(5), door(1)]));
    }
}

#[test]
fn the_doubted_one_of_two_comes_last_and_not_for_ever() {
    for (doubted, other) in [(1, 5), (5, 1)] {
        let mut world = World::new(THIN);
        world.holds(1, true, 0);
        world.holds(5, true, 0);
        world.sites.complain(SITE, who(2).address, door(doubted), at(1));
        assert_eq!(world.ask(10, 2), Advice::Peers(vec![door(other), door(doubted)]));
        world.sites.complain(SITE, who(3).address, door(doubted), at(2));
        assert_eq!(world.ask(11, 3), Advice::Peers(vec![door(other)]));
        let Advice::Peers(later) = world.ask(12, 700) else { panic!("it is offered") };
        assert!(later.contains(&door(doubted)), "ten minutes later it is tried again: {later:?}");
    }
}

#[test]
fn only_the_scouts_own_signs_count() {
    let mut world = World::new(THIN);
    let went = world.until_all_go(12, |world, now| world.sites.sign(SITE, who(99).address, at(now)));
    assert!(went[1] <= 90, "{went:?}");
}

#[test]
fn two_agents_behind_one_address_are_not_offered() {
    let mut world = World::new(THIN);
    world.holds(1, true, 0);
    let held = files().iter().map(|file| file.hash).collect();
    world.sites.holding(SITE, key(2), who(2), door(1), held, at(0));
    assert!(!matches!(world.ask(3, 1), Advice::Peers(_)));
}

#[test]
fn a_machine_is_not_sent_to_itself_and_a_site_not_to_another() {
    let mut world = World::new(THIN);
    world.holds(1, true, 0);
    assert_eq!(
        world.ask(1, 1),
        Advice::Server,
        "it has restarted, and its agent's connection still looks alive"
    );
    assert!(world.sites.offer("elsewhere", &files(), who(9), at(1)).is_empty());
}

#[test]
fn one_machine_alone_gets_nothing_twice() {
    let mut world = World { expected: 1, ..World::new(THIN) };
    world.ask(1, 0);
    world.sites.want(SITE, &files()[..1], who(1), at(20));
    world.holds(1, false, 30);
    assert!((30..200).all(|now| world.sites.tick(at(now)).is_empty()));
}

#[test]
fn holders_stay_while_others_are_on_their_way() {
    let mut world = World::new(THIN);
    world.holds(1, true, 0);
    let needed = |world: &World, expects: bool, now| world.sites.needed(|_| expects, at(now));
    assert!(needed(&world, false, 1).is_empty(), "nobody asks");
    let stays = |n, minutes: u64| BTreeMap::from([(key(n), at(minutes * 60))]);
    assert_eq!(needed(&world, true, 1), stays(1, 2), "an order expects others");
    world.ask(2, 10);
    assert_eq!(needed(&world, false, 60), stays(1, 10));
    assert_eq!(needed(&world, true, 60), stays(1, 10));
    assert!(needed(&world, false, 131).is_empty(), "that was long ago");
    world.ask(2, 140);
    world.holds(2, false, 150);
    assert!(needed(&world, false, 150).is_empty(), "it is here");
    assert_eq!(needed(&world, true, 150), stays(1, 2), "one stays, the one that holds more");
    world.sites.gone(&key(2), at(160));
    assert!(needed(&world, false, 161).is_empty(), "it was here, and left for its new system");
    let elsewhere = world.sites.needed(|site| site != SITE, at(150));
    assert!(elsewhere.is_empty(), "others are expected at another site");
}

#[test]
fn sites_are_bounded_and_forgotten() {
    let mut sites = Sites::default();
    let asking =
        Asking { who: who(1), files: &files(), may_share: true, ordered: true, expected: 1, rate: THIN };
    for n in 0..2 * SITES_MAX {
        sites.ask(&format!("site {n}"), &asking, at(1));
    }
    assert_eq!(sites.sites.len(), SITES_MAX);
    sites.tick(at(4_000));
    assert!(sites.sites.is_empty());
}
