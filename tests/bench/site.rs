//! The site benchmark: everything that a site behind a thin line takes over it, from the first DHCP packet of its machines
//! to the last call home. Owns the rows and how each is measured. Each machine is a process in a namespace of its own
//! (`machine.rs`) behind a router with a DHCP relay agent, in an office with a DHCP server that knows nothing of us.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::branch::{Addresses, Branch};
use lab::process::{self, Beside};
use lab::relay::Relay;
use lab::scratch::Scratch;
use lab::server::Server;
use lab::wires::{Carried, Host, Line, Wires};
use lab::{disk, images, wait};

use self::spec::{Mark, Spec};
use crate::scenario::PAYLOAD;

// What a machine is told, and the marks that it prints.
mod spec;

// The hardware report of a machine.
mod hardware;

// What a loader finds in its initramfs.
mod initramfs;

// A machine, as a process.
pub(crate) mod machine;

/// The rate of the site's line, and of each machine's, in Mbit/s.
const LINE: f64 = 20.0;
const LAN: f64 = 200.0;
/// The timeout of a whole row.
const LIMIT: Duration = Duration::from_secs(1800);
/// Bytes of a machine's disk beyond the image.
const SPARE: u64 = 64 << 20;
/// How long the pause before an agent begins is where the line's counter is to be read, in ms.
const PAUSE_MS: u64 = 2000;
/// How long waiting machines are watched.
const WATCHED: Duration = Duration::from_secs(180);

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    kind: Kind,
    machines: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// All are powered on at once. The server knows them and has an order for each; or it knows none, and has one for
    /// whatever appears.
    Everything { relay: Relayed, known: bool },
    /// One machine: the bytes until its agent begins, when the server knows its report already or not.
    BeforeImage { known: bool },
    /// Machines that wait for an order.
    Waiting,
    /// One machine that waits, near the server, until it is given an order.
    Order,
}

/// The relay of the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relayed {
    /// There is none.
    No,
    /// It has just been let in, and has nothing.
    Empty,
    /// It holds the image and the boot files.
    Staged,
}

/// The rows, in the order of the table.
pub(crate) fn all() -> Vec<Row> {
    let row = |name, kind, machines| Row { name, kind, machines };
    let everything = |relay, known| Kind::Everything { relay, known };
    vec![
        row("site, 30", everything(Relayed::No, true), 30),
        row("site, 30 that nobody knows", everything(Relayed::No, false), 30),
        row("site, 30, a relay that has nothing", everything(Relayed::Empty, true), 30),
        row("site, 30, a relay, staged", everything(Relayed::Staged, true), 30),
        row("site, unknown machine alone", Kind::BeforeImage { known: false }, 1),
        row("site, known machine alone", Kind::BeforeImage { known: true }, 1),
        row("site, 12 that wait", Kind::Waiting, 12),
        row("site, order to one that waits", Kind::Order, 1),
    ]
}

/// One figure of a row, with its bar where it has one.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    what: String,
    value: f64,
    bar: Option<f64>,
}

impl Figure {
    fn new(what: &str, value: f64) -> Self {
        Self { what: what.to_owned(), value, bar: None }
    }

    fn at_most(self, bar: f64) -> Self {
        Self { bar: Some(bar), ..self }
    }

    /// Whether it misses its bar; times may be `slack` above theirs on a busy computer.
    pub(crate) fn misses(&self, slack: f64) -> bool {
        self.bar.is_some_and(|bar| self.value > bar * slack)
    }
}

/// The head of the rows' table.
pub(crate) const HEAD: &str =
    "| site scenario | figure | measured | bar | |\n| --- | --- | ---: | ---: | --- |";

/// A row of the table.
pub(crate) fn line(row: &Row, figure: &Figure) -> String {
    let bar = figure.bar.map_or_else(|| "–".to_owned(), |bar| format!("{bar}"));
    let misses = if figure.misses(1.0) { "missed" } else { "" };
    format!("| {} | {} | {:.2} | {bar} | {misses} |", row.name, figure.what, figure.value)
}

/// Measures a row.
///
/// # Errors
/// When a machine does not come to its system, or the network cannot be made.
pub(crate) fn run(row: &Row) -> Result<Vec<Figure>> {
    let scratch = Scratch::new()?;
    // A machine near the server has no thin line.
    let wires = Wires::new(&[(row.kind != Kind::Order).then_some(LINE)])?;
    let at_server = wires.host(0, Line::new(None, None))?;
    let hosts: Vec<Host> =
        (0..row.machines).map(|_| wires.host(1, Line::new(Some(LAN), Some(LAN)))).collect::<Result<_>>()?;
    let dhcp_host = wires.host(1, Line::new(None, None))?;
    let box_at_site = wires.host(1, Line::new(None, None))?;
    let specs = specs(row, &hosts, &scratch)?;
    let fixed = specs.iter().zip(&hosts).map(|(spec, host)| (spec.mac_text(), host.address.clone()));
    let addresses =
        Addresses { range: ("10.88.1.10", "10.88.1.250"), router: "10.88.1.1", fixed: fixed.collect() };
    let _addresses = Branch::addresses(&dhcp_host.net, "eth0", &addresses, scratch.path())?;
    let relayed = if let Kind::Everything { relay, .. } = row.kind { relay } else { Relayed::No };
    // A relay answers DHCP itself, so the router need not pass it on.
    let router = wires.router(1)?;
    let _agent = match relayed {
        Relayed::No => Some(Branch::relay_agent(router, "10.88.1.1", &at_server.address, scratch.path())?),
        Relayed::Empty | Relayed::Staged => None,
    };
    let config = scratch.file("swarmboot.toml");
    // As an admin writes it who knows the line: from it the server also knows what waiting for a scout saves.
    let limit = if row.kind == Kind::Order { String::new() } else { format!("limit = \"{LINE}M\"\n") };
    std::fs::write(&config, format!("[[site]]\nname = \"branch\"\nsubnets = [\"10.88.1.0/24\"]\n{limit}"))?;
    let config = config.display().to_string();
    let arguments = ["--interface", "eth0", "--proxy-dhcp", "--config", &config];
    let server = Server::start_with(&at_server.net, scratch.path(), &arguments)?;
    server.run(images::kit_import(&images::kit_packages_with(&images::ipxe()?)?))?;
    let image = images::debian()?.a.display().to_string();
    server.run(["image", "add", "debian", &image, "--no-table"])?;
    let _relay = match relayed {
        Relayed::No => None,
        Relayed::Empty | Relayed::Staged => {
            let url = format!("http://{}:8069", at_server.address);
            let mut relay = Relay::start(&box_at_site.net, &server, &url, "branch", scratch.path())?;
            if relayed == Relayed::Staged {
                relay.stage(&server, "debian", "branch")?;
            }
            Some(relay)
        }
    };
    let (server_address, folder) = (&at_server.address, scratch.path());
    let site = Site { wires: &wires, hosts: &hosts, specs, server, server_address, folder };
    match row.kind {
        Kind::Everything { relay, known } => site.everything(relay, known),
        Kind::BeforeImage { known } => site.before_image(known),
        Kind::Waiting => site.waiting(),
        Kind::Order => site.order(),
    }
}

fn specs(row: &Row, hosts: &[Host], scratch: &Scratch) -> Result<Vec<Spec>> {
    let image_bytes = std::fs::metadata(images::debian()?.a)?.len();
    let pauses = matches!(row.kind, Kind::BeforeImage { .. });
    let spec = |(number, host): (u8, &Host)| -> Result<Spec> {
        Ok(Spec {
            number,
            address: host.address.clone(),
            platform: "efi".to_owned(),
            version: "2.0.0".to_owned(),
            target: disk::blank(&scratch.file(format!("disk{number}")), image_bytes + SPARE)?,
            image_bytes,
            only_reports_to: None,
            pause_ms: if pauses { PAUSE_MS } else { 0 },
        })
    };
    (0..row.machines).zip(hosts).map(spec).collect()
}

/// A site with its machines, and the server far away.
struct Site<'a> {
    wires: &'a Wires,
    hosts: &'a [Host],
    specs: Vec<Spec>,
    server: Server<'a>,
    server_address: &'a str,
    folder: &'a Path,
}

impl Site<'_> {
    fn power_on(&self, number: usize) -> Result<Beside> {
        self.start(number, "machine", &self.specs[number])
    }

    fn start(&self, number: usize, what: &str, spec: &Spec) -> Result<Beside> {
        let name = format!("{what}-{number}");
        let mut command = self.hosts[number].net.command(std::env::current_exe()?);
        command.arg("machine").arg(serde_json::to_string(spec)?);
        Beside::start(&name, &mut command, &self.folder.join(format!("{name}.log")))
    }

    fn all_on(&self) -> Result<Vec<Beside>> {
        (0..self.specs.len()).map(|number| self.power_on(number)).collect()
    }

    fn line(&self) -> Result<Carried> {
        self.wires.of_site(1)
    }

    /// Orders the image; `words` say for whom. The deployment's id.
    fn ordered(&self, words: &[&str]) -> Result<String> {
        let whole = ["deploy", "start", "--image", "debian", "--yes"];
        let answer = self.server.json(whole.iter().chain(words))?;
        answer["deployment"].as_str().map(str::to_owned).context("the order has no deployment")
    }

    /// Orders it for whatever blank machine appears at the site.
    fn ordered_for_all(&self) -> Result<String> {
        self.ordered(&["--open", "-l", "site=branch", "--limit", &self.specs.len().to_string()])
    }

    /// Lets the server know the machines, and orders it for each.
    fn ordered_by_name(&self) -> Result<String> {
        let url = Some(format!("http://{}:8069", self.server_address));
        let mut reports = vec![];
        for number in 0..self.specs.len() {
            let spec = Spec { only_reports_to: url.clone(), ..self.specs[number].clone() };
            reports.push(self.start(number, "report", &spec)?);
        }
        all_end(&mut reports)?;
        self.ordered(&["--machines", &format!("m[1-{}]", self.specs.len())])
    }

    fn everything(&self, relay: Relayed, known: bool) -> Result<Vec<Figure>> {
        let order = if known { self.ordered_by_name()? } else { self.ordered_for_all()? };
        if relay == Relayed::Staged {
            // The relay goes on with boot files, when it has the image: the machines come in the morning.
            self.quiet()?;
        }
        let before = self.line()?;
        let mut machines = self.all_on()?;
        all_end(&mut machines)?;
        let carried = since(self.line()?, before);
        let marks = machines.iter().map(|machine| Mark::all(&machine.said())).collect::<Result<Vec<_>>>()?;
        let first = marks.iter().flatten().map(|mark| mark.at_ms).min().unwrap_or(0);
        let mut slowest = 0;
        for (spec, marks) in self.specs.iter().zip(&marks) {
            let sealed = marks.iter().find(|mark| mark.what == "sealed");
            slowest = slowest.max(sealed.context("a machine was never sealed")?.at_ms - first);
            let wrong = disk::differences(&spec.target, &images::debian()?.a)?;
            // Personalising changes the partition table, at both ends of the image.
            let last = (spec.image_bytes - 1) / disk::MIB * disk::MIB;
            let good = wrong.iter().all(|at| [0, last].contains(at));
            ensure!(good, "disk {} differs at {wrong:?}", spec.number);
        }
        let shown = self.server.json(["deploy", "status", &order])?;
        let image = shown["wire_bytes"].as_u64().context("an image without a size")?;
        let set = marks.iter().map(|marks| boot_files(marks)).max().unwrap_or(0);
        let bound = mib(image + set) * f64::from(1 << 20) / (LINE * 1e6 / 8.0 * PAYLOAD);
        let seconds = Duration::from_millis(slowest).as_secs_f64();
        let bar = match relay {
            Relayed::No => 165.0,
            Relayed::Empty => 135.0,
            Relayed::Staged => 3.0,
        };
        let mut figures = vec![
            Figure::new("MiB into the site", mib(carried.down)).at_most(bar),
            Figure::new("MiB out of the site", mib(carried.up)),
            Figure::new("MiB of the image, on the wire", mib(image)),
            Figure::new("MiB of one set of boot files", mib(set)),
            Figure::new("s from power-on to the last one sealed", seconds),
        ];
        figures.extend(self.by_kind()?);
        // Nothing crosses the line where all of it is at the site already.
        if relay != Relayed::Staged {
            figures.push(Figure::new("the same over the bound", seconds / bound).at_most(1.5));
        }
        Ok(figures)
    }

    /// Waits until next to nothing has crossed the line for ten seconds.
    fn quiet(&self) -> Result<()> {
        wait::until("the line to be quiet", LIMIT, || {
            let before = self.line()?;
            wait::pause(Duration::from_secs(10))?;
            Ok((since(self.line()?, before).down < 64 << 10).then_some(()))
        })
    }

    /// What the server itself counted on its way into the site, since it was started.
    fn by_kind(&self) -> Result<Vec<Figure>> {
        let status = self.server.json(["swarm", "status"])?;
        let sites = status["sites"].as_array().context("a status without sites")?;
        let branch = sites.iter().find(|site| site["site"] == "branch").context("the site is not listed")?;
        let sent = branch["sent"].as_object().context("no bytes by kind")?;
        let figure = |(kind, bytes): (&String, &serde_json::Value)| {
            Figure::new(
                &format!("MiB of {}, by the server's count", kind.replace('_', " ")),
                mib(bytes.as_u64().unwrap_or(0)),
            )
        };
        Ok(sent.iter().map(figure).collect())
    }

    fn before_image(&self, known: bool) -> Result<Vec<Figure>> {
        if known {
            let machine = self.power_on(0)?;
            marked(&machine, "waiting", 1)?;
            drop(machine);
            std::fs::remove_file(self.folder.join("machine-0.log"))?;
            self.ordered(&["--machines", "m1"])?;
        } else {
            self.ordered_for_all()?;
        }
        let before = self.line()?;
        let machine = self.power_on(0)?;
        marked(&machine, "agent", 1)?;
        let carried = since(self.line()?, before);
        let files = boot_files(&Mark::all(&machine.said())?);
        Ok(vec![
            Figure::new("MiB into the site before the image", mib(carried.down)).at_most(12.0),
            Figure::new("MiB out of the site before the image", mib(carried.up)),
            Figure::new("MiB of boot files among them", mib(files)),
        ])
    }

    fn waiting(&self) -> Result<Vec<Figure>> {
        let machines = self.all_on()?;
        for machine in &machines {
            marked(machine, "waiting", 1)?;
        }
        // What the last one's arrival still causes is not waiting.
        wait::pause(Duration::from_secs(20))?;
        let before = self.line()?;
        wait::pause(WATCHED)?;
        let carried = since(self.line()?, before);
        let share = f64::from(u32::try_from(machines.len())?) * WATCHED.as_secs_f64() / 60.0;
        let kib = |bytes: u64| mib(bytes) * 1024.0 / share;
        Ok(vec![
            Figure::new("KiB up and down, a machine and minute", kib(carried.up + carried.down)).at_most(2.0),
            Figure::new("KiB up, a machine and minute", kib(carried.up)),
        ])
    }

    fn order(&self) -> Result<Vec<Figure>> {
        let machine = self.power_on(0)?;
        marked(&machine, "waiting", 1)?;
        wait::pause(Duration::from_secs(15))?;
        let given = std::time::SystemTime::now();
        self.ordered(&["--machines", "m1"])?;
        let begun = marked(&machine, "agent", 1)?;
        let given_ms = given.duration_since(std::time::UNIX_EPOCH)?.as_millis();
        let late = u128::from(begun.at_ms).saturating_sub(given_ms);
        let seconds = Duration::from_millis(u64::try_from(late)?).as_secs_f64();
        Ok(vec![Figure::new("s from the order to the agent's start", seconds).at_most(1.0)])
    }
}

/// Waits until the machine has made `count` marks of this name; the last of them.
fn marked(machine: &Beside, what: &str, count: usize) -> Result<Mark> {
    wait::until(&format!("a machine to be at {what}"), LIMIT, || {
        let marks = Mark::all(&machine.said())?;
        Ok(marks.into_iter().filter(|mark| mark.what == what).nth(count - 1))
    })
}

/// Waits until every machine has called home.
fn all_end(machines: &mut [Beside]) -> Result<()> {
    wait::until("the machines to call home", LIMIT, || {
        let mut all = true;
        for machine in machines.iter_mut() {
            match machine.ended()? {
                Some(status) if !status.success() => {
                    bail!("a machine failed: {status}:\n{}", process::tail(&machine.said(), 40))
                }
                Some(_) => {}
                None => all = false,
            }
        }
        Ok(all.then_some(()))
    })
}

/// The bytes of the files that a machine took until its agent began: boot program, kernel, loader, bundle, scripts.
fn boot_files(marks: &[Mark]) -> u64 {
    marks.iter().filter(|mark| mark.what == "got").map(|mark| mark.bytes).sum()
}

fn since(after: Carried, before: Carried) -> Carried {
    Carried { up: after.up - before.up, down: after.down - before.down }
}

#[allow(clippy::cast_precision_loss)] // Sizes for people; all are far below 2^52 bytes.
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_that_is_missed_is_named() {
        let row = all().remove(0);
        let figure = Figure::new("MiB into the site", 783.0).at_most(165.0);
        assert!(line(&row, &figure).ends_with("| 783.00 | 165 | missed |"), "{}", line(&row, &figure));
        assert!(!figure.misses(5.0) && !Figure::new("MiB", 9.0).misses(1.0));
    }
}
