//! Owns the scenarios: each one's lines, machines, image and bars, and the least time that the lines allow. Touches the
//! image's file.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lab::wires::Mbit;
use lab::{disk, images};

/// The share of a line's rate that is payload: 1448 of 1514 bytes of a full Ethernet frame are TCP's payload.
pub(crate) const PAYLOAD: f64 = 0.956;

/// Another program that brings an image to many machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// nginx, and a curl for each machine, which syncs its file at the end as our agent does.
    Http,
    /// nginx, and the command of a rescue system: curl into dd.
    CurlDd,
    /// libtorrent, with super seeding at the server.
    SuperSeeding,
    /// libtorrent, with an ordinary seed.
    Libtorrent,
    /// aria2, with opentracker.
    Aria2,
    /// udpcast: multicast, in one broadcast domain only.
    Udpcast,
}

impl Peer {
    /// Every peer, in the order of the table.
    pub(crate) const ALL: [Self; 6] =
        [Self::Http, Self::CurlDd, Self::SuperSeeding, Self::Libtorrent, Self::Aria2, Self::Udpcast];

    /// The name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "nginx, curl",
            Self::CurlDd => "nginx, curl into dd",
            Self::SuperSeeding => "libtorrent, super seeding",
            Self::Libtorrent => "libtorrent",
            Self::Aria2 => "aria2",
            Self::Udpcast => "udpcast",
        }
    }

    /// Whether it can run `scenario` at all.
    pub(crate) fn can(self, scenario: &Scenario) -> bool {
        // These scenarios are swarmboot's own: a disk that holds most of the image, machines that come one by one, a
        // server that is restarted.
        let own = matches!(
            scenario.twist,
            Twist::Reinstall(_) | Twist::Rebuilt | Twist::Staggered(_) | Twist::ServerKilled
        );
        if own || scenario.content == Content::Debian && !matches!(self, Self::CurlDd | Self::Http) {
            return false;
        }
        match self {
            Self::CurlDd => scenario.machines == 1,
            Self::Udpcast => scenario.sites.is_empty() && scenario.machines > 1,
            _ => true,
        }
    }

    /// Whether it has to start without a file, because it would take an existing one for a part of the download.
    pub(crate) fn makes_its_own_file(self) -> bool {
        matches!(self, Self::SuperSeeding | Self::Libtorrent | Self::Aria2)
    }
}

/// Size of a chunk in bytes.
const CHUNK: f64 = 1_048_576.0;

/// How a scenario departs from "all machines are blank and start together".
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Twist {
    /// Not at all.
    None,
    /// Every fourth machine sends at this rate only, in Mbit/s.
    WeakPeers(f64),
    /// This many packets of a thousand are lost on their way from every host.
    Loss(u32),
    /// One machine starts every so many seconds.
    Staggered(f64),
    /// The disks hold the image already, but for so many chunks of a hundred.
    Reinstall(u64),
    /// The disks hold an earlier build of the image, which the server has as well.
    Rebuilt,
    /// The server is killed when every chunk has left it.
    ServerKilled,
}

/// The bytes of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Random bytes, which do not compress.
    Random,
    /// A real Debian, as the flows install it.
    Debian,
}

/// The bars of a scenario, which its results must not exceed; none where there is no bar.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bars {
    /// The slowest machine's time over the lower bound.
    pub(crate) time: Option<f64>,
    /// Copies of the image that leave the server.
    pub(crate) egress: Option<f64>,
    /// Copies of the image that go into each site.
    pub(crate) wan: Option<f64>,
    /// The time of the machine that began last over the least that its own line allows.
    pub(crate) last: Option<f64>,
    /// Processor seconds of all machines and the server for each GiB that they received together.
    pub(crate) cpu: Option<f64>,
    /// The most memory of an agent, in MiB.
    pub(crate) memory: Option<f64>,
    /// The slowest machine's time over that of a peer in the same run.
    pub(crate) rival: Option<(Peer, f64)>,
}

/// One row of the table.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) server: Mbit,
    pub(crate) up: Mbit,
    pub(crate) down: Mbit,
    /// The sites behind a line: the line's rate and the number of machines; empty when all are on the server's LAN.
    pub(crate) sites: Vec<(f64, usize)>,
    pub(crate) machines: usize,
    pub(crate) mib: u64,
    pub(crate) twist: Twist,
    pub(crate) content: Content,
    pub(crate) bars: Bars,
}

impl Scenario {
    fn new(name: &'static str, server: f64, up: f64, machines: usize) -> Self {
        Self {
            name,
            server: Some(server),
            up: Some(up),
            down: Some(up),
            sites: vec![],
            machines,
            mib: 256,
            twist: Twist::None,
            content: Content::Random,
            bars: Bars::default(),
        }
    }

    fn bars(mut self, time: Option<f64>, egress: Option<f64>, wan: Option<f64>) -> Self {
        self.bars = Bars { time, egress, wan, ..self.bars };
        self
    }

    /// A scenario without limits on its lines: as fast as the computer is.
    fn unlimited(name: &'static str, machines: usize, mib: u64) -> Self {
        let lines = Self { server: None, up: None, down: None, ..Self::new(name, 0.0, 0.0, machines) };
        Self { mib, ..lines }
    }

    fn twist(mut self, twist: Twist) -> Self {
        self.twist = twist;
        self
    }

    fn behind(mut self, mib: u64, sites: &[(f64, usize)]) -> Self {
        self.sites = sites.to_vec();
        self.machines = sites.iter().map(|(_, machines)| machines).sum();
        self.mib = mib;
        self
    }

    /// The same scenario with every line `times` slower.
    pub(crate) fn slower(mut self, times: f64) -> Self {
        let rates = [&mut self.server, &mut self.up, &mut self.down].into_iter().flatten();
        rates.chain(self.sites.iter_mut().map(|(rate, _)| rate)).for_each(|rate| *rate /= times);
        if let Twist::WeakPeers(rate) = &mut self.twist {
            *rate /= times;
        }
        self
    }

    /// The site of each machine: 0 for the server's LAN, then the sites behind lines from 1.
    pub(crate) fn places(&self) -> Vec<usize> {
        if self.sites.is_empty() {
            return vec![0; self.machines];
        }
        (1..).zip(&self.sites).flat_map(|(site, (_, machines))| vec![site; *machines]).collect()
    }

    /// The rate at which machine `number` can send.
    pub(crate) fn up_of(&self, number: usize) -> Mbit {
        match self.twist {
            Twist::WeakPeers(rate) if number % 4 == 3 => Some(rate),
            _ => self.up,
        }
    }

    /// The scenario to run beside peers: with a quarter of the image where lines limit and there are several machines,
    /// or peers that send each machine its own copy would take an hour. swarmboot then runs with that as well.
    pub(crate) fn for_peers(&self) -> Self {
        let smaller = self.server.is_some() && self.machines > 1;
        let mib = if smaller { self.mib / 4 } else { self.mib };
        Self { mib, bars: Bars::default(), ..self.clone() }
    }

    /// Size of the image in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.mib << 20
    }

    /// The path of the image's file, made at `path` if it is random.
    pub(crate) fn image(&self, path: &Path) -> Result<PathBuf> {
        match self.content {
            Content::Random => disk::random(path, self.bytes(), 1),
            Content::Debian => {
                std::fs::copy(images::debian()?.a, path)?;
                Ok(path.to_owned())
            }
        }
    }

    /// Sets the size of a real image from its file.
    pub(crate) fn measure(&mut self) -> Result<()> {
        if self.content == Content::Debian {
            self.mib = std::fs::metadata(images::debian()?.a)?.len() >> 20;
        }
        Ok(())
    }

    /// The seconds that no scheduler can get below: the fluid bound of Kumar and Ross (HotWeb 2006) with its terms for
    /// sites, and the least that whole chunks add (Mundinger, Weber and Weiss 2008), as in `tests/sim/bound.rs`. None
    /// where no line limits. `wire` is how many bytes each machine has to receive.
    pub(crate) fn bound(&self, wire: f64) -> Option<f64> {
        let lost = if let Twist::Loss(lost) = self.twist { f64::from(lost) / 1000.0 } else { 0.0 };
        let bytes = |rate: f64| rate * 1e6 / 8.0 * PAYLOAD * (1.0 - lost);
        let (server, down) = (bytes(self.server?), bytes(self.down?));
        let ups: Option<Vec<f64>> = (0..self.machines).map(|number| self.up_of(number).map(bytes)).collect();
        let (ups, places) = (ups?, self.places());
        let count = f64::from(u32::try_from(self.machines).ok()?);
        let all: f64 = ups.iter().sum();
        let most = ups.iter().copied().fold(0.0, f64::max);
        let least = ups.iter().copied().fold(f64::INFINITY, f64::min);
        let mut bound = (wire / server).max(wire / down).max(count * wire / (server + all));
        if self.machines > 1 && least >= most && (most - server).abs() < 1.0 {
            bound = bound.max(wire / server * (1.0 + count.log2().floor() * CHUNK / wire));
        } else if self.machines > 1 && server < least {
            bound = bound.max(wire / server + CHUNK / most);
        }
        for (site, (rate, machines)) in (1..).zip(&self.sites) {
            let at: f64 =
                ups.iter().zip(&places).filter(|(_, place)| **place == site).map(|(up, _)| up).sum();
            let (line, count) = (bytes(*rate), f64::from(u32::try_from(*machines).ok()?));
            let passed_on = if *machines > 1 { CHUNK / most } else { 0.0 };
            bound = bound.max(wire / line + passed_on).max(count * wire / (line + at));
        }
        if let Twist::Staggered(pause) = self.twist {
            bound = bound.max(pause * (count - 1.0) + wire / down);
        }
        Some(bound)
    }
}

/// The rows of `NUMBERS.md`, in its order.
pub(crate) fn all() -> Vec<Scenario> {
    let mut unlimited = Scenario::unlimited("no limits, 1 GiB", 4, 1024);
    unlimited.bars =
        Bars { cpu: Some(2.5), memory: Some(128.0), rival: Some((Peer::Http, 1.0)), ..Bars::default() };
    let mut debian = Scenario::new("alone, real image", 100.0, 100.0, 1);
    debian.content = Content::Debian;
    debian.bars.rival = Some((Peer::CurlDd, 1.0));
    let mut rebuilt = Scenario::new("rebuilt image, one site behind 20", 400.0, 200.0, 4)
        .behind(96, &[(20.0, 4)])
        .twist(Twist::Rebuilt)
        .bars(None, None, Some(0.35));
    rebuilt.content = Content::Debian;
    let mut alone = Scenario::new("alone, random bytes", 100.0, 100.0, 1);
    alone.mib = 128;
    alone.bars.rival = Some((Peer::CurlDd, 1.05));
    let mut staggered = Scenario::new("staggered", 50.0, 200.0, 8).twist(Twist::Staggered(5.0)).bars(
        Some(1.10),
        Some(1.05),
        None,
    );
    staggered.bars.last = Some(1.3);
    vec![
        Scenario::new("uplink, 8", 50.0, 200.0, 8).bars(Some(1.05), Some(1.02), None),
        Scenario::new("uplink, 16", 50.0, 200.0, 16).bars(Some(1.05), Some(1.02), None),
        Scenario::new("symmetric, 8", 100.0, 100.0, 8).bars(Some(1.10), Some(1.02), None),
        Scenario::new("symmetric, 16", 100.0, 100.0, 16).bars(Some(1.10), Some(1.02), None),
        Scenario::new("fast server", 400.0, 100.0, 8).bars(Some(1.10), Some(1.05), None),
        Scenario::new("weak peers", 100.0, 100.0, 8).twist(Twist::WeakPeers(5.0)).bars(
            Some(1.15),
            Some(1.10),
            None,
        ),
        Scenario::new("one site behind 20", 400.0, 200.0, 6).behind(96, &[(20.0, 6)]).bars(
            Some(1.05),
            None,
            Some(1.02),
        ),
        Scenario::new("two sites behind 20", 400.0, 200.0, 8).behind(96, &[(20.0, 4), (20.0, 4)]).bars(
            Some(1.05),
            None,
            Some(1.02),
        ),
        Scenario::new("1 % loss", 50.0, 200.0, 8).twist(Twist::Loss(10)).bars(Some(1.25), Some(1.05), None),
        unlimited,
        debian,
        alone.bars(Some(1.05), None, None),
        staggered,
        Scenario::new("reinstall, 5 % new", 50.0, 200.0, 4).twist(Twist::Reinstall(5)).bars(
            None,
            Some(0.06),
            None,
        ),
        rebuilt,
        Scenario::new("server killed", 50.0, 200.0, 8).twist(Twist::ServerKilled),
    ]
}

/// Scenarios that measure an agent's memory for images of several sizes.
pub(crate) fn memory() -> Vec<Scenario> {
    [("memory, 256 MiB", 256), ("memory, 1 GiB", 1024), ("memory, 8 GiB", 8192)]
        .into_iter()
        .map(|(name, mib)| {
            let bars = Bars { memory: Some(128.0), ..Bars::default() };
            Scenario { bars, ..Scenario::unlimited(name, 2, mib) }
        })
        .collect()
}

/// A few rows with a small image: the ratios that a change to the scheduler would make worse.
pub(crate) fn short() -> Vec<Scenario> {
    let small = |name| {
        let found = all().into_iter().find(|scenario| scenario.name == name);
        found.map(|scenario| Scenario { mib: scenario.mib / 4, ..scenario })
    };
    ["uplink, 8", "fast server", "two sites behind 20", "reinstall, 5 % new"]
        .into_iter()
        .filter_map(small)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_line_that_limits() {
        let rows = all();
        let seconds = |name: &str| {
            let scenario = rows.iter().find(|row| row.name == name).unwrap();
            scenario.bound(f64::from(u32::try_from(scenario.bytes()).unwrap())).unwrap()
        };
        let near = |name, expected: f64| {
            assert!((seconds(name) - expected).abs() < 0.05, "{name}: {} s", seconds(name));
        };
        // 268,435,456 bytes over 5.975 MB/s, and a chunk over 23.9 MB/s.
        near("uplink, 8", 44.93 + 0.04);
        // Limited by each machine's own line; all uplinks together could carry the eight copies in 15 s.
        near("fast server", 22.463);
        // Limited by the sum: eight copies through the server's line, six good uplinks and two weak ones.
        near("weak peers", 8.0 * 268.435_456 / (7.0 * 11.95 + 2.0 * 0.5975));
        near("one site behind 20", 100.663_296 / 2.39 + 0.04);
        near("symmetric, 8", 22.463 * (1.0 + 3.0 / 256.0));
    }

    #[test]
    fn every_machine_has_a_place() {
        for row in all().iter().chain(&short()).chain(&memory()) {
            assert_eq!(row.places().len(), row.machines, "{}", row.name);
        }
    }
}
