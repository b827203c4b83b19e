//! One fault at a time: a machine that is late, slow, gone, stalled, cut off or lying does not hold up the others, and
//! costs the server no more than it must.

use crate::lines::NO_LINE;
use crate::spec::{Fate, Spec, mbit};
use crate::world::World;
use crate::{Case, worst};

const CHUNKS: u32 = 96;

fn machines(count: usize, up: f64) -> Vec<Spec> {
    vec![Spec::new(up, 1000.0); count]
}

fn world(seed: u64, server: f64, machines: &[Spec]) -> World {
    World::new(seed, CHUNKS, mbit(server), &[NO_LINE], machines)
}

#[test]
fn one_machine_alone_gets_the_whole_line() {
    let name = "one machine, 500 Mbit/s";
    // So many chunks that the start of the sessions, a tick and a few messages, does not count for much.
    let case = Case { name, chunks: 256, server: 500.0, wan: vec![NO_LINE], machines: machines(1, 100.0) };
    let (time, outcome) = case.ratio();
    assert!((outcome.egress - 1.0).abs() < 0.001);
    assert!(time <= 1.05);
}

#[test]
fn machines_that_come_one_after_the_other_take_from_each_other() {
    let outcome = worst("three machines, 8 s apart", 300.0, |seed| {
        let mut specs = machines(3, 300.0);
        specs.iter_mut().zip([0.0, 8.0, 16.0]).for_each(|(spec, joins)| spec.joins = joins);
        world(seed, 50.0, &specs)
    });
    assert!(outcome.egress <= 1.02);
}

#[test]
fn slow_uplinks_do_not_hold_the_others_up() {
    let mut machines = machines(8, 200.0);
    machines.iter_mut().take(2).for_each(|machine| machine.up = mbit(10.0));
    let name = "two of eight with a twentieth of the uplink";
    let (time, outcome) = Case { name, chunks: CHUNKS, server: 50.0, wan: vec![NO_LINE], machines }.ratio();
    assert!(outcome.egress <= 1.06);
    assert!(time <= 1.15);
}

#[test]
fn machines_that_are_switched_off_do_not_stop_the_others() {
    let outcome = worst("three of eight are killed", 300.0, |seed| {
        let mut specs = machines(8, 200.0);
        specs.iter_mut().zip([3.0, 6.0, 9.0]).for_each(|(spec, at)| spec.fate = Fate::Killed(at));
        world(seed, 50.0, &specs)
    });
    assert!(outcome.egress <= 1.25);
}

#[test]
fn a_machine_that_starts_again_goes_on_with_what_it_had() {
    let outcome = worst("one of two starts again half-way", 300.0, |seed| {
        let mut specs = machines(2, 200.0);
        specs[0].fate = Fate::Restarts(8.0, 14.0);
        world(seed, 50.0, &specs)
    });
    // Chunks that only the lost machine had are sent once more; its other chunks are not fetched again.
    assert!(outcome.egress <= 1.25);
    assert!(outcome.duplicates <= 0.02);
}

#[test]
fn a_machine_that_nothing_reaches_for_a_while_is_done_without() {
    let outcome = worst("one of eight stalls for 10 s", 300.0, |seed| {
        let mut specs = machines(8, 200.0);
        specs[0].fate = Fate::Stalls(4.0, 14.0);
        world(seed, 50.0, &specs)
    });
    assert!(outcome.egress <= 1.25);
}

#[test]
fn a_liar_delays_but_does_not_stop() {
    let outcome = worst("one of six lies", 300.0, |seed| {
        let mut specs = machines(6, 200.0);
        specs[0].fate = Fate::Liar;
        world(seed, 50.0, &specs)
    });
    assert!(outcome.egress <= 1.10);
}

#[test]
fn without_any_way_between_them_the_server_serves_all() {
    let outcome = worst("three isolated machines", 300.0, |seed| {
        let mut specs = machines(3, 200.0);
        specs.iter_mut().for_each(|spec| spec.fate = Fate::Isolated);
        World::new(seed, CHUNKS / 2, mbit(100.0), &[NO_LINE], &specs)
    });
    assert!(outcome.egress >= 2.9 && outcome.egress <= 3.05, "{outcome:?}");
}

#[test]
fn once_the_first_copy_is_out_the_server_may_die() {
    // One copy takes 16 s.
    let outcome = worst("the server dies", 300.0, |seed| {
        world(seed, 50.0, &machines(6, 20.0)).server_dies(20.0, f64::INFINITY)
    });
    assert!(outcome.egress <= 1.02);
}

#[test]
fn a_server_that_comes_back_does_not_begin_anew() {
    let outcome = worst("the server is gone from 6 s to 12 s", 300.0, |seed| {
        world(seed, 50.0, &machines(6, 200.0)).server_dies(6.0, 12.0)
    });
    assert!(outcome.egress <= 1.10);
}

#[test]
fn a_far_server_is_as_good_as_a_near_one() {
    let outcome = worst("40 ms to the server", 300.0, |seed| {
        World::new(seed, CHUNKS, mbit(400.0), &[mbit(20.0)], &machines(6, 200.0)).delays(0.0005, 0.04)
    });
    assert!(outcome.into_site[0] <= 1.02);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut specs = machines(6, 200.0);
        specs[0].fate = Fate::Liar;
        specs[1].fate = Fate::Killed(4.0);
        specs[2].fate = Fate::Restarts(3.0, 6.0);
        world(seed, 50.0, &specs).run(300.0)
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5).trace, run(6).trace);
}
