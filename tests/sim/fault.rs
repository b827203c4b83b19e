//! Makes a world with faults from a seed, and what may be expected of it. Touches only random numbers.

use common::swarm::splitmix::SplitMix64;

use crate::bound::lower_bound;
use crate::lines::{CHUNK, NO_LINE};
use crate::spec::{Fate, Spec, mbit};
use crate::world::World;

/// A world made from a seed, with its bounds.
pub(crate) struct Chaos {
    pub(crate) world: World,
    /// Seconds within which every machine that can finish does.
    pub(crate) most: f64,
    /// The most copies of the image that may leave the server, and that may go into any one site.
    pub(crate) egress: f64,
    pub(crate) into_site: f64,
    /// The least time that the lines allow; none where machines join later, or leave.
    pub(crate) bound: Option<f64>,
    /// The world and its faults, as text.
    pub(crate) story: String,
}

impl Chaos {
    /// The world of `seed`: up to three sites of up to seven machines, about a third of which have a fault.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed ^ 0xC4A0_5EED);
        let sites = 1 + rng.below(3);
        let chunks = 16 + rng.below(48) as u32;
        let server = mbit(rng.pick(&[40.0, 100.0, 400.0, 1000.0]));
        let wan: Vec<f64> = (0..sites).map(|_| rng.pick(&[mbit(20.0), mbit(60.0), NO_LINE])).collect();
        let mut specs = Vec::new();
        for site in 0..sites {
            let up = rng.pick(&[50.0, 100.0, 300.0]);
            for _ in 0..=rng.below(7) {
                specs.push(Spec { site, ..machine(&mut rng, up) });
            }
        }
        let (lan, far) = (rng.pick(&[0.0002, 0.0005, 0.002]), rng.pick(&[0.001, 0.01, 0.04]));
        let mut world = World::new(seed, chunks, server, &wan, &specs).delays(lan, far);
        let dies = (rng.below(8) == 0).then(|| 1.0 + rng.real() * 10.0);
        if let Some(at) = dies {
            world = world.server_dies(at, at + 2.0 + rng.real() * 10.0);
        }
        let image = f64::from(chunks) * CHUNK;
        let bound = lower_bound(image, CHUNK, server, &wan, &specs);
        let line = |site: usize| server.min(wan[site]);
        let troubles: f64 = specs.iter().map(|spec| trouble(spec, &specs, line(spec.site))).sum();
        let untroubled = specs.iter().all(|spec| spec.joins == 0.0 && spec.fate == Fate::Honest);
        // A chunk or two that are requested twice count for much in a small image.
        let again = f64::from(u8::from(dies.is_some())) + 2.0 / f64::from(chunks);
        Self {
            world,
            // Each fault costs its timeout.
            most: 60.0 + 4.0 * bound + 20.0 * troubles,
            egress: sites as f64 * 1.06 + troubles + again,
            into_site: 1.06 + troubles + again,
            bound: (untroubled && dies.is_none()).then_some(bound),
            story: format!(
                "{chunks} chunks, sites {wan:.0?}, server {server:.0}, gone {dies:.1?}, {specs:.1?}"
            ),
        }
    }
}

fn machine(rng: &mut SplitMix64, up: f64) -> Spec {
    let mut spec = Spec::new(up, rng.pick(&[100.0, 300.0, 1000.0]));
    if rng.below(4) == 0 {
        spec.joins = rng.real() * 15.0;
    }
    if rng.below(10) == 0 {
        spec.up /= 20.0;
    }
    let at = spec.joins + rng.real() * 12.0;
    let until = at + 1.0 + rng.real() * 14.0;
    spec.fate = match rng.below(20) {
        0 => Fate::Killed(at),
        1 | 2 => Fate::Restarts(at, until),
        3 => Fate::Stalls(at, until),
        4 => Fate::Liar,
        5 if rng.below(3) == 0 => Fate::Isolated,
        _ => Fate::Honest,
    };
    spec
}

/// The copies that may leave the server in addition, because of what happens to one machine. One that is cut off costs
/// one copy, and the chunks that were leased to it before that showed; with one that leaves, or cannot be reached, the
/// chunks that nobody else had yet are lost, which is all of them at the worst. A liar costs no more than the chunks
/// leased to it, and two chunks for each machine that asks it.
fn trouble(spec: &Spec, all: &[Spec], line: f64) -> f64 {
    let fate = match spec.fate {
        Fate::Honest => 0.0,
        Fate::Killed(_) | Fate::Restarts(..) | Fate::Stalls(..) => 1.0,
        Fate::Isolated => 1.25,
        Fate::Liar => 0.5,
    };
    let ups = || all.iter().filter(|other| other.site == spec.site).map(|other| other.up);
    // The first machine to join may be alone with all that others want: what a weak uplink does not deliver in time is
    // sent again, as is what weak machines deliver slowly that alone have it.
    let weak = spec.up < ups().fold(0.0, f64::max) / 4.0 || ups().sum::<f64>() < line / 4.0;
    fate + if weak { 1.0 } else { 0.0 }
}

/// The random choices of which worlds are made.
trait Chance {
    fn pick<T: Copy>(&mut self, of: &[T]) -> T;
    /// A number from 0 to 1.
    fn real(&mut self) -> f64;
}

impl Chance for SplitMix64 {
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn real(&mut self) -> f64 {
        self.below(1000) as f64 / 1000.0
    }
}
