//! The swarm's two cores in a simulated world of links: everybody finishes, the server's line carries
//! about one copy, and the same seed gives the same run. Prints time over the fluid lower bound for each
//! case.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::print_stdout)]

mod world;

use common::limits::CHUNK_BYTES;
use world::{Fate, Outcome, Spec, World, mbit};

const CHUNKS: u32 = 96;

fn agents(count: usize, up: f64) -> Vec<Spec> {
    let spec = Spec { site: 0, up: mbit(up), down: mbit(1000.0), joins: 0.0, fate: Fate::Honest };
    vec![spec; count]
}

/// Runs the case with three seeds: the worst of each number.
fn worst(name: &str, most: f64, make: impl Fn(u64) -> World) -> Outcome {
    let runs: Vec<Outcome> = (1..=3).map(|seed| make(seed).run(most)).collect();
    for (seed, run) in (1..).zip(&runs) {
        println!("{name}, seed {seed}: {:.2?} s, egress {:.3}, {:?}", run.seconds, run.egress, run.into_site);
        assert!(run.seconds.is_some(), "{name}, seed {seed}: not everybody finished in {most} s");
    }
    let seconds = runs.iter().filter_map(|run| run.seconds).fold(0.0, f64::max);
    let egress = runs.iter().map(|run| run.egress).fold(0.0, f64::max);
    let sites = runs[0].into_site.len();
    let into = |site: usize| runs.iter().map(|run| run.into_site[site]).fold(0.0, f64::max);
    Outcome { seconds: Some(seconds), egress, into_site: (0..sites).map(into).collect(), trace: 0 }
}

fn image(rate: f64) -> f64 {
    f64::from(CHUNKS) * f64::from(CHUNK_BYTES) / mbit(rate)
}

fn ratio(name: &str, outcome: &Outcome, bound: f64) -> f64 {
    let ratio = outcome.seconds.unwrap_or(f64::INFINITY) / bound;
    println!("{name}: {ratio:.3} of the lower bound of {bound:.1} s, egress {:.3}", outcome.egress);
    ratio
}

#[test]
fn a_thin_server_uplink_carries_one_copy_and_is_always_busy() {
    let name = "server 50, eight peers 200 Mbit/s";
    let outcome =
        worst(name, 300.0, |seed| World::new(seed, CHUNKS, mbit(50.0), vec![mbit(1e5)], &agents(8, 200.0)));
    assert!(outcome.egress <= 1.02);
    assert!(ratio(name, &outcome, image(50.0)) <= 1.10);
}

#[test]
fn equal_links() {
    let name = "server and eight peers 100 Mbit/s";
    let outcome =
        worst(name, 300.0, |seed| World::new(seed, CHUNKS, mbit(100.0), vec![mbit(1e5)], &agents(8, 100.0)));
    assert!(outcome.egress <= 1.05);
    assert!(ratio(name, &outcome, image(100.0) * (1.0 + 3.0 / f64::from(CHUNKS))) <= 1.25);
}

#[test]
fn a_fast_server_does_not_send_more_than_one_copy() {
    let name = "server 400, eight peers 100 Mbit/s";
    let outcome =
        worst(name, 300.0, |seed| World::new(seed, CHUNKS, mbit(400.0), vec![mbit(1e5)], &agents(8, 100.0)));
    assert!(outcome.egress <= 1.05);
    // Eight copies through the server's one and eight uplinks of peers.
    assert!(ratio(name, &outcome, 8.0 * image(100.0 * 8.0 + 400.0)) <= 1.6);
}

#[test]
fn one_machine_alone_gets_the_whole_line() {
    let name = "one machine, 500 Mbit/s";
    let outcome =
        worst(name, 60.0, |seed| World::new(seed, CHUNKS, mbit(500.0), vec![mbit(1e5)], &agents(1, 100.0)));
    assert!((outcome.egress - 1.0).abs() < 0.001);
    assert!(ratio(name, &outcome, image(500.0)) <= 1.05);
}

#[test]
fn two_sites_behind_thin_lines_get_one_copy_each() {
    let name = "two sites of four behind 20 Mbit/s";
    let outcome = worst(name, 300.0, |seed| {
        let mut specs = agents(8, 500.0);
        specs.iter_mut().skip(4).for_each(|spec| spec.site = 1);
        World::new(seed, CHUNKS / 2, mbit(1000.0), vec![mbit(20.0); 2], &specs)
    });
    assert!(outcome.into_site.iter().all(|copies| *copies <= 1.02), "{outcome:?}");
    assert!(ratio(name, &outcome, image(20.0) / 2.0) <= 1.10);
}

#[test]
fn machines_that_come_one_after_the_other_take_from_each_other() {
    let outcome = worst("three machines, 8 s apart", 300.0, |seed| {
        let mut specs = agents(3, 300.0);
        specs.iter_mut().zip([0.0, 8.0, 16.0]).for_each(|(spec, joins)| spec.joins = joins);
        World::new(seed, CHUNKS, mbit(50.0), vec![mbit(1e5)], &specs)
    });
    assert!(outcome.egress <= 1.02);
}

#[test]
fn slow_uplinks_do_not_hold_the_others_up() {
    let name = "two of eight with a twentieth of the uplink";
    let outcome = worst(name, 300.0, |seed| {
        let mut specs = agents(8, 200.0);
        specs.iter_mut().take(2).for_each(|spec| spec.up = mbit(10.0));
        World::new(seed, CHUNKS, mbit(50.0), vec![mbit(1e5)], &specs)
    });
    assert!(outcome.egress <= 1.06);
    assert!(ratio(name, &outcome, image(50.0)) <= 1.35);
}

#[test]
fn machines_that_are_switched_off_do_not_stop_the_others() {
    let outcome = worst("three of eight are killed", 300.0, |seed| {
        let mut specs = agents(8, 200.0);
        specs.iter_mut().zip([3.0, 6.0, 9.0]).for_each(|(spec, at)| spec.fate = Fate::Killed(at));
        World::new(seed, CHUNKS, mbit(50.0), vec![mbit(1e5)], &specs)
    });
    assert!(outcome.egress <= 1.25);
}

#[test]
fn a_liar_delays_but_does_not_stop() {
    let outcome = worst("one of six lies", 300.0, |seed| {
        let mut specs = agents(6, 200.0);
        specs[0].fate = Fate::Liar;
        World::new(seed, CHUNKS, mbit(50.0), vec![mbit(1e5)], &specs)
    });
    assert!(outcome.egress <= 1.10);
}

#[test]
fn without_any_way_between_them_the_server_serves_all() {
    let outcome = worst("three isolated machines", 300.0, |seed| {
        let mut specs = agents(3, 200.0);
        specs.iter_mut().for_each(|spec| spec.fate = Fate::Isolated);
        World::new(seed, CHUNKS / 2, mbit(100.0), vec![mbit(1e5)], &specs)
    });
    assert!(outcome.egress >= 2.9 && outcome.egress <= 3.05, "{outcome:?}");
}

#[test]
fn once_the_first_copy_is_out_the_server_may_die() {
    // One copy takes 16 s.
    let outcome = worst("the server dies", 300.0, |seed| {
        World::new(seed, CHUNKS, mbit(50.0), vec![mbit(1e5)], &agents(6, 20.0)).server_dies(20.0)
    });
    assert!(outcome.egress <= 1.02);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut specs = agents(6, 200.0);
        specs[0].fate = Fate::Liar;
        specs[1].fate = Fate::Killed(4.0);
        World::new(seed, CHUNKS / 2, mbit(50.0), vec![mbit(1e5)], &specs).run(300.0)
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5).trace, run(6).trace);
}
