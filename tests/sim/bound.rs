//! The least time that a world's lines allow, whatever the scheduler: the fluid bound of Kumar and Ross (HotWeb 2006),
//! its terms for sites behind slow lines, and the least that whole chunks add (Mundinger, Weber and Weiss, J.
//! Scheduling 2008). Touches nothing. Here a line's whole rate is payload.

use crate::spec::Spec;

/// The least seconds until every one of `machines` has `image` bytes in chunks of `chunk`, from a server that sends
/// `server` bytes per second, into sites behind lines of `wan`. No machine sends to another site.
pub(crate) fn lower_bound(image: f64, chunk: f64, server: f64, wan: &[f64], machines: &[Spec]) -> f64 {
    let all = Group::of(machines.iter());
    let count = machines.len() as f64;
    let sites: Vec<(f64, Group)> = wan
        .iter()
        .enumerate()
        .map(|(site, line)| (*line, Group::of(machines.iter().filter(|machine| machine.site == site))))
        .filter(|(_, group)| group.count > 0.0)
        .collect();
    // Each site needs its own copy from the server.
    let mut bound =
        (sites.len() as f64 * image / server).max(image / all.down).max(count * image / (server + all.up));
    if all.count > 1.0 && all.least >= all.most && (all.most - server).abs() < 1.0 {
        bound = bound.max(image / server * (1.0 + count.log2().floor() * chunk / image));
    } else if all.count > 1.0 && server < all.least {
        bound = bound.max(image / server + chunk / all.most);
    }
    for (line, group) in sites {
        let passed_on = if group.count > 1.0 { chunk / group.most } else { 0.0 };
        bound = bound.max(image / line + passed_on).max(group.count * image / (line + group.up));
    }
    bound
}

/// The sums and extremes of some machines' lines.
struct Group {
    count: f64,
    /// Their uplinks together; the slowest and the fastest of them.
    up: f64,
    least: f64,
    most: f64,
    /// The slowest of their downlinks.
    down: f64,
}

impl Group {
    fn of<'a>(machines: impl Iterator<Item = &'a Spec>) -> Self {
        let empty = Self { count: 0.0, up: 0.0, least: f64::INFINITY, most: 0.0, down: f64::INFINITY };
        machines.fold(empty, |group, machine| Self {
            count: group.count + 1.0,
            up: group.up + machine.up,
            least: group.least.min(machine.up),
            most: group.most.max(machine.up),
            down: group.down.min(machine.down),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::mbit;

    const NO_LINE: [f64; 1] = [1e15];

    fn near(server: f64, wan: &[f64], machines: &[Spec], expected: f64) {
        let bound = lower_bound(256.0 * 1e6, 1e6, mbit(server), wan, machines);
        assert!((bound - expected).abs() < 0.001, "{bound} s instead of {expected}");
    }

    #[test]
    fn a_thin_server_sends_one_copy_and_the_last_chunk_is_passed_on() {
        near(50.0, &NO_LINE, &[Spec::new(200.0, 200.0); 8], 256.0 / 6.25 + 1.0 / 25.0);
    }

    #[test]
    fn equal_lines_double_the_copies_of_a_chunk_each_round() {
        near(100.0, &NO_LINE, &[Spec::new(100.0, 100.0); 8], 256.0 / 12.5 * (1.0 + 3.0 / 256.0));
        near(100.0, &NO_LINE, &[Spec::new(100.0, 100.0); 16], 256.0 / 12.5 * (1.0 + 4.0 / 256.0));
    }

    #[test]
    fn a_fast_server_and_the_peers_send_all_copies_together() {
        near(400.0, &NO_LINE, &[Spec::new(100.0, 1000.0); 8], 8.0 * 256.0 / (50.0 + 8.0 * 12.5));
    }

    #[test]
    fn the_slowest_receiver_sets_the_pace() {
        let mut machines = [Spec::new(100.0, 100.0); 4];
        machines[2].down = mbit(10.0);
        near(400.0, &NO_LINE, &machines, 256.0 / 1.25);
    }

    #[test]
    fn each_site_has_its_own_copy() {
        let mut machines = [Spec::new(200.0, 200.0); 8];
        machines.iter_mut().skip(4).for_each(|machine| machine.site = 1);
        near(400.0, &[mbit(20.0); 2], &machines, 256.0 / 2.5 + 1.0 / 25.0);
        near(30.0, &[mbit(20.0); 2], &machines, 2.0 * 256.0 / 3.75);
    }
}
