//! The swarm in one process over the loopback: a server node and agents with targets in memory. What is
//! measured: every byte right, bytes from peers, copies that left the server, the guilty named, no server
//! needed once the first copy is out.
// A broken rack is a failed test.
#![allow(clippy::unwrap_used)]

mod rack;
mod rogue;
mod soak;

use std::time::{Duration, Instant};

use agent::swarm::SwarmEvent;
use rack::{Machine, Rack, image};
use rogue::{Manner, rogue};

const MIB: u32 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_machines_share_one_copy() {
    let rack = Rack::start(image(1, 64, MIB)).await;
    let mut machines = Vec::new();
    for number in 1..=4 {
        machines.push(Machine::start(&rack, number, Some(4)).await);
    }
    futures::future::join_all(machines.iter_mut().map(|machine| machine.finish(&rack))).await;
    for machine in &machines {
        let sources = machine.client.sources();
        assert!(sources.peer_chunks > 0, "each got some from peers: {sources:?}");
        assert_eq!(sources.server_chunks + sources.peer_chunks, 64);
    }
    let copies = rack.copies().await;
    assert!(copies <= 1.2, "{copies} copies left the server");
    rack.stop(machines).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_machine_gets_everything_from_the_one_that_is_done() {
    let rack = Rack::start(image(2, 24, MIB)).await;
    let mut first = Machine::start(&rack, 1, None).await;
    first.finish(&rack).await;
    assert_eq!(first.client.sources().server_chunks, 24);
    let mut second = Machine::start(&rack, 2, None).await;
    second.finish(&rack).await;
    let sources = second.client.sources();
    assert_eq!((sources.server_chunks, sources.peer_chunks), (0, 24));
    assert!(rack.copies().await <= 1.01);

    first.client.sealed().await;
    second.client.sealed().await;
    first.hears(|event| *event == SwarmEvent::Release).await;
    second.hears(|event| *event == SwarmEvent::Release).await;
    rack.stop(vec![first, second]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_is_rejected_and_its_sender_named() {
    let rack = Rack::start(image(3, 16, MIB)).await;
    let liar = rogue(&rack, 9, Manner::FlipsBytes).await;
    let mut machine = Machine::start(&rack, 1, None).await;
    machine.finish(&rack).await;
    let wrong = |event: &SwarmEvent| matches!(event, SwarmEvent::Corrupt { from, .. } if from == "machine-9");
    machine.hears(wrong).await;
    assert!(rack.accused(9).await, "the server's facts name it as well");
    liar.abort();
    rack.stop(vec![machine]).await;
}

/// Each in a rack of its own: the others finish, and their log names who was of no use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_breaks_the_rules_is_named_and_the_others_finish() {
    let manners = [
        (Manner::SendsNothing, "moves nothing"),
        (Manner::SendsHalf, "moves nothing"),
        (Manner::SendsTooMuch, "breaks the protocol"),
        (Manner::SendsNoise, "breaks the protocol"),
        (Manner::SendsAnother, "breaks the protocol"),
        (Manner::RefusesAll, "does not send what it says it holds"),
        (Manner::AsksWithoutEnd, "breaks the protocol"),
    ];
    let racks = manners.map(async |(manner, said)| {
        let rack = Rack::start(image(8, 24, MIB)).await;
        let rogue = rogue(&rack, 9, manner).await;
        // Slow enough that it shows.
        let mut first = Machine::start_slow(&rack, 1, Duration::from_millis(400)).await;
        let mut second = Machine::start_slow(&rack, 2, Duration::from_millis(400)).await;
        futures::future::join(first.finish(&rack), second.finish(&rack)).await;
        let named = |event: &SwarmEvent| matches!(event, SwarmEvent::Note(text) if text.starts_with("machine-9 ") && text.contains(said));
        assert!(first.heard().iter().chain(second.heard()).any(named), "{manner:?} is named: {:?}", first.heard());
        rogue.abort();
        rack.stop(vec![first, second]).await;
    });
    futures::future::join_all(racks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_server_the_peers_finish() {
    let rack = Rack::start(image(4, 32, MIB)).await;
    let mut first = Machine::start(&rack, 1, None).await;
    first.finish(&rack).await;
    // Slow enough that the server is surely gone before the end.
    let mut second = Machine::start_slow(&rack, 2, Duration::from_millis(40)).await;
    let mut third = Machine::start_slow(&rack, 3, Duration::from_millis(40)).await;
    second.chunks(4).await;
    third.chunks(4).await;
    rack.kill_server().await;
    futures::future::join(second.finish(&rack), third.finish(&rack)).await;
    for machine in [first, second, third] {
        machine.client.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_found_again_and_goes_on() {
    let mut rack = Rack::start(image(5, 48, MIB)).await;
    let mut machine = Machine::start_slow(&rack, 1, Duration::from_millis(30)).await;
    machine.chunks(4).await;
    rack.kill_server().await;
    rack.restart_server().await;
    rack.admit(1, None).await;
    machine.finish(&rack).await;
    machine.hears(|event| matches!(event, SwarmEvent::Note(text) if text.contains("back"))).await;
    rack.stop(vec![machine]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_not_let_in_and_a_cancelled_machine_is_told() {
    let rack = Rack::start(image(6, 8, MIB)).await;
    let mut stranger = Machine::start_unknown(&rack, 7).await;
    let mut machine = Machine::start(&rack, 1, Some(2)).await;
    machine.hears(|event| matches!(event, SwarmEvent::Gather { arrived: 1, wanted: 2, .. })).await;
    rack.expel(1, "changed my mind").await;
    machine.hears(|event| *event == SwarmEvent::Cancel("changed my mind".to_owned())).await;
    assert!(!stranger.heard().iter().any(|event| matches!(event, SwarmEvent::Welcome(_))));
    rack.stop(vec![machine, stranger]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_line_carries_no_more_until_the_limit_is_lifted() {
    for site in [true, false] {
        let rack = Rack::start(image(7, 256, MIB)).await;
        rack.limit(site, Some("16M")).await;
        let begun = Instant::now();
        let mut machine = Machine::start(&rack, 1, None).await;
        machine.chunks(5).await;
        // 5 MiB of chunks at 95 % of 16 Mbit/s, but for what the bucket holds at first.
        let least =
            Duration::from_secs_f64(f64::from(5 * MIB) * 8.0 / (16e6 * 0.95)) - Duration::from_millis(300);
        assert!(begun.elapsed() >= least, "{:?} for what takes {least:?}", begun.elapsed());
        // At that rate all of it would take longer than the rack's patience.
        rack.limit(site, None).await;
        machine.finish(&rack).await;
        rack.stop(vec![machine]).await;
    }
}
