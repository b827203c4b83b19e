//! What a reader of differences knows is what is so, whatever happens to the swarm and to those who ask.

use common::wire::swarm::ToServer;
use proptest::prelude::*;

use super::super::ImageSwarm;
use super::super::tests::{admission, hello, key, swarm};
use super::*;

/// What somebody knows who asks again and again.
#[derive(Debug, Clone, Default, PartialEq)]
struct Reader {
    mark: Option<String>,
    known: Option<SwarmMaps>,
}

impl Reader {
    /// Applies an answer as its description says.
    fn hear(&mut self, answer: SwarmMaps) {
        self.mark = Some(answer.mark.clone());
        if answer.since.is_none() {
            self.known = Some(answer);
            return;
        }
        let known = self.known.as_mut().unwrap();
        assert_eq!(answer.since.as_ref(), Some(&known.mark), "a difference from what was told");
        known.mark = answer.mark;
        for number in answer.gone {
            assert!(known.nodes.remove(&number).is_some());
        }
        for (number, news) in answer.nodes {
            let node = known.nodes.entry(number).or_default();
            let mut bytes = decoded(news.map.as_ref().or(node.map.as_ref()).unwrap());
            news.got.iter().for_each(|chunk| bytes[*chunk as usize / 8] |= 1 << (chunk % 8));
            node.map = Some(encoded(&bytes));
            node.k = news.k.or(node.k.take());
            node.uplink = news.uplink.or(node.uplink);
            node.neighbours = news.neighbours.or(node.neighbours.take());
        }
    }

    fn ask(&mut self, swarm: &mut ImageSwarm, now: Duration) -> SwarmMaps {
        let answer = swarm.maps(self.mark.as_deref(), now).unwrap();
        // Over the wire, too.
        let answer: SwarmMaps = serde_json::from_str(&serde_json::to_string(&answer).unwrap()).unwrap();
        self.hear(answer.clone());
        answer
    }
}

fn encoded(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)
}

fn decoded(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).unwrap()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[derive(Debug, Clone)]
enum Act {
    Admit(u8),
    Hello(u8),
    Have(u8, u32),
    Speed(u8, u64),
    Leave(u8),
    Expel(u8),
    /// The server starts again: it knows its members by their jobs, and no chunk of theirs.
    Restart,
    /// A reader asks.
    Ask(usize),
    /// So many seconds go by.
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (1u8..7).prop_map(Act::Admit),
        3 => (1u8..7).prop_map(Act::Hello),
        9 => (1u8..7, 0u32..9).prop_map(|(who, chunk)| Act::Have(who, chunk)),
        2 => (1u8..7, 0u64..5_000_000).prop_map(|(who, sent)| Act::Speed(who, sent)),
        1 => (1u8..7).prop_map(Act::Leave),
        1 => (1u8..7).prop_map(Act::Expel),
        1 => Just(Act::Restart),
        8 => (0usize..3).prop_map(Act::Ask),
        6 => (1u64..4).prop_map(Act::Wait),
        1 => Just(Act::Wait(70)),
    ]
}

/// Does what is no asking and no waiting.
fn carry_out(swarm: &mut ImageSwarm, act: &Act, now: Duration) {
    match *act {
        Act::Admit(who) => swarm.admit(admission(who, None), now),
        Act::Hello(who) => drop(hello(swarm, who, true, now)),
        Act::Have(who, chunk) => {
            swarm.message(key(who), ToServer::Have { chunks: vec![ChunkIndex(chunk)] }, now);
        }
        Act::Speed(who, sent) => {
            let (sending_millis, millis, from_peers, from_server) = (1000, 1000, 0, 0);
            let speed =
                ToServer::Speed { sent, sending_millis, from_peers, from_server, millis, bottleneck: None };
            swarm.message(key(who), speed, now);
        }
        Act::Leave(who) => drop(swarm.left(key(who), String::new(), now)),
        Act::Expel(who) => drop(swarm.expel(key(who), None, now)),
        Act::Restart => *swarm = super::super::tests::swarm(),
        Act::Ask(_) | Act::Wait(_) => {}
    }
}

proptest! {
    /// whole(now) == apply(whole(then), difference), for each of several who ask at times of their own.
    #[test]
    fn differences_add_up_to_the_whole(acts in proptest::collection::vec(act(), 1..150)) {
        let (mut swarm, mut now) = (swarm(), at(0));
        let mut readers = vec![Reader::default(); 3];
        for act in acts {
            carry_out(&mut swarm, &act, now);
            if let Act::Wait(seconds) = act {
                now += at(seconds);
                swarm.tick(now);
            }
            if let Act::Ask(who) = act {
                readers[who].ask(&mut swarm, now);
                let whole = swarm.maps(None, now).unwrap();
                prop_assert_eq!(readers[who].known.as_ref(), Some(&whole));
            }
            prop_assert!(swarm.maps.looks.len() <= KEPT_MAX);
        }
    }
}

/// A swarm of six whose agents are here.
fn six() -> ImageSwarm {
    let mut swarm = swarm();
    for who in 1..=6 {
        swarm.admit(admission(who, None), at(0));
        hello(&mut swarm, who, true, at(0));
    }
    swarm.tick(at(0));
    swarm
}

#[test]
fn a_difference_says_what_changed_and_no_more() {
    let (mut swarm, mut reader) = (six(), Reader::default());
    assert!(reader.ask(&mut swarm, at(1)).since.is_none());
    let nothing = reader.ask(&mut swarm, at(3));
    assert!(nothing.since.is_some() && nothing.nodes.is_empty() && nothing.wanted.is_none());
    swarm.message(key(1), ToServer::Have { chunks: vec![ChunkIndex(5)] }, at(4));
    let one = reader.ask(&mut swarm, at(5));
    let news: Vec<_> = one.nodes.values().collect();
    assert_eq!(news, [&NodeMap { got: vec![5], ..NodeMap::default() }]);
    // Somebody else in the same second is told the same, and it costs no further look.
    let looks = swarm.maps.looks.len();
    Reader::default().ask(&mut swarm, at(5));
    assert_eq!(swarm.maps.looks.len(), looks);
}

#[test]
fn who_comes_back_late_or_after_a_restart_is_told_everything() {
    let (mut swarm, mut reader) = (six(), Reader::default());
    reader.ask(&mut swarm, at(1));
    swarm.message(key(1), ToServer::Have { chunks: vec![ChunkIndex(5)] }, at(2));
    assert!(reader.ask(&mut swarm, at(100)).since.is_none(), "its mark is too old");
    let mut again = six();
    assert!(reader.ask(&mut again, at(1)).since.is_none(), "another server knows nothing of its mark");
    for wrong in ["", "x", &"0".repeat(5000)] {
        assert!(again.maps(Some(wrong), at(2)).unwrap().since.is_none());
    }
}

#[test]
fn what_is_kept_is_bounded_however_many_ask() {
    let mut swarm = six();
    for second in 0..100u64 {
        let sent = 1000 * (second + 1);
        carry_out(&mut swarm, &Act::Speed(1, sent * sent), at(second));
        (0..50).for_each(|_| drop(swarm.maps(Some("unknown"), at(second))));
        assert!(swarm.maps.looks.len() <= KEPT_MAX);
    }
    assert!(swarm.maps.looks.len() > 5, "{}", swarm.maps.looks.len());
    let wide = || Node { k: String::new(), held: ChunkSet::new(1 << 22), uplink: 0, neighbours: vec![] };
    for second in 0..10 {
        let nodes = (0..12).map(|number| (number, wide())).collect();
        let (mark, wanted) = (second.to_string(), None);
        swarm.maps.keep(Look { at: at(second), mark, places: 0, wanted, nodes });
        let bytes: usize = swarm.maps.looks.iter().map(Look::bytes).sum();
        assert!(bytes <= BYTES_MAX, "{bytes}");
    }
    swarm.tick(at(500));
    assert!(swarm.maps.looks.is_empty(), "nobody asks any more");
}

#[test]
fn a_map_is_sent_where_it_is_shorter() {
    let set = |range: std::ops::Range<u32>| {
        let mut set = ChunkSet::new(4096);
        range.for_each(|chunk| assert!(set.insert(ChunkIndex(chunk))));
        set
    };
    assert_eq!(gained(&set(0..10), &set(0..12)), Some(vec![10, 11]));
    assert_eq!(gained(&set(0..10), &set(0..1000)), None);
    assert_eq!(gained(&set(0..10), &set(1..12)), None, "one was lost");
    assert_eq!(gained(&ChunkSet::new(0), &set(0..1)), None, "it was no map of this image");
}

#[test]
fn a_speed_that_wavers_is_told_once() {
    for (told, number) in [(0, 0), (7, 7), (12, 12), (120, 129), (12_000_000, 12_499_999)] {
        assert_eq!(two_digits(number), told);
    }
}
