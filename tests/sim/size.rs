//! The test at full size: a thousand machines.

use std::time::Instant;

use crate::Case;
use crate::spec::{Spec, mbit};

const SITES: usize = 20;

/// The world's smallest step, in seconds: events are closer together than this here; its error is part of the ratio.
const GRAIN: f64 = 0.002;

/// `cargo test -p swarmboot-tests --test sim --release -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes, and is of use only with --release"]
fn a_thousand_machines_in_twenty_sites_and_4_gib() {
    let mut machines = vec![Spec::new(1000.0, 1000.0); 1000];
    machines.iter_mut().enumerate().for_each(|(at, machine)| machine.site = at % SITES);
    let name = "1,000 machines in 20 sites behind 50, 4 GiB";
    let case = Case { name, chunks: 4096, server: 1000.0, wan: vec![mbit(50.0); SITES], machines };
    let (began, bound) = (Instant::now(), case.bound());
    let outcome = case.world(1).grain(GRAIN).run(bound * 2.0);
    let time = outcome.seconds.expect("everybody finishes") / bound;
    let egress = outcome.egress / SITES as f64;
    let crossed = outcome.into_site.iter().copied().fold(0.0, f64::max);
    println!(
        "{name}: {time:.4} of the lower bound of {bound:.1} s, egress {egress:.4} a site, at most {crossed:.4} \
         into a site, twice {:.4} over all, in {:.0} s",
        outcome.duplicates,
        began.elapsed().as_secs_f64()
    );
    assert!(time <= 1.05);
    assert!(egress <= 1.02);
    assert!(crossed <= 1.02);
}
