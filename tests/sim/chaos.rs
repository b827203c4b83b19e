//! Worlds made from a seed, with faults: every machine that can finish does, chunks that count as held were verified
//! (the world itself checks), and no line carries more than the faults explain. A seed that failed during development
//! stays here as a test of its own.

use crate::fault::Chaos;

/// Runs the world of `seed`, and returns its trace; or what is wrong with it.
fn run(seed: u64) -> Result<u64, String> {
    let Chaos { world, most, egress, into_site, bound, story } = Chaos::new(seed);
    let outcome = world.run(most);
    let wrong = |what: &str| Err(format!("{what}: {outcome:.3?} of at most {egress:.2}; {story}"));
    let Some(seconds) = outcome.seconds else {
        return wrong("not everybody finished in time");
    };
    if bound.is_some_and(|bound| seconds < bound * 0.999) {
        return wrong("quicker than is possible");
    }
    if outcome.egress > egress {
        return wrong("too much left the server");
    }
    if outcome.into_site.iter().any(|copies| *copies > into_site) {
        return wrong("too much went into a site");
    }
    Ok(outcome.trace)
}

/// The faults that were found: 242 and 1993: all waited for a weak machine that alone had what they wanted, while the
/// server was idle; 1999, the same with a machine that could not be reached, and 283 with a liar that the restarted
/// server had forgotten; 709, chunks leased to a machine that could not be reached; 123, two chunks of sixteen sent
/// twice, which is allowed.
#[test]
fn seeds_that_failed_on_the_way() {
    for seed in [123, 242, 283, 709, 1993, 1999] {
        assert_eq!(run(seed).err(), None, "seed {seed}");
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn whatever_happens_those_who_can_finish_do() {
    let seeds = match number("SWARMBOOT_SIM_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("SWARMBOOT_SIM_SEEDS").unwrap_or(20),
    };
    println!("seeds {seeds:?}");
    let (mut failed, mut digest) = (Vec::new(), 0u64);
    for seed in seeds {
        match run(seed) {
            Ok(trace) => digest = digest.rotate_left(1) ^ trace,
            Err(wrong) => {
                println!("seed {seed}: {wrong}");
                failed.push(seed);
            }
        }
    }
    // Of every request: a change that is only to be faster leaves the digest as it is.
    println!("digest {digest:016x}");
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}
