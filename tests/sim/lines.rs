//! The world's lines: their rates, the chunks that are on their way over them, and how they share. A flow goes from a
//! machine's uplink to another's downlink, or from the server's uplink over a site's line. Touches nothing else.

use common::chunk::ChunkIndex;
use common::limits::CHUNK_BYTES;

use crate::spec::Spec;

/// Size of a chunk in bytes.
pub(crate) const CHUNK: f64 = CHUNK_BYTES as f64;

/// The rate of a line without a limit: far more than any machine could send.
pub(crate) const NO_LINE: f64 = 1e12;

/// A place holder where a path has fewer than three lines.
const NONE: usize = usize::MAX;

/// The sender of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    Server,
    Machine(usize),
}

/// A chunk on its way.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    pub(crate) from: Holder,
    pub(crate) to: usize,
    pub(crate) chunk: ChunkIndex,
    pub(crate) rate: f64,
    left: f64,
    path: [usize; 3],
}

/// Bytes that went from a holder to a machine in one step.
pub(crate) struct Moved {
    pub(crate) from: Holder,
    pub(crate) to: usize,
    pub(crate) bytes: f64,
}

/// All lines: the uplinks of the machines, their downlinks, the server's uplink, the sites' lines.
pub(crate) struct Lines {
    machines: usize,
    sites: Vec<usize>,
    rates: Vec<f64>,
    flows: Vec<Flow>,
    /// Whether flows or lines have changed since the rates were last computed.
    stale: bool,
    /// For computing rates: the unfixed flows on each line, its unused rate, and the lines in use.
    users: Vec<u32>,
    room: Vec<f64>,
    used: Vec<usize>,
}

impl Lines {
    pub(crate) fn new(server: f64, wan: &[f64], specs: &[Spec]) -> Self {
        let mut rates: Vec<f64> = specs.iter().map(|spec| spec.up).collect();
        rates.extend(specs.iter().map(|spec| spec.down));
        rates.push(server);
        rates.extend(wan);
        Self {
            machines: specs.len(),
            sites: specs.iter().map(|spec| spec.site).collect(),
            flows: Vec::new(),
            stale: false,
            users: vec![0; rates.len()],
            room: vec![0.0; rates.len()],
            used: Vec::new(),
            rates,
        }
    }

    pub(crate) fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// Sets the rates of a machine's lines from now on.
    pub(crate) fn set(&mut self, machine: usize, up: f64, down: f64) {
        self.rates[machine] = up;
        self.rates[self.machines + machine] = down;
        self.stale = true;
    }

    /// Starts a flow for one chunk.
    pub(crate) fn begin(&mut self, from: Holder, to: usize, chunk: ChunkIndex) {
        let down = self.machines + to;
        let path = match from {
            Holder::Machine(from) => [from, down, NONE],
            Holder::Server => [2 * self.machines, down, 2 * self.machines + 1 + self.sites[to]],
        };
        self.flows.push(Flow { from, to, chunk, rate: 0.0, left: CHUNK, path });
        self.stale = true;
    }

    /// Stops the flows for which `over` is true, and returns them.
    pub(crate) fn stop(&mut self, over: impl Fn(&Flow) -> bool) -> Vec<Flow> {
        let stopped: Vec<Flow> = self.flows.extract_if(.., |flow| over(flow)).collect();
        self.stale |= !stopped.is_empty();
        stopped
    }

    /// Computes max-min fair rates by progressive filling: the tightest line is divided first, then the next.
    pub(crate) fn share(&mut self) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        self.used.clear();
        for flow in &self.flows {
            for &line in flow.path.iter().filter(|line| **line != NONE) {
                if self.users[line] == 0 {
                    self.used.push(line);
                    self.room[line] = self.rates[line];
                }
                self.users[line] += 1;
            }
        }
        let mut open: Vec<usize> = (0..self.flows.len()).collect();
        while !open.is_empty() {
            let (mut tight, mut rate) = (NONE, f64::INFINITY);
            let (users, room) = (&mut self.users, &mut self.room);
            self.used.retain(|line| users[*line] > 0);
            for &line in &self.used {
                let share = room[line].max(0.0) / f64::from(users[line]);
                if share < rate {
                    (tight, rate) = (line, share);
                }
            }
            let flows = &mut self.flows;
            open.retain(|at| {
                let flow = &mut flows[*at];
                if !flow.path.contains(&tight) {
                    return true;
                }
                flow.rate = rate;
                for &line in flow.path.iter().filter(|line| **line != NONE) {
                    users[line] -= 1;
                    room[line] -= rate;
                }
                false
            });
        }
    }

    /// Seconds until the next flow ends.
    pub(crate) fn next_end(&self) -> f64 {
        let moving = self.flows.iter().filter(|flow| flow.rate > 0.0);
        moving.map(|flow| flow.left / flow.rate).fold(f64::INFINITY, f64::min)
    }

    /// Advances all flows by `step` seconds, and returns those that have ended.
    pub(crate) fn advance(&mut self, step: f64, mut moved: impl FnMut(Moved)) -> Vec<Flow> {
        for flow in self.flows.iter_mut().filter(|flow| flow.rate > 0.0) {
            let bytes = (flow.rate * step).min(flow.left);
            flow.left -= bytes;
            moved(Moved { from: flow.from, to: flow.to, bytes });
        }
        // Half a byte allows for rounding.
        self.stop(|flow| flow.left < 0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::mbit;

    fn rates(lines: &mut Lines, flows: &[(Holder, usize)]) -> Vec<f64> {
        for (from, to) in flows {
            lines.begin(*from, *to, ChunkIndex(0));
        }
        lines.share();
        lines.flows().iter().map(|flow| flow.rate).collect()
    }

    #[test]
    fn what_one_flow_cannot_use_the_others_get() {
        let mut machines = [Spec::new(100.0, 100.0); 3];
        machines[0].down = mbit(10.0);
        let mut lines = Lines::new(mbit(60.0), &[NO_LINE], &machines);
        let server = [0, 1, 2].map(|to| (Holder::Server, to));
        assert_eq!(rates(&mut lines, &server), [10.0, 25.0, 25.0].map(mbit));
    }

    #[test]
    fn a_site_shares_its_line_and_a_machine_its_uplink() {
        let mut machines = [Spec::new(100.0, 1000.0); 4];
        machines[3].site = 1;
        let mut lines = Lines::new(mbit(400.0), &[mbit(20.0), NO_LINE], &machines);
        let flows = [
            (Holder::Server, 0),
            (Holder::Server, 1),
            (Holder::Server, 3),
            (Holder::Machine(0), 1),
            (Holder::Machine(0), 2),
        ];
        assert_eq!(rates(&mut lines, &flows), [10.0, 10.0, 380.0, 50.0, 50.0].map(mbit));
    }

    #[test]
    fn nothing_moves_over_a_line_that_is_cut() {
        let mut lines = Lines::new(mbit(50.0), &[NO_LINE], &[Spec::new(100.0, 100.0); 2]);
        lines.set(0, 0.0, 0.0);
        assert_eq!(rates(&mut lines, &[(Holder::Server, 0), (Holder::Server, 1)]), [0.0, mbit(50.0)]);
        assert!((lines.next_end() - CHUNK / mbit(50.0)).abs() < 1e-9);
    }
}
