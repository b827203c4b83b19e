//! What is scraped of a server's real parts: that dashboard, rules and manual name what is there, what a scrape costs, and
//! what the checks find. Touches a temporary folder, the loopback and, where it is asked for, promtool.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use common::id::MachineId;
use common::step::{Step, What};
use common::trust::KeyPair;
use jiff::Timestamp;

use super::super::home::Home;
use super::super::measured::MeasuredStore;
use super::super::programs::Programs;
use super::super::tests::config;
use super::*;
use crate::fleet::identity::Fingerprint;
use crate::fleet::machine::Machine;
use crate::fleet::state::Change;
use crate::fleet::testing::settings;
use crate::metrics::{DhcpResult, TftpResult};
use crate::peers::Peers;
use crate::provision::Provisioning;
use crate::records::Records;
use crate::swarm;

struct Bench {
    watching: Watching,
    queue: mpsc::Sender<u8>,
    _waiting: mpsc::Receiver<u8>,
    _dir: tempfile::TempDir,
    _task: crate::fleet::FleetTask,
    _swarm: swarm::Bound,
}

/// The parts of a server that knows so many machines, in so many sites.
async fn bench(machines: u64, sites: u64) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let config = Arc::new(config(dir.path()));
    let home = Home::open(&config.state).unwrap();
    let program = dir.path().join("program");
    std::fs::write(&program, b"program").unwrap();
    let programs = Programs { loader: program.clone(), agent: program };
    let stores = Stores::open(&config, &home, &programs, ([10, 0, 0, 1], 8069).into()).unwrap();
    let mut records = Records::open(&config.state.join("records.sqlite")).unwrap();
    let machine = |number: u64| {
        let site = format!("10.0.{}.0/24", number % sites);
        let machine = Machine::new(MachineId(number), Fingerprint::default(), site, Timestamp::now());
        Change::Machine(Box::new(machine))
    };
    records.commit(&(1..=machines).map(machine).collect::<Vec<_>>()).unwrap();
    let keys = KeyPair::from_secret([7; 32]);
    let (facts, _) = mpsc::channel(1);
    let images = Arc::new(stores.images.clone());
    let node = swarm::bind(&keys, "/ip4/127.0.0.1/tcp/0", images, facts).await.unwrap();
    let provisioning = Arc::new(Provisioning {
        images: stores.images.clone(),
        kits: Arc::clone(&stores.kits),
        bundles: Arc::clone(&stores.bundles),
        swarm: node.handle(),
        key: keys.public(),
        peers: Peers::default(),
    });
    let metrics = Metrics::new();
    let store = Box::new(MeasuredStore { inner: Box::new(records), metrics: metrics.clone() });
    let (fleet, task) =
        tokio::task::spawn_blocking(move || crate::fleet::start(store, provisioning, keys, settings()))
            .await
            .unwrap()
            .unwrap();
    let (queues, (queue, waiting)) = (Queues::default(), mpsc::channel(4));
    queues.add("leases", &queue);
    let watching = Watching {
        metrics,
        fleet,
        traffic: Traffic::default(),
        stores,
        config,
        leases: LeaseCounts::default(),
        subscribers: crate::subscribers::Handle::default(),
        rivals: watch::channel(vec![]).1,
        queues,
        open: vec![("machines", Box::new(|| 3))],
        census: Mutex::default(),
    };
    Bench { watching, queue, _waiting: waiting, _dir: dir, _task: task, _swarm: node }
}

/// A scrape in which every metric has a value.
async fn scraped(bench: &Bench) -> String {
    let metrics = &bench.watching.metrics;
    for what in [What::Started, What::Done { text: String::new() }] {
        metrics.event(&crate::api::shapes::LogEvent {
            id: 1,
            at: Timestamp::now(),
            machine: Some(MachineId(1)),
            name: "m1".to_owned(),
            deployment: None,
            job: None,
            attempt: None,
            step: Step::Transfer,
            what,
            sources: None,
            by: None,
            by_machine: true,
        });
    }
    metrics.hash_failure("debian");
    metrics.dhcp(DhcpResult::Offered);
    metrics.tftp(TftpResult::Ended);
    bench.watching.traffic.sent("10.0.1.0/24", Kind::Chunks, 7);
    bench.watching.scrape().await
}

/// The metrics of a scrape, as queries name them.
fn metrics_of(text: &str) -> BTreeSet<String> {
    let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    described
        .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.into() })
        .collect()
}

/// The metrics that a file names; the parts of a histogram count as the histogram.
fn named_in(file: &str) -> BTreeSet<String> {
    let words = file.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("swarmboot_") || word.starts_with("process_"));
    let base = |word: &str| {
        let cut = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        cut.unwrap_or(word).to_owned()
    };
    ours.map(base).collect()
}

#[tokio::test]
async fn dashboard_rules_and_manual_name_what_is_scraped() {
    let bench = bench(3, 2).await;
    let there = metrics_of(&scraped(&bench).await);
    let used = [
        ("swarmboot.json", include_str!("../../../monitoring/swarmboot.json")),
        ("alerts.yml", include_str!("../../../monitoring/alerts.yml")),
        ("alerts_test.yml", include_str!("../../../monitoring/alerts_test.yml")),
    ];
    let mut shown = BTreeSet::new();
    for (file, text) in used {
        let named = named_in(text);
        let unknown: Vec<_> = named.difference(&there).collect();
        assert!(unknown.is_empty(), "{file} names what is not scraped: {unknown:?}");
        shown.extend(named);
    }
    let unused: Vec<_> = there.difference(&shown).collect();
    assert!(unused.is_empty(), "neither on the dashboard nor in a rule: {unused:?}");
    let manual = named_in(include_str!("../../../docs/metrics.md"));
    assert_eq!(manual, there, "docs/metrics.md");
}

#[tokio::test]
async fn what_is_counted_is_what_is_there() {
    let bench = bench(5, 2).await;
    bench.queue.try_send(1).unwrap();
    let text = scraped(&bench).await;
    for line in [
        "swarmboot_machines{state=\"discovered\",site=\"10.0.0.0/24\"} 2",
        "swarmboot_machines{state=\"discovered\",site=\"10.0.1.0/24\"} 3",
        "swarmboot_sent_bytes_total{kind=\"chunks\",site=\"10.0.1.0/24\"} 7",
        "swarmboot_queue_length{queue=\"leases\"} 1",
        "swarmboot_queue_capacity{queue=\"leases\"} 4",
        "swarmboot_connections{listener=\"machines\"} 3",
        "swarmboot_fleet_answers 1",
        "swarmboot_frozen 0",
    ] {
        assert!(text.lines().any(|is| is == line || is == format!("{line}.0")), "{line} is not in\n{text}");
    }
    drop(bench.queue);
    let gone = bench.watching.scrape().await;
    assert!(!gone.contains("queue=\"leases\""), "watching a queue does not keep it open");
}

#[tokio::test]
async fn each_check_fails_for_its_own_reason() {
    let bench = bench(1, 1).await;
    let missing = async || -> Vec<&str> {
        let checks = bench.watching.checks().await;
        checks.iter().filter(|check| !check.ready).map(|check| check.name).collect()
    };
    assert_eq!(missing().await, ["kit"]);
    bench.watching.metrics.commit(Duration::ZERO, false);
    assert_eq!(missing().await, ["records", "kit"]);
    bench.watching.metrics.commit(Duration::ZERO, true);
    std::fs::remove_dir_all(&bench.watching.config.state).unwrap();
    assert_eq!(missing().await, ["kit", "disk"]);
    assert!(bench.watching.alive().await);
}

#[tokio::test]
#[ignore = "a measurement: cargo test -p swarmboot --lib what_a_scrape_costs -- --ignored --nocapture"]
async fn what_a_scrape_costs() {
    let bench = bench(2000, 20).await;
    for site in 0..20 {
        for kind in Kind::ALL {
            bench.watching.traffic.sent(&format!("10.0.{site}.0/24"), kind, 1000);
        }
    }
    let bytes = scraped(&bench).await.len();
    for (what, fresh) in [("the fleet is asked", true), ("its counts are young", false)] {
        let mut took = vec![];
        for _ in 0..50 {
            if fresh {
                *bench.watching.census.lock() = None;
            }
            let began = Instant::now();
            bench.watching.scrape().await;
            took.push(began.elapsed());
        }
        took.sort_unstable();
        let line = format!(
            "2,000 machines, 20 sites, {what}: {:?}, the slowest {:?}, {bytes} bytes\n",
            took[25], took[49]
        );
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
    }
}

fn promtool(arguments: &[&str], input: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring");
    let child = Command::new("promtool").args(arguments).current_dir(folder).stdin(Stdio::piped()).spawn();
    let mut child = child.expect("promtool is installed: apt install prometheus");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "promtool {arguments:?}");
}

#[tokio::test]
#[ignore = "needs promtool: ./tests/full monitoring"]
async fn promtool_finds_nothing_wrong() {
    let text = scraped(&bench(3, 2).await).await;
    // promtool reads the older text format, in which a counter is described under its whole name.
    let counters: BTreeSet<String> =
        metrics_of(&text).into_iter().filter(|name| name.ends_with("_total")).collect();
    let mut older = String::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let whole = format!("{}_total", words[2.min(words.len() - 1)]);
        if line.starts_with("# ") && counters.contains(&whole) {
            older += &format!("# {} {whole} {}\n", words[1], words[3]);
        } else {
            older += &format!("{line}\n");
        }
    }
    promtool(&["check", "metrics"], &older);
    promtool(&["check", "rules", "alerts.yml"], "");
    promtool(&["test", "rules", "alerts_test.yml"], "");
    promtool(&["check", "config", "--syntax-only", "prometheus.yml"], "");
}
