//! The swarm in one process over loopback: a server node and agents with targets in memory. What is checked: every byte
//! is right, bytes come from peers, few copies leave the server, wrong senders are named, and no server is needed once
//! the first copy is out.
// A rack that does not work is a failed test.
#![allow(clippy::unwrap_used)]

mod pest;
mod rack;
mod rogue;
mod soak;

use std::time::{Duration, Instant};

use agent::swarm::SwarmEvent;
use pest::{Pest, pest};
use rack::{Machine, Rack, image};
use rogue::{Manner, rogue};
use server::swarm::{Party, SwarmFact};

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

/// Each kind in a rack of its own: the others finish, and their log names the node that broke the rules.
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
        (Manner::SaysItAgain, "breaks the protocol"),
    ];
    let racks = manners.map(async |(manner, said)| {
        let rack = Rack::start(image(8, 24, MIB)).await;
        let rogue = rogue(&rack, 9, manner).await;
        // So slow that the change happens before the end.
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
    // So slow that the server is gone before the end.
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
        rack.limit(site, Some("16M"));
        let begun = Instant::now();
        let mut machine = Machine::start(&rack, 1, None).await;
        machine.chunks(5).await;
        // 5 MiB of chunks at 95 % of 16 Mbit/s, minus what is let through at first.
        let least =
            Duration::from_secs_f64(f64::from(5 * MIB) * 8.0 / (16e6 * 0.95)) - Duration::from_millis(300);
        assert!(begun.elapsed() >= least, "{:?} for what takes {least:?}", begun.elapsed());
        // At that rate the whole image would take longer than the rack's timeout.
        rack.limit(site, None);
        machine.finish(&rack).await;
        rack.stop(vec![machine]).await;
    }
}

/// An admitted machine that floods the server: the others finish soon, and the server answers meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_floods_the_server_holds_up_nobody() {
    for manner in [Pest::SaysItAgain, Pest::SaysWhatIsNot, Pest::SpeaksWithoutEnd, Pest::ReadsSlowly] {
        let rack = Rack::start(image(9, 24, MIB)).await;
        let pest = pest(&rack, 9, manner).await;
        let begun = Instant::now();
        let mut first = Machine::start(&rack, 1, None).await;
        let mut second = Machine::start(&rack, 2, None).await;
        futures::future::join(first.finish(&rack), second.finish(&rack)).await;
        assert!(begun.elapsed() < Duration::from_secs(60), "{manner:?}: {:?}", begun.elapsed());
        let took = rack.answers().await;
        assert!(took < Duration::from_secs(2), "{manner:?}: {took:?}");
        if matches!(manner, Pest::SaysItAgain | Pest::SaysWhatIsNot) {
            let named = |fact: &SwarmFact| matches!(fact, SwarmFact::Left { job, cause } if job.0 == 9 && cause.contains("breaks the protocol"));
            rack.hears(named).await;
        }
        pest.task.abort();
        rack.stop(vec![first, second]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leased_chunk_is_not_sent_again_and_again() {
    let rack = Rack::start(image(10, 24, MIB)).await;
    let pest = pest(&rack, 9, Pest::PullsOneChunk).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let pulled = pest.pulled.load(std::sync::atomic::Ordering::Relaxed);
    assert!((1..=3).contains(&pulled), "one chunk was pulled {pulled} times under one lease");
    pest.task.abort();
    rack.stop(vec![]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_chunk_is_had_again_from_a_machine_that_has_it() {
    let rack = Rack::start(image(11, 12, MIB)).await;
    let mut first = Machine::start(&rack, 1, None).await;
    first.finish(&rack).await;
    rack.rot(5);
    // At another site, so that it cannot fetch from the first.
    rack.admit_at(2, None, "branch").await;
    let mut second = Machine::start_unknown(&rack, 2).await;
    second.finish(&rack).await;
    assert_eq!(rack.rotten(), 0);
    rack.hears(
        |fact| matches!(fact, SwarmFact::ChunkMended { from: Some(Party::Job(job)), .. } if job.0 == 1),
    )
    .await;
    assert_eq!(second.client.sources().server_chunks, 12);
    rack.stop(vec![first, second]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_chunk_that_nobody_has_ends_the_job_and_is_said_once() {
    let rack = Rack::start(image(12, 12, MIB)).await;
    rack.rot(5);
    let mut machine = Machine::start(&rack, 1, None).await;
    machine.chunks(11).await;
    machine.hears(|event| matches!(event, SwarmEvent::Broken(cause) if cause.contains("image verify"))).await;
    assert_eq!(rack.count(|fact| matches!(fact, SwarmFact::ChunkLost { .. })), 1);
    rack.stop(vec![machine]).await;
}
