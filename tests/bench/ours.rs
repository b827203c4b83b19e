//! Runs a scenario with swarmboot: a server and one agent for each machine, each program in a namespace of its own. The
//! results are read from the server's log and from the lines' counters.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::process::{Beside, Used};
use lab::scratch::Scratch;
use lab::server::Server;
use lab::wait;
use lab::wires::{Host, Line, Wires};
use lab::{disk, images};
use serde_json::Value;

use crate::result::Measured;
use crate::scenario::{Scenario, Twist};

/// The timeout of one run.
pub(crate) const LIMIT: Duration = Duration::from_secs(900);

/// The network of a scenario: the server's host and one for each machine.
pub(crate) struct Rig {
    pub(crate) wires: Wires,
    pub(crate) server: Host,
    pub(crate) machines: Vec<Host>,
}

/// Builds the network of `scenario`.
pub(crate) fn rig(scenario: &Scenario) -> Result<Rig> {
    let lines: Vec<_> = scenario.sites.iter().map(|(rate, _)| Some(*rate)).collect();
    let wires = Wires::new(&lines)?;
    let lost = if let Twist::Loss(lost) = scenario.twist { lost } else { 0 };
    let server = wires.host(0, Line { up: scenario.server, down: None, lost })?;
    let machines = scenario.places().into_iter().enumerate().map(|(number, site)| {
        wires.host(site, Line { up: scenario.up_of(number), down: scenario.down, lost })
    });
    let machines = machines.collect::<Result<_>>()?;
    Ok(Rig { wires, server, machines })
}

/// Runs `scenario` and returns its result.
pub(crate) fn run(scenario: &Scenario) -> Result<Measured> {
    let scratch = Scratch::new()?;
    let rig = rig(scenario)?;
    let image = scenario.image(&scratch.file("image"))?;
    let arguments = ["--interface", "eth0", "--proxy-dhcp"];
    let mut server = Server::start_with(&rig.server.net, scratch.path(), &arguments)?;
    if scenario.twist == Twist::Rebuilt {
        server.run(["image", "add", "earlier", &images::earlier()?.display().to_string()])?;
    }
    server.run(["image", "add", "bench", &image.display().to_string(), "--no-table"])?;
    let agent = |number: usize| start(&rig, scenario, &scratch, number);
    let mut agents = vec![];
    for number in 0..scenario.machines {
        lay_out(scenario, &image, &scratch.file(format!("disk{number}")))?;
        agents.push(agent(number)?);
    }
    listed(&server, agents.len())?;
    let staggered = if let Twist::Staggered(pause) = scenario.twist { Some(pause) } else { None };
    if staggered.is_some() {
        // The server knows the machines now; the agents of the measured run are started later.
        agents.clear();
    }
    let order = order(scenario, &server)?;
    let before = (rig.wires.of_host(&rig.server)?, into_sites(scenario, &rig.wires)?);
    let server_before = server.used().unwrap_or_default();
    if let Some(pause) = staggered {
        for number in 0..scenario.machines {
            agents.push(agent(number)?);
            wait::pause(Duration::from_secs_f64(pause))?;
        }
    }
    if scenario.twist == Twist::ServerKilled {
        once_all_is_out(&server)?;
        server.kill();
        wait::pause(Duration::from_secs(10))?;
        server.start_again()?;
    }
    let used = wait(&mut agents)?;
    let after = (rig.wires.of_host(&rig.server)?, into_sites(scenario, &rig.wires)?);
    for number in 0..rig.machines.len() {
        let wrong = disk::differences(&scratch.file(format!("disk{number}")), &image)?;
        ensure!(wrong.is_empty(), "disk {number} differs from the image at {wrong:?}");
    }
    let mut measured = read(scenario, &server, &order)?;
    if scenario.twist == Twist::Rebuilt {
        measured.copy_bytes = server.json(["image", "show", "bench"])?[0]["wire_bytes"].as_u64();
    }
    let own = server.used().unwrap_or_default().cpu_seconds - server_before.cpu_seconds;
    measured.cpu_seconds = used.iter().map(|used| used.cpu_seconds).sum::<f64>() + own.max(0.0);
    measured.peak_bytes = used.iter().map(|used| used.peak_bytes).max().unwrap_or(0);
    measured.server_bytes = after.0.up - before.0.up;
    measured.site_bytes = after.1.iter().zip(&before.1).map(|(after, before)| after - before).collect();
    Ok(measured)
}

/// Makes a machine's disk: blank, or with most of the image for a reinstallation.
fn lay_out(scenario: &Scenario, image: &Path, target: &PathBuf) -> Result<()> {
    if scenario.twist == Twist::Rebuilt {
        return disk::holding(target, &images::earlier()?, scenario.bytes()).map(drop);
    }
    let Twist::Reinstall(percent) = scenario.twist else {
        return disk::allocated(target, scenario.bytes()).map(drop);
    };
    disk::holding(target, image, scenario.bytes())?;
    let changed = scenario.mib * percent / 100;
    let file = std::fs::File::options().write(true).open(target)?;
    for number in 0..changed {
        let at = (number * scenario.mib / changed.max(1)) << 20;
        std::os::unix::fs::FileExt::write_all_at(&file, b"another version of it", at + 4096)?;
    }
    Ok(())
}

fn start(rig: &Rig, scenario: &Scenario, scratch: &Scratch, number: usize) -> Result<Beside> {
    let (name, site) = (format!("bench-{number}"), scenario.places()[number]);
    let target = scratch.file(format!("disk{number}"));
    let mut command = lab::agent::command(&rig.machines[number].net, &rig.server.address, &name, &target)?;
    command.args(["--site", &format!("site-{site}")]);
    Beside::start(&name, &mut command, &scratch.file(format!("{name}.log")))
}

/// Waits until all agents have ended; the last counts of each while it ran.
fn wait(agents: &mut [Beside]) -> Result<Vec<Used>> {
    let mut used = vec![Used::default(); agents.len()];
    wait::until("the agents to end", LIMIT, || {
        let mut all = true;
        for (agent, used) in agents.iter_mut().zip(&mut used) {
            *used = agent.used().unwrap_or(*used);
            match agent.ended()? {
                Some(status) => ensure!(status.success(), "an agent failed: {status}:\n{}", agent.said()),
                None => all = false,
            }
        }
        Ok(all.then_some(()))
    })?;
    Ok(used)
}

/// Waits until `count` machines have reported.
fn listed(server: &Server<'_>, count: usize) -> Result<()> {
    server.wait_json("the agents to report", &["machine", "list"], LIMIT, |machines| {
        (machines.as_array()?.len() >= count).then_some(())
    })
}

/// Orders the image for all machines; the deployment's id.
fn order(scenario: &Scenario, server: &Server<'_>) -> Result<String> {
    let last = scenario.machines - 1;
    let machines = format!("bench-[0-{last}]");
    let gather = scenario.machines.to_string();
    let mut words = vec!["deploy", "start", "--image", "bench", "--yes", "--no-personalise", "--no-confirm"];
    words.extend(["--machines", &machines]);
    if !matches!(scenario.twist, Twist::Staggered(_)) {
        words.extend(["--gather", &gather]);
    }
    let answer = server.json(words)?;
    answer["deployment"].as_str().map(str::to_owned).context("the order has no deployment")
}

/// Waits until one copy of the image has left the server.
fn once_all_is_out(server: &Server<'_>) -> Result<()> {
    server.wait_json("the last chunk to leave the server", &["swarm", "status"], LIMIT, |status| {
        let swarm = status["images"].get(0)?;
        let copy = swarm["wire_bytes"].as_u64()?;
        // 0 while its manifest is not read yet: then nothing is out.
        (copy > 0 && swarm["injected_bytes"].as_u64()? >= copy).then_some(())
    })
}

/// The bytes that each site behind a line has received so far.
pub(crate) fn into_sites(scenario: &Scenario, wires: &Wires) -> Result<Vec<u64>> {
    (1..=scenario.sites.len()).map(|site| wires.of_site(site).map(|carried| carried.down)).collect()
}

/// Reads the times and the bytes from the server's log and the deployment.
fn read(scenario: &Scenario, server: &Server<'_>, deployment: &str) -> Result<Measured> {
    let finished =
        server.wait_json("the last events", &["deploy", "status", deployment], LIMIT, |shown| {
            let over = |job: &Value| job["state"] != "running" && job["state"] != "ordered";
            shown["jobs"].as_array()?.iter().all(over).then(|| shown.clone())
        })?;
    let events = server.json_lines(["logs", "--step", "transfer", "--deployment", deployment])?;
    let at = |event: &Value| -> Result<f64> {
        let time = event["at"].as_str().context("an event without its time")?;
        crate::result::seconds(time)
    };
    let mut times: Vec<(String, f64, f64)> = vec![];
    for event in &events {
        let name = event["name"].as_str().unwrap_or_default().to_owned();
        match event["kind"].as_str() {
            Some("started") => times.push((name, at(event)?, f64::NAN)),
            Some("done") => {
                let found = times.iter_mut().find(|(other, ..)| *other == name);
                found.context("an end without a start")?.2 = at(event)?;
            }
            _ => {}
        }
    }
    if times.len() != scenario.machines || times.iter().any(|(_, _, end)| end.is_nan()) {
        bail!("the log tells of {} transfers: {times:?}", times.len());
    }
    let start = times.iter().map(|(_, start, _)| *start).fold(f64::INFINITY, f64::min);
    let end = times.iter().map(|(.., end)| *end).fold(0.0, f64::max);
    let jobs = finished["jobs"].as_array().context("a deployment without jobs")?;
    let sum = |source: &str| jobs.iter().filter_map(|job| job["sources"][source].as_u64()).sum::<u64>();
    Ok(Measured {
        seconds: end - start,
        last_own: times.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0.0, |(_, start, end)| end - start),
        from_server: sum("server"),
        ..Measured::default()
    })
}
