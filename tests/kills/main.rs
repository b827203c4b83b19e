//! The server and its agents are killed at random instants of a deployment, again and again: no order, event or image
//! is lost, and every machine finishes. Real programs, each agent a process with a file as its disk, on one bridge of
//! the lab's own; the image is small, so that each step is hit about as often as any other.
//!
//! `SWARMBOOT_TEST_KILLS` says how often the server, and how many agents, are killed; five when it is not set. An agent
//! that was started again waits 40 s, until the killed one counts as gone, so four are killed in one deployment.
// A rack that does not work is a failed test.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use common::swarm::splitmix::SplitMix64;
use lab::net::{Net, Segment};
use lab::process::Beside;
use lab::scratch::Scratch;
use lab::server::Server;
use lab::wait;
use lab::{agent, disk};
use serde_json::Value;

const AGENTS: usize = 8;

/// How many agents are killed in one deployment.
const KILLED_AT_ONCE: usize = 4;

const IMAGE_BYTES: u64 = 24 * disk::MIB;
const DISK_BYTES: u64 = 32 * disk::MIB;

/// The timeout of one deployment, with all its kills.
const LIMIT: Duration = Duration::from_secs(240);

/// The process that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Server,
    /// The agent with this number.
    Agent(usize),
}

/// A random instant of a period that usually lasts `usual`.
fn instant(rng: &mut SplitMix64, usual: Duration) -> Duration {
    Duration::from_millis(rng.next_u64() % u64::try_from(usual.as_millis()).unwrap_or(1).max(1))
}

struct Site<'n> {
    net: &'n Net,
    segment: Segment,
    server: Server<'n>,
    folder: PathBuf,
    image: PathBuf,
    orders: BTreeSet<String>,
}

impl Site<'_> {
    fn name(number: usize) -> String {
        format!("kill-{number}")
    }

    fn target(&self, number: usize) -> PathBuf {
        self.folder.join(format!("disk-{number}"))
    }

    fn start(&self, number: usize) -> Result<Beside> {
        let name = Self::name(number);
        let mut command = agent::command(self.net, &self.segment.address(1), &name, &self.target(number))?;
        Beside::start(&name, &mut command, &self.folder.join(format!("{name}.log")))
    }

    fn listed(&self) -> Result<()> {
        self.server.wait_json("all agents to report", &["machine", "list"], LIMIT, |machines| {
            let names: BTreeSet<&str> =
                machines.as_array()?.iter().filter_map(|machine| machine["name"].as_str()).collect();
            (0..AGENTS).all(|number| names.contains(Self::name(number).as_str())).then_some(())
        })
    }

    /// One deployment, in which the victims are killed at these times after the order; how long it took.
    fn round(&mut self, victims: &[(Duration, Victim)]) -> Result<Duration> {
        let mut agents: Vec<Beside> = Vec::new();
        for number in 0..AGENTS {
            disk::blank(&self.target(number), DISK_BYTES)?;
            agents.push(self.start(number)?);
        }
        self.listed()?;
        let names = format!("kill-[0-{}]", AGENTS - 1);
        let words = ["deploy", "start", "--image", "noise", "--yes", "--no-personalise", "--no-confirm"];
        let order = self.server.json(words.into_iter().chain(["--machines", &names]))?;
        let deployment = order["deployment"].as_str().context("an order without a number")?.to_owned();
        self.orders.insert(deployment.clone());
        let begun = Instant::now();
        let mut known = vec![];
        for (at, victim) in victims {
            wait::pause(at.saturating_sub(begun.elapsed()))?;
            match *victim {
                Victim::Server => {
                    known = self.events(&deployment)?;
                    self.server.kill();
                    self.server.start_again()?;
                }
                Victim::Agent(number) => {
                    agents[number].signal(nix::sys::signal::Signal::SIGKILL)?;
                    agents[number] = self.start(number)?;
                }
            }
        }
        let shown = self.ended(&deployment)?;
        let took = begun.elapsed();
        drop(agents);
        self.look_at(&deployment, &shown, &known)?;
        Ok(took)
    }

    /// The events of a deployment, as `logs` shows them.
    fn events(&self, deployment: &str) -> Result<Vec<Value>> {
        self.server.json_lines(["logs", "--deployment", deployment])
    }

    fn ended(&self, deployment: &str) -> Result<Value> {
        wait::until(&format!("{deployment} to end"), LIMIT, || {
            wait::pause(Duration::from_millis(300))?;
            let shown = self.server.json(["deploy", "status", deployment])?;
            let jobs = shown["jobs"].as_array().context("a deployment without jobs")?;
            ensure!(jobs.len() == AGENTS, "{} jobs of {AGENTS} are left", jobs.len());
            for job in jobs {
                if ["failed", "refused", "cancelled"].iter().any(|end| job["state"] == *end) {
                    bail!("the job of {} ended {}: {}", job["name"], job["state"], job["cause"]);
                }
            }
            Ok(jobs.iter().all(|job| job["state"] == "deployed").then_some(shown.clone()))
        })
    }

    /// Checks that every disk holds the image, and that every order and event is there, also the `known` ones.
    fn look_at(&self, deployment: &str, shown: &Value, known: &[Value]) -> Result<()> {
        for number in 0..AGENTS {
            let wrong = disk::differences(&self.target(number), &self.image)?;
            ensure!(wrong.is_empty(), "{}: wrong MiB {wrong:?} in {shown}", Self::name(number));
        }
        let listed = self.server.json(["deploy", "list"])?;
        let there: BTreeSet<String> = listed
            .as_array()
            .context("no list of deployments")?
            .iter()
            .filter_map(|order| Some(order["id"].as_str()?.to_owned()))
            .collect();
        ensure!(self.orders.is_subset(&there), "orders are lost: {:?}", self.orders.difference(&there));
        let events = self.events(deployment)?;
        let lost: Vec<&Value> = known.iter().filter(|event| !events.contains(event)).collect();
        ensure!(lost.is_empty(), "shown before the server was killed, and lost: {lost:?}");
        for number in 0..AGENTS {
            let name = Self::name(number);
            let said = |step: &str| events.iter().any(|event| event["name"] == name && event["step"] == step);
            ensure!(said("seal") && said("tailor"), "events of {name} are lost in {deployment}");
        }
        let numbers: Vec<u64> = events.iter().filter_map(|event| event["id"].as_u64()).collect();
        ensure!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "events out of order");
        Ok(())
    }
}

/// Draws the victims of one deployment, and when they are killed: the server once, or some of the agents.
type Draw = fn(usual: Duration, rng: &mut SplitMix64) -> Vec<(Duration, Victim)>;

fn the_server(usual: Duration, rng: &mut SplitMix64) -> Vec<(Duration, Victim)> {
    vec![(instant(rng, usual), Victim::Server)]
}

fn some_agents(usual: Duration, rng: &mut SplitMix64) -> Vec<(Duration, Victim)> {
    let mut left: Vec<usize> = (0..AGENTS).collect();
    let mut victims: Vec<(Duration, Victim)> = (0..KILLED_AT_ONCE)
        .map(|_| {
            let number = left.swap_remove(rng.below(left.len()));
            (instant(rng, usual), Victim::Agent(number))
        })
        .collect();
    victims.sort_by_key(|(at, _)| *at);
    victims
}

fn wanted() -> usize {
    std::env::var("SWARMBOOT_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

fn killed(draw: Draw, seed: u64, folder: &Path) -> Result<()> {
    let (net, segment) = Net::with_segment()?;
    let server = Server::start(&net, segment, folder)?;
    let image = disk::random(&folder.join("image"), IMAGE_BYTES, 7)?;
    server.run(["image", "add", "--no-table", "noise", &image.display().to_string()])?;
    let mut site =
        Site { net: &net, segment, server, folder: folder.to_owned(), image, orders: BTreeSet::new() };
    // The same seed in each run, so that a failure can be repeated.
    let mut rng = SplitMix64::new(seed);
    // Two deployments without kills: the first one fills caches, the second gives the usual time.
    site.round(&[])?;
    let usual = site.round(&[])?;
    let (begun, mut kills) = (Instant::now(), 0);
    while kills < wanted() {
        let victims = draw(usual, &mut rng);
        kills += victims.len();
        let took = site.round(&victims).with_context(|| format!("kill {kills}: {victims:?}"))?;
        println!("{kills} killed: {victims:?}, all done after {} ms", took.as_millis());
    }
    let verified = site.server.run(["image", "verify", "noise"])?;
    println!(
        "{kills} killed in {} deployments of {AGENTS} agents, {} s, all finished; {}",
        site.orders.len(),
        begun.elapsed().as_secs(),
        verified.trim()
    );
    site.server.stop()
}

#[test]
#[ignore = "needs root: run ./tests/run"]
fn a_server_killed_at_any_instant_loses_nothing() {
    let scratch = Scratch::new().unwrap();
    killed(the_server, 0x5eed_0000_0000_0001, scratch.path()).unwrap();
}

#[test]
#[ignore = "needs root: run ./tests/run"]
fn agents_killed_at_any_instant_start_again_and_all_finish() {
    let scratch = Scratch::new().unwrap();
    killed(some_agents, 0x5eed_0000_0000_0002, scratch.path()).unwrap();
}
