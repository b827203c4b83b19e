//! `swarmboot deploy`: orders. What would be written where is shown before the admin is asked to confirm, and nothing
//! is ordered before that. Touches the admin socket, standard input and the terminal.

use std::collections::HashMap;
use std::io::{BufRead as _, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use common::id::{DeploymentId, JobId};
use common::step::Step;
use common::text::bytes;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::args::{Again, Deploy, Start};
use super::client::Client;
use super::order::order;
use super::show::words::step_words;
use super::show::{Screen, talk};
use crate::api::shapes::{
    Cancel, DeployAnswer, DeployLine, DeploymentShown, Freeze, Frozen, JobShown, JobState, Pause, Retry,
    RetryLine, RetryShown, Selection, Shown, ShownLine, ShownProfile,
};
use crate::fault::{DONE_IN_PART, Fault};

/// From this number of machines on, the admin confirms twice, the second time by typing the number.
const ASK_TWICE_FROM: usize = 10;
/// How often `watch` polls the server.
const WATCH_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn run(client: &Client, screen: &Screen, command: Deploy) -> Result<ExitCode, Fault> {
    match command {
        Deploy::Start(start) => return self::start(client, screen, *start).await,
        Deploy::List => screen.deployments(&client.pages("/deployments").await?)?,
        Deploy::Status { deployment } => screen.deployment(&self::deployment(client, deployment).await?)?,
        Deploy::Watch { deployment, together } => return watch(client, screen, deployment, together).await,
        Deploy::Retry(again) => return retry(client, screen, again).await,
        Deploy::Freeze { reason } => freeze(client, screen, true, reason).await?,
        Deploy::Unfreeze { reason } => freeze(client, screen, false, reason).await?,
        Deploy::Pause { deployment, together, reason } => {
            pause(client, screen, deployment, Pause { pause: true, reason, together }).await?;
        }
        Deploy::Resume { deployment, together, reason } => {
            pause(client, screen, deployment, Pause { pause: false, reason, together }).await?;
        }
        Deploy::Cancel { deployment, together, which, reason, yes } => {
            let selection = Selection { machines: which.machines, labels: which.labels };
            cancel(client, screen, deployment, Cancel { selection, reason, together }, yes).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn deployment(client: &Client, id: Option<DeploymentId>) -> Result<DeploymentShown, Fault> {
    match id {
        Some(id) => client.get(&format!("/deployments/{id}")).await,
        None => {
            // A server of an earlier version sends all of them.
            let all: Vec<DeploymentShown> = client.get("/deployments?newest=true&limit=1").await?;
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
        if let Some(frozen) = &would.frozen {
            talk(&format!("nothing can be ordered: {frozen}"));
        }
        if writable > most(would.max_machines) {
            talk(&format!(
                "one order may write {} machines: for {writable}, it needs --max-machines {writable}",
                would.max_machines
            ));
        }
        return Ok(code(writable, would.machines.len()));
    }
    if let Some(frozen) = &would.frozen {
        return Err(Fault::failed(format!("nothing can be ordered: {frozen}"))
            .hint("`swarmboot deploy unfreeze` lets new things begin again"));
    }
    if !yes {
        screen.answer(&would)?;
        if writable == 0 && !order.open {
            return Err(Fault::failed("there is no machine that could be written"));
        }
        let is_above = writable > most(would.max_machines);
        let what = format!("This overwrites the disks shown above, with {}.", images(&would));
        ask(&what, writable, is_above || writable >= ASK_TWICE_FROM)?;
        if is_above {
            // Their number was typed.
            order.max_machines = u32::try_from(writable).ok();
        }
    }
    order.dry_run = false;
    if writable > 0 || order.open {
        // The order names the machines and disks that were shown: names and labels are not looked up a second time.
        order.shown = Some(shown(&would));
    }
    let mut answer: DeployAnswer = client.order("/deployments", &order).await?;
    if order.shown.is_some() {
        answer.machines.extend(would.machines.into_iter().filter(|line| line.refused.is_some()));
        answer.machines.sort_by_key(|line| line.machine);
    }
    screen.answer(&answer)?;
    let taken = answer.machines.iter().filter(|line| line.refused.is_none()).count();
    Ok(if order.open { ExitCode::SUCCESS } else { code(taken, answer.machines.len()) })
}

fn most(max_machines: u32) -> usize {
    usize::try_from(max_machines).unwrap_or(usize::MAX)
}

/// The names of the images that a dry run's answer would write.
fn images(would: &DeployAnswer) -> String {
    let parts = would.profiles.iter().map(|part| part.image.name.as_str());
    let mut names: Vec<&str> = parts.collect();
    names.dedup();
    if names.is_empty() { would.image.name.clone() } else { names.join(" and ") }
}

/// The machines of a dry run's answer that would be written, each with its disk, and the profiles as they were.
fn shown(would: &DeployAnswer) -> Shown {
    let writable = would.machines.iter().filter(|line| line.refused.is_none());
    let line = |line: &DeployLine| ShownLine {
        machine: line.machine,
        disk: line.disk.clone(),
        profile: line.profile.clone(),
    };
    let profiles = would.profiles.iter().map(|part| ShownProfile {
        name: part.profile.name.clone(),
        number: part.profile.number,
        image: part.image.id,
    });
    Shown { image: would.image.id, machines: writable.map(line).collect(), profiles: profiles.collect() }
}

async fn retry(client: &Client, screen: &Screen, again: Again) -> Result<ExitCode, Fault> {
    let selection = Selection { machines: again.machines, labels: again.labels };
    if again.deployment.is_none() && selection.machines.is_empty() && selection.labels.is_empty() {
        return Err(Fault::usage("nothing is named to be ordered again")
            .hint("name a deployment (d3), or machines with --machines or -l"));
    }
    let mut retry = Retry {
        deployment: again.deployment,
        selection,
        failed: again.failed,
        max_machines: again.max_machines,
        shown: None,
        dry_run: true,
    };
    let would: Vec<RetryLine> = client.post("/deployments/retry", &retry).await?;
    let writable: Vec<&RetryLine> = would.iter().filter(|again| again.line.refused.is_none()).collect();
    if again.dry_run || !again.yes {
        screen.retried(&would, true)?;
    }
    if again.dry_run {
        return Ok(code(writable.len(), would.len()));
    }
    if writable.is_empty() {
        return Err(Fault::failed("there is nothing that could be ordered again")
            .hint("`deploy retry --dry-run` shows why"));
    }
    if !again.yes {
        let counted = writable.len() >= ASK_TWICE_FROM;
        ask("This overwrites the disks shown above.", writable.len(), counted)?;
        if counted {
            // A number that was typed is as good as the flag.
            retry.max_machines = retry.max_machines.or(u32::try_from(writable.len()).ok());
        }
    }
    let shown = writable.iter().map(|again| RetryShown { job: again.job, disk: again.line.disk.clone() });
    (retry.shown, retry.dry_run) = (Some(shown.collect()), false);
    let done: Vec<RetryLine> = client.order("/deployments/retry", &retry).await?;
    screen.retried(&done, false)?;
    Ok(code(done.iter().filter(|again| again.line.refused.is_none()).count(), would.len()))
}

async fn freeze(client: &Client, screen: &Screen, freeze: bool, reason: Option<String>) -> Result<(), Fault> {
    let frozen: Option<Frozen> = client.post("/freeze", &Freeze { freeze, reason }).await?;
    screen.frozen(frozen.as_ref())
}

async fn pause(
    client: &Client,
    screen: &Screen,
    deployment: DeploymentId,
    pause: Pause,
) -> Result<(), Fault> {
    let done = client.post(&format!("/deployments/{deployment}/pause"), &pause).await?;
    changed(client, screen, done, pause.together).await
}

/// Prints a deployment that was changed, and if `together` those that were with it.
async fn changed(
    client: &Client,
    screen: &Screen,
    done: DeploymentShown,
    together: bool,
) -> Result<(), Fault> {
    if !together {
        return screen.deployment(&done);
    }
    screen.deployments_whole(&with_others(client, done).await?)
}

/// A deployment and the others of its order, ascending.
async fn with_others(client: &Client, one: DeploymentShown) -> Result<Vec<DeploymentShown>, Fault> {
    let mut all = vec![];
    for id in &one.with {
        all.push(deployment(client, Some(*id)).await?);
    }
    all.push(one);
    all.sort_by_key(|deployment| deployment.id);
    Ok(all)
}

fn code(good: usize, all: usize) -> ExitCode {
    match good {
        _ if good == all => ExitCode::SUCCESS,
        0 => ExitCode::FAILURE,
        _ => ExitCode::from(DONE_IN_PART),
    }
}

/// Asks whether to go on, and where `counted` for the number of machines too.
fn ask(what: &str, machines: usize, counted: bool) -> Result<(), Fault> {
    if !std::io::stdin().is_terminal() {
        return Err(Fault::usage("this overwrites disks, and nobody is here to be asked")
            .hint("look at it with --dry-run, then say --yes"));
    }
    talk(&format!("{what} Type yes to go on:"));
    if read_answer()? != "yes" {
        return Err(Fault::failed("nothing was ordered"));
    }
    if counted {
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
    order: Cancel,
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
    let done = client.post(&format!("/deployments/{deployment}/cancel"), &order).await?;
    changed(client, screen, done, order.together).await
}

async fn watch(
    client: &Client,
    screen: &Screen,
    id: Option<DeploymentId>,
    together: bool,
) -> Result<ExitCode, Fault> {
    let id = deployment(client, id).await?.id;
    let mut view = View::new();
    loop {
        let one = deployment(client, Some(id)).await?;
        let now = if together { with_others(client, one).await? } else { vec![one] };
        now.iter().for_each(|deployment| view.show(deployment));
        if now.iter().all(is_over) {
            drop(view);
            match now.as_slice() {
                [one] if !together => screen.deployment(one)?,
                all => screen.deployments_whole(all)?,
            }
            let jobs = || now.iter().flat_map(|deployment| &deployment.jobs);
            let good = jobs().filter(|job| job.state == JobState::Deployed).count();
            return Ok(code(good, jobs().count()));
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// Whether it has jobs, and none of them goes on.
fn is_over(deployment: &DeploymentShown) -> bool {
    !deployment.jobs.is_empty() && deployment.jobs.iter().all(|job| job.state.is_over())
}

/// The state and step of a job, as the last line about it had them.
type Told = (JobState, Option<Step>);

/// The display of `watch`: a progress bar for each job on a terminal, otherwise a line for each change.
struct View {
    bars: Option<MultiProgress>,
    /// The bar of each job, and the state that was last printed where there are no bars.
    jobs: HashMap<JobId, (ProgressBar, Option<Told>)>,
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
                    let (bar, _) = self.jobs.entry(job.id).or_insert_with(|| (bars.add(bar()), None));
                    bar.set_length(job.total.max(1));
                    bar.set_position(job.done.min(job.total));
                    bar.set_message(format!("{:<16} {:<9} {}", job.name, job.state.name(), from_words(job)));
                }
                None => self.line(job),
            }
        }
    }

    fn line(&mut self, job: &JobShown) {
        // Progress alone is no change: in a log file, a line for each step and state is enough.
        let state = Some((job.state, job.step.clone()));
        let (_, last) = self.jobs.entry(job.id).or_insert_with(|| (ProgressBar::hidden(), None));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Json;
    use axum::extract::State;
    use axum::routing::post;
    use clap::Parser as _;
    use common::id::{Hash, ImageId, MachineId};
    use common::plan::DiskIdentity;
    use parking_lot::Mutex;

    use super::super::args::{Args, Ask, Command, Output};
    use super::super::client::Target;
    use super::*;
    use crate::api::shapes::{DeployOrder, ImageShown, PREFIX};
    use crate::fleet::bound::tests::disk;

    fn line(machine: u64, disk: Option<DiskIdentity>, refused: Option<&str>) -> DeployLine {
        let refused = refused.map(str::to_owned);
        let id = MachineId(machine);
        DeployLine {
            machine: id,
            name: id.to_string(),
            target: None,
            disk,
            warnings: vec![],
            profile: None,
            hostname: None,
            refused,
        }
    }

    /// Answers every order with the same three machines, and records what it was sent.
    async fn answer(
        State(asked): State<Arc<Mutex<Vec<DeployOrder>>>>,
        Json(order): Json<DeployOrder>,
    ) -> Json<DeployAnswer> {
        let deployment = (!order.dry_run).then_some(DeploymentId(1));
        asked.lock().push(order);
        let image = ImageShown {
            name: "debian".to_owned(),
            id: ImageId(Hash([7; 32])),
            added: jiff::Timestamp::UNIX_EPOCH,
            bytes: 1,
            wire_bytes: 1,
            chunks: 1,
            zero_chunks: 0,
            sector_bytes: 512,
            partition_table: "gpt".to_owned(),
            source: String::new(),
            staged: vec![],
            traits: None,
            updates: vec![],
        };
        let machines =
            vec![line(1, Some(disk("A")), None), line(2, Some(disk("B")), Some("held")), line(3, None, None)];
        Json(DeployAnswer { deployment, image, machines, profiles: vec![], max_machines: 50, frozen: None })
    }

    async fn ordered(flags: &[&str]) -> Vec<DeployOrder> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let asked = Arc::new(Mutex::new(vec![]));
        let path = format!("{PREFIX}/deployments");
        let server = axum::Router::new().route(&path, post(answer)).with_state(Arc::clone(&asked));
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(axum::serve(listener, server).into_future());
        let typed = ["swarmboot", "deploy", "start", "--image", "debian", "--machines", "m[1-3]"];
        let args = Args::try_parse_from(typed.iter().chain(flags)).unwrap();
        let Command::Ask(Ask::Deploy(command)) = args.command else { panic!("{:?}", args.command) };
        run(&Client::new(Target::Socket(socket)), &Screen { output: Output::Json }, command).await.unwrap();
        server.abort();
        let asked = asked.lock();
        asked.clone()
    }

    /// H4 (d): the machines and disks that were shown are ordered, not what their names mean by then.
    #[tokio::test]
    async fn what_was_shown_is_what_is_ordered() {
        let asked = ordered(&["--yes"]).await;
        let [looked, order] = asked.as_slice() else { panic!("{asked:?}") };
        assert!(looked.dry_run && looked.shown.is_none());
        assert!(!order.dry_run);
        let shown = order.shown.clone().unwrap();
        assert_eq!(shown.image, ImageId(Hash([7; 32])));
        let lines: Vec<_> = shown.machines.into_iter().map(|line| (line.machine.0, line.disk)).collect();
        assert_eq!(lines, [(1, Some(disk("A"))), (3, None)], "the refused one is not ordered for");
    }

    #[tokio::test]
    async fn a_dry_run_orders_nothing() {
        let asked = ordered(&["--dry-run"]).await;
        assert!(asked.len() == 1 && asked[0].dry_run, "{asked:?}");
    }
}
