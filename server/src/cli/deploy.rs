//! `swarmboot deploy`: orders. What will be written where is shown before anything is asked, and asked
//! before anything is ordered.

use std::collections::HashMap;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use common::id::{DeploymentId, JobId};
use common::plan::Finish;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::args::{Deploy, Start, Which};
use super::client::Client;
use super::fault::{DONE_IN_PART, Fault};
use super::machine::selection;
use super::show::{Screen, bytes, step_words, talk};
use crate::api::{Cancel, DeployAnswer, DeployOrder, DeploymentShown, JobShown, JobState, Selection};

/// From so many machines on, the order is asked for twice, the second time by number.
const ASK_TWICE_FROM: usize = 10;
/// How often `watch` asks the server.
const WATCH_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn run(client: &Client, screen: &Screen, command: Deploy) -> Result<ExitCode, Fault> {
    match command {
        Deploy::Start(start) => return self::start(client, screen, *start).await,
        Deploy::List => screen.deployments(&client.get::<Vec<DeploymentShown>>("/deployments").await?)?,
        Deploy::Status { deployment } => screen.deployment(&self::deployment(client, deployment).await?)?,
        Deploy::Watch { deployment } => return watch(client, screen, deployment).await,
        Deploy::Cancel { deployment, which, reason, yes } => {
            cancel(client, screen, deployment, which, reason, yes).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn deployment(client: &Client, id: Option<DeploymentId>) -> Result<DeploymentShown, Fault> {
    match id {
        Some(id) => client.get(&format!("/deployments/{id}")).await,
        None => {
            let all: Vec<DeploymentShown> = client.get("/deployments").await?;
            all.into_iter()
                .max_by_key(|deployment| deployment.id)
                .ok_or_else(|| Fault::failed("there is no deployment").hint("order one with `deploy start`"))
        }
    }
}

async fn start(client: &Client, screen: &Screen, start: Start) -> Result<ExitCode, Fault> {
    let (dry_run, yes) = (start.dry_run, start.yes);
    let mut order = order(start)?;
    order.dry_run = true;
    let would: DeployAnswer = client.post("/deployments", &order).await?;
    let writable = would.machines.iter().filter(|line| line.refused.is_none()).count();
    if dry_run {
        screen.answer(&would)?;
        return Ok(code(writable, would.machines.len()));
    }
    if !yes {
        screen.answer(&would)?;
        ask(&order, writable)?;
    }
    order.dry_run = false;
    let answer: DeployAnswer = client.post("/deployments", &order).await?;
    screen.answer(&answer)?;
    let taken = answer.machines.iter().filter(|line| line.refused.is_none()).count();
    Ok(if order.open { ExitCode::SUCCESS } else { code(taken, answer.machines.len()) })
}

fn code(good: usize, all: usize) -> ExitCode {
    match good {
        _ if good == all => ExitCode::SUCCESS,
        0 => ExitCode::FAILURE,
        _ => ExitCode::from(DONE_IN_PART),
    }
}

fn order(start: Start) -> Result<DeployOrder, Fault> {
    let which = Which { machines: start.machines, labels: start.labels };
    let selection = if start.open && which.machines.is_empty() {
        Selection { machines: vec![], labels: which.labels }
    } else {
        selection(which)?
    };
    let user_data = start.user_data.as_deref().map(read_text).transpose()?;
    if let Some(text) = &user_data
        && text.len() > common::limits::USER_DATA_BYTES_MAX
    {
        return Err(Fault::usage(format!("user-data of {} bytes", text.len()))
            .hint(format!("at most {} bytes are taken", common::limits::USER_DATA_BYTES_MAX)));
    }
    let mut ssh_keys = vec![];
    for given in &start.ssh_key {
        ssh_keys.extend(keys(given)?);
    }
    Ok(DeployOrder {
        image: start.image,
        selection,
        open: start.open,
        limit: start.limit,
        disk: start.disk,
        hostname: start.hostname,
        ssh_keys,
        user_data,
        no_personalise: start.no_personalise,
        no_confirm: start.no_confirm,
        finish: if start.power_off { Finish::PowerOff } else { Finish::Reboot },
        gather: start.gather,
        gather_seconds: start.gather_seconds,
        accept: start.accept,
        dry_run: false,
    })
}

fn read_text(path: &Path) -> Result<String, Fault> {
    std::fs::read_to_string(path)
        .map_err(|error| Fault::failed(format!("cannot read {}", path.display())).because(&error))
}

/// A key as it is, or the keys of a file.
fn keys(given: &str) -> Result<Vec<String>, Fault> {
    let is_key = |line: &str| line.split_whitespace().count() >= 2 && !line.starts_with('#');
    if is_key(given) && !Path::new(given).exists() {
        return Ok(vec![given.trim().to_owned()]);
    }
    let text = read_text(Path::new(given))?;
    let keys: Vec<String> =
        text.lines().map(str::trim).filter(|line| is_key(line)).map(str::to_owned).collect();
    if keys.is_empty() {
        return Err(Fault::usage(format!("{given} holds no SSH public key")));
    }
    Ok(keys)
}

fn ask(order: &DeployOrder, machines: usize) -> Result<(), Fault> {
    if machines == 0 && !order.open {
        return Err(Fault::failed("there is no machine that could be written"));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Fault::usage("this overwrites disks, and nobody is here to be asked")
            .hint("look at it with --dry-run, then say --yes"));
    }
    talk(&format!("This overwrites the disks shown above, with {}. Type yes to go on:", order.image));
    if read_answer()? != "yes" {
        return Err(Fault::failed("nothing was ordered"));
    }
    if machines >= ASK_TWICE_FROM {
        talk(&format!("It is {machines} machines. Type their number to go on:"));
        if read_answer()? != machines.to_string() {
            return Err(Fault::failed("nothing was ordered"));
        }
    }
    Ok(())
}

fn read_answer() -> Result<String, Fault> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Fault::failed("cannot read the answer").because(&error))?;
    Ok(line.trim().to_owned())
}

async fn cancel(
    client: &Client,
    screen: &Screen,
    deployment: DeploymentId,
    which: Which,
    reason: Option<String>,
    yes: bool,
) -> Result<(), Fault> {
    if !yes && std::io::stdin().is_terminal() {
        talk(
            "Machines in the middle of a transfer will not boot until they are deployed again. Type yes to go on:",
        );
        if read_answer()? != "yes" {
            return Err(Fault::failed("nothing was cancelled"));
        }
    }
    let order = Cancel { selection: Selection { machines: which.machines, labels: which.labels }, reason };
    screen.deployment(&client.post(&format!("/deployments/{deployment}/cancel"), &order).await?)
}

async fn watch(client: &Client, screen: &Screen, id: Option<DeploymentId>) -> Result<ExitCode, Fault> {
    let id = deployment(client, id).await?.id;
    let mut view = View::new();
    loop {
        let now = deployment(client, Some(id)).await?;
        view.show(&now);
        if !now.jobs.is_empty() && now.jobs.iter().all(|job| job.state.is_over()) {
            drop(view);
            screen.deployment(&now)?;
            let good = now.jobs.iter().filter(|job| job.state == JobState::Deployed).count();
            return Ok(code(good, now.jobs.len()));
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// A bar for each job on a terminal, a line for each change otherwise.
struct View {
    bars: Option<MultiProgress>,
    jobs: HashMap<JobId, (ProgressBar, String)>,
}

impl View {
    fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, jobs: HashMap::new() }
    }

    fn show(&mut self, deployment: &DeploymentShown) {
        for job in &deployment.jobs {
            match &self.bars {
                Some(bars) => {
                    let (bar, _) =
                        self.jobs.entry(job.id).or_insert_with(|| (bars.add(bar()), String::new()));
                    bar.set_length(job.total.max(1));
                    bar.set_position(job.done.min(job.total));
                    bar.set_message(format!("{:<16} {:<9} {}", job.name, job.state.name(), from_words(job)));
                }
                None => self.line(job),
            }
        }
    }

    fn line(&mut self, job: &JobShown) {
        // Progress alone is no change: a line for every step and state is what a log file wants.
        let state = format!("{} {:?}", job.state.name(), job.step);
        let (_, last) = self.jobs.entry(job.id).or_insert_with(|| (ProgressBar::hidden(), String::new()));
        if *last != state {
            *last = state;
            talk(&format!("{:<16} {:<9} {}", job.name, job.state.name(), from_words(job)));
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        for (bar, _) in self.jobs.values() {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(1);
    if let Ok(style) = ProgressStyle::with_template("{msg:60} [{bar:20}] {percent:>3}%") {
        bar.set_style(style);
    }
    bar
}

fn from_words(job: &JobShown) -> String {
    let sources = &job.sources;
    if sources.server + sources.peers == 0 {
        return step_words(job);
    }
    format!("{} (server {}, peers {})", step_words(job), bytes(sources.server), bytes(sources.peers))
}
