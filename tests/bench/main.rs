//! The benchmark: the swarm's time over the least that the lines allow, for each scenario of the table, and everything
//! that a site behind a thin line takes, with real programs on shaped lines. `tests/bench/run` sets everything up and
//! starts it; words on its command line choose the scenarios whose names contain them, `--short` a few with small images, `--memory` those that measure an agent's
//! memory, `--floor` what libp2p alone takes, `--slack 1.5` how far above the bars times may be before it fails,
//! `--peers` that other programs run as well, `--slower 2` that every line is so many times slower, so that
//! improvements in processor time show.
#![allow(clippy::print_stdout)]

// The scenarios, and the least time that the lines allow.
mod scenario;

// The results, and the table.
mod result;

// Runs of swarmboot.
mod ours;

// Runs of other programs that people use today.
mod peers;

// A run of nothing but libp2p.
mod floor;

// Everything that a site takes over its line, from power-on to the installed system.
mod site;

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use lab::wait;

use crate::result::{HEAD, Row, line};
use crate::scenario::{Peer, Scenario};

/// As in the agent: the machines of the site benchmark run its code.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "machine") {
        return match site::machine::main(&words[1..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("this machine ends: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    match wait::stop_on_signals().and_then(|()| run()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Wish {
    scenarios: Vec<Scenario>,
    sites: Vec<site::Row>,
    slack: f64,
    peers: bool,
    floor: bool,
}

fn wish() -> Result<Wish> {
    let (mut words, mut all, mut slack) = (vec![], scenario::all(), 1.0);
    let (mut peers, mut floor, mut slower) = (false, false, 1.0);
    let mut sites = site::all();
    let mut arguments = std::env::args().skip(1);
    while let Some(word) = arguments.next() {
        match word.as_str() {
            "--short" => (all, sites) = (scenario::short(), vec![]),
            "--memory" => (all, sites) = (scenario::memory(), vec![]),
            "--peers" => peers = true,
            "--floor" => floor = true,
            "--slack" => slack = number(&word, arguments.next())?,
            "--slower" => slower = number(&word, arguments.next())?,
            _ => words.push(word),
        }
    }
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    ensure!(slower > 0.0, "--slower needs a number above zero");
    let scenarios: Vec<Scenario> = all
        .into_iter()
        .filter(|scenario| chosen(scenario.name))
        .map(|scenario| scenario.slower(slower))
        .collect();
    // A word that is a site row's whole name means that row alone.
    let exact = |row: &site::Row| words.iter().any(|word| word == row.name);
    let any_exact = sites.iter().any(exact);
    sites.retain(|row| if any_exact { exact(row) } else { chosen(row.name) });
    ensure!(!(scenarios.is_empty() && sites.is_empty()), "no scenario is called {}", words.join(" or "));
    Ok(Wish { scenarios, sites, slack, peers, floor })
}

fn number(word: &str, value: Option<String>) -> Result<f64> {
    let value = value.with_context(|| format!("{word} needs a number"))?;
    value.parse().with_context(|| format!("{word} {value} is no number"))
}

fn run() -> Result<bool> {
    let Wish { scenarios, sites, slack, peers, floor } = wish()?;
    if floor {
        return floor::run().map(|()| true);
    }
    let mut good = true;
    if !sites.is_empty() {
        println!("{}", site::HEAD);
    }
    for row in sites {
        for figure in site::run(&row).with_context(|| row.name.to_owned())? {
            println!("{}", site::line(&row, &figure));
            good &= !figure.misses(slack);
        }
    }
    if scenarios.is_empty() {
        return Ok(good);
    }
    println!("{HEAD}");
    for mut scenario in scenarios {
        scenario.measure()?;
        let measured = ours::run(&scenario).with_context(|| scenario.name.to_owned())?;
        let row = Row { scenario: scenario.clone(), who: "swarmboot".to_owned(), measured };
        println!("{}", line(&row));
        good &= row.misses(slack).is_empty();
        let beside = scenario.for_peers();
        if peers && beside.mib < scenario.mib && Peer::ALL.iter().any(|peer| peer.can(&scenario)) {
            let measured = ours::run(&beside).with_context(|| scenario.name.to_owned())?;
            let who = format!("swarmboot, {} MiB", beside.mib);
            println!("{}", line(&Row { scenario: beside.clone(), who, measured }));
        }
        for peer in Peer::ALL.into_iter().filter(|peer| peers && peer.can(&scenario)) {
            let who = format!("{}, {} MiB", peer.name(), beside.mib);
            // A peer that fails is a row as well: some cannot do what others can.
            match peers::run(&beside, peer) {
                Ok(measured) => {
                    let beaten = row.beaten_by(peer, measured.seconds);
                    println!("{}", line(&Row { scenario: beside.clone(), who, measured }));
                    if let Some(words) = beaten {
                        println!("| {} | swarmboot | {words} |", scenario.name);
                        good = false;
                    }
                }
                Err(error) => println!("| {} | {who} | failed: {error:#} |", scenario.name),
            }
        }
    }
    Ok(good)
}
