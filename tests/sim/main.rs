//! The swarm's two cores in a simulated world of lines: every machine finishes, the server's line carries about one
//! copy, and the same seed gives the same run. Each test prints the time over the lower bound, the copies that left the
//! server and went into sites, and the copies that came twice.
//!
//! `SWARMBOOT_SIM_SEEDS=500 cargo test -p swarmboot-tests --test sim --release` runs so many worlds with faults instead
//! of 20; `SWARMBOOT_SIM_SEED=17` runs that one alone. A thousand machines: `cargo test -p swarmboot-tests --test sim
//! --release -- --ignored --nocapture`.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::print_stdout)]

// The world: lines, messages on their way, server, machines, and the clock.
mod first_seed;
mod lines;
mod machine;
mod post;
mod world;

// Boot files into sites that are switched on together.
mod power_on;

// Names of the server, the machines and the image, and a machine's description.
mod names;
mod spec;

// Worlds with faults, and the least time that lines allow.
mod bound;
mod fault;

// The tests: the table of bars, one fault at a time, worlds made from a seed, full size.
mod chaos;
mod faults;
mod size;
mod table;

use bound::lower_bound;
use lines::CHUNK;
use spec::{Spec, mbit};
use world::{Outcome, World};

/// A world without faults; rates in Mbit/s.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) chunks: u32,
    pub(crate) server: f64,
    pub(crate) wan: Vec<f64>,
    pub(crate) machines: Vec<Spec>,
}

impl Case {
    /// Its world for `seed`.
    pub(crate) fn world(&self, seed: u64) -> World {
        World::new(seed, self.chunks, mbit(self.server), &self.wan, &self.machines)
    }

    pub(crate) fn bound(&self) -> f64 {
        let image = f64::from(self.chunks) * CHUNK;
        lower_bound(image, CHUNK, mbit(self.server), &self.wan, &self.machines)
    }

    /// Runs it with three seeds, for at most `most` seconds each: the worst of each number.
    pub(crate) fn worst(&self, most: f64) -> Outcome {
        worst(self.name, most, |seed| self.world(seed))
    }

    /// The worst time over the lower bound, and the worst of the other numbers.
    pub(crate) fn ratio(&self) -> (f64, Outcome) {
        let bound = self.bound();
        let outcome = self.worst(bound * 5.0);
        let ratio = outcome.seconds.unwrap_or(f64::INFINITY) / bound;
        println!(
            "{}: {ratio:.3} of the lower bound of {bound:.1} s, egress {:.3}, into sites {:.3?}, twice {:.3}",
            self.name, outcome.egress, outcome.into_site, outcome.duplicates
        );
        assert!(ratio >= 0.999, "{}: quicker than is possible", self.name);
        (ratio, outcome)
    }
}

/// Runs a world with three seeds: the worst of each number.
pub(crate) fn worst(name: &str, most: f64, make: impl Fn(u64) -> World) -> Outcome {
    let runs: Vec<Outcome> = (1..=3).map(|seed| make(seed).run(most)).collect();
    for (seed, run) in (1..).zip(&runs) {
        println!("{name}, seed {seed}: {run:.3?}");
        assert!(run.seconds.is_some(), "{name}, seed {seed}: not everybody finished in {most} s");
    }
    let most = |number: &dyn Fn(&Outcome) -> f64| runs.iter().map(number).fold(0.0, f64::max);
    Outcome {
        seconds: Some(most(&|run| run.seconds.unwrap_or(f64::INFINITY))),
        egress: most(&|run| run.egress),
        into_site: (0..runs[0].into_site.len()).map(|site| most(&|run| run.into_site[site])).collect(),
        duplicates: most(&|run| run.duplicates),
        trace: 0,
    }
}
