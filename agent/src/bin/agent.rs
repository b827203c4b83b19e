//! The agent: PID 1 of a machine after the loader, or an ordinary process with a file or device as its target.
//! Owns the command line, the runtime and the process's end; what is done is in `agent::steps`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agent::boot::handover::PID1_ARGUMENT;
use agent::boot_files;
use agent::disk::find::{TargetError, as_disk};
use agent::fetch::{Server, identity_of};
use agent::inspect::{self, Reporter};
use agent::outbox::Backlog;
use agent::steps::life::{Asking, End, Host, Life, Outcome, runtime};
use agent::steps::{EventSink, pid1};
use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand, ValueEnum};
use common::causes::with_causes;
use common::hardware::{Disk, Firmware, HardwareReport, System};
use common::id::MachineId;
use common::plan::{Finish, Plan};
use common::step::{Step, StepEvent, What};
use common::text::harmless;
use common::trust::{KeyPair, PublicKey};
use tokio_util::sync::CancellationToken;

/// The system's allocator keeps memory that the chunks' buffers have freed; mimalloc returns it, and is faster where
/// threads free what others allocated.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Any free port: several processes may share a host.
const LISTEN_ANY: &str = "/ip4/0.0.0.0/tcp/0";

/// Exit codes: the job failed; wrong arguments; no server.
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NO_SERVER: u8 = 3;

/// Writes an image that the swarm brings onto one disk.
#[derive(Debug, Parser)]
#[command(
    name = "swarmboot-agent",
    version,
    max_term_width = 80,
    after_help = "Example:\n  swarmboot-agent run --server http://10.0.0.1:8069 \\\n      --target disk.img \
                  --size 4294967296 --name spare-1"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// As an ordinary process: wait for an order for this target, carry it
    /// out, and end. The host is never restarted.
    #[command(
        after_help = "Example:\n  swarmboot-agent run --server http://10.0.0.1:8069 --target disk.img \\\n      \
                      --size 4294967296 --name spare-1\n\nEverything on the target is lost once an order \
                      for it is carried out."
    )]
    Run(Box<Run>),
    /// As the first process of a machine, after the loader.
    #[command(hide = true)]
    Pid1,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The server, such as http://10.0.0.1:8069.
    #[arg(long, env = "SWARMBOOT_SERVER", value_name = "URL")]
    server: String,

    /// The server's key; without it, whoever answers is believed.
    #[arg(long, env = "SWARMBOOT_SERVER_KEY", value_name = "KEY")]
    server_key: Option<PublicKey>,

    /// The file or block device to write.
    #[arg(long, value_name = "PATH")]
    target: PathBuf,

    /// Makes a file that is missing or shorter this long.
    #[arg(long, value_name = "BYTES")]
    size: Option<u64>,

    /// A name to be known by [default: host and target].
    #[arg(long)]
    name: Option<String>,

    /// The site this process is at.
    #[arg(long)]
    site: Option<String>,

    /// Where to listen for peers: an address and port, or a multiaddr
    /// [default: any free port].
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,

    /// Give out boot files to others of this site at this address and port,
    /// such as 0.0.0.0:8069: on a spare box beside machines that boot.
    #[arg(long, value_name = "ADDR:PORT")]
    serve_boot_files: Option<SocketAddr>,

    /// End after the first order, even if it failed; otherwise wait for
    /// another one.
    #[arg(long)]
    once: bool,

    /// How to print step events.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line each, for people.
    Table,
    /// One JSON object each, for programs.
    Json,
}

fn main() -> ExitCode {
    // Started by the kernel, it is the loader of a small initramfs, which starts itself anew as the agent.
    if std::process::id() == 1 && std::env::args().nth(1).as_deref() != Some(PID1_ARGUMENT) {
        agent::boot::loader::run();
    }
    match Args::parse().command {
        Command::Pid1 => pid1::run(),
        Command::Run(run) => process(*run),
    }
}

fn process(run: Run) -> ExitCode {
    log_to_stderr();
    let listen = match listen_address(run.listen.as_deref()) {
        Ok(listen) => listen,
        Err(error) => return complain(&error, USAGE),
    };
    let key = match run.server_key.map_or_else(|| ask_key(&run.server), Ok) {
        Ok(key) => key,
        Err(error) => return complain(&error, NO_SERVER),
    };
    match work(&run, key, listen) {
        Ok(code) => code,
        Err(error) => complain(&error, FAILED),
    }
}

fn ask_key(url: &str) -> anyhow::Result<PublicKey> {
    let key =
        identity_of(url).map_err(|error| anyhow::anyhow!("{} ({})", with_causes(&error), error.hint()))?.key;
    say(&format!("no --server-key: believing {key}, who answers at {url}"));
    Ok(key)
}

fn work(run: &Run, server_key: PublicKey, listen: String) -> anyhow::Result<ExitCode> {
    let server = Server::new(&run.server, server_key)?;
    let disk = as_disk(&run.target, run.size)?;
    let key = KeyPair::generate().context("there is no random source")?;
    let name = run.name.clone().unwrap_or_else(|| default_name(&disk.name));
    say(&format!(
        "{name} ({}) is waiting for an order for {} ({} bytes)",
        key.public().short(),
        disk.path,
        disk.size
    ));
    let reporter = Reporter {
        key: key.public(),
        booted: false,
        boot_mac: None,
        address: None,
        name: Some(name),
        site: run.site.clone(),
    };
    let cancel = CancellationToken::new();
    let runtime = runtime().context("cannot start the runtime")?;
    let given_out = run.serve_boot_files.map(|at| {
        // Which networks are served, the server says.
        boot_files::open(at, vec![]).with_context(|| format!("cannot give out boot files at {at}"))
    });
    let (boot_files, keeper) = given_out.transpose()?.unzip();
    let keeping = keeper.map(|keeper| runtime.spawn(keeper.run(server.clone(), cancel.child_token())));
    let life = Life {
        asking: Asking { server, key, report: report_as_process(reporter, disk) },
        listen,
        boot_files,
        cancel: cancel.clone(),
        host: Arc::new(Process {
            target: run.target.clone(),
            size: run.size,
            once: run.once,
            output: run.output,
            cancel: cancel.clone(),
        }),
    };
    runtime.spawn(interrupted(cancel.clone()));
    let end = life.live(&runtime, None, Backlog::default());
    cancel.cancel();
    if let Some(keeping) = keeping {
        // A task that panicked has ended, too; its panic was printed.
        runtime.block_on(keeping).ok();
    }
    // Threads that hang at a dead disk must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(match end? {
        End::Job(Outcome::Done, _) => ExitCode::SUCCESS,
        End::BootDisk(reason) => {
            say(&format!("nothing to do: {reason}"));
            ExitCode::SUCCESS
        }
        End::AnotherAgent | End::Stopped | End::Job(Outcome::Failed(_) | Outcome::FailedSealed(_), _) => {
            ExitCode::from(FAILED)
        }
    })
}

/// The agent as one process among others on a host, with one file or device to write.
struct Process {
    target: PathBuf,
    size: Option<u64>,
    once: bool,
    output: Output,
    cancel: CancellationToken,
}

impl Host for Process {
    type Error = TargetError;

    const PACE: Duration = Duration::ZERO;

    fn say(&self, text: &str) {
        say(text);
    }

    fn show(&self, event: &StepEvent) {
        print(event, self.output);
    }

    /// Overrides what comes after the job: the host is never restarted.
    fn takes(&self, machine: MachineId, plan: Plan) -> Plan {
        say(&format!("this is machine {machine}: {} of {}", plan.job, plan.deployment));
        Plan { finish: Finish::Exit, ..plan }
    }

    fn begins(&self, sink: &dyn EventSink) {
        sink.event(Step::Agent, What::Started, None);
        sink.event(Step::Agent, What::Done { text: "as an ordinary process".to_owned() }, None);
    }

    fn disks(&self) -> Result<Vec<Disk>, TargetError> {
        Ok(vec![as_disk(&self.target, self.size)?])
    }

    fn goes_on_after(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Done => false,
            Outcome::Failed(ended) | Outcome::FailedSealed(ended) => {
                say(&format!("failed: {}", with_causes(ended)));
                !self.once && !self.cancel.is_cancelled()
            }
        }
    }
}

/// An ordinary process reports its target as its only disk and none of its host's marks: many processes may share one
/// host, and the host itself may be a machine of the server's.
fn report_as_process(reporter: Reporter, disk: Disk) -> Arc<dyn Fn() -> HardwareReport + Send + Sync> {
    Arc::new(move || {
        let whole = inspect::report(Path::new("/"), &reporter);
        HardwareReport {
            firmware: Firmware::None,
            system: System::default(),
            disks: vec![disk.clone()],
            nics: vec![],
            devices: vec![],
            truncated: vec![],
            ..whole
        }
    })
}

fn default_name(disk: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{disk}", host.trim()).trim_matches('-').to_owned()
}

/// `text` as a multiaddr; any free port when there is none.
fn listen_address(text: Option<&str>) -> anyhow::Result<String> {
    let Some(text) = text else { return Ok(LISTEN_ANY.to_owned()) };
    if text.starts_with('/') {
        return Ok(text.to_owned());
    }
    match text.parse() {
        Ok(SocketAddr::V4(at)) => Ok(format!("/ip4/{}/tcp/{}", at.ip(), at.port())),
        Ok(SocketAddr::V6(at)) => Ok(format!("/ip6/{}/tcp/{}", at.ip(), at.port())),
        Err(_) => bail!("`{text}` is no address to listen on, such as 0.0.0.0:4001 or /ip4/0.0.0.0/tcp/4001"),
    }
}

/// On the first interrupt ends the job at a safe point, on the second one the process.
async fn interrupted(cancel: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        say("stopping where that is safe; once more to leave at once");
        cancel.cancel();
        if tokio::signal::ctrl_c().await.is_ok() {
            leave_at_once();
        }
    }
}

#[expect(clippy::exit, reason = "who interrupts twice wants no more order of stopping")]
fn leave_at_once() -> ! {
    std::process::exit(130)
}

fn log_to_stderr() {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;

    // `Targets` reads what RUST_LOG mostly holds (`debug`, `agent::swarm=debug`). `EnvFilter` reads spans as well and
    // brings a regular expression engine, which every agent would carry over its site's line.
    let wanted = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).init();
}

fn print(event: &StepEvent, output: Output) {
    let text = match output {
        Output::Table => {
            format!("{:>5}.{} s  {}", event.at_ms / 1000, event.at_ms % 1000 / 100, event.on_console())
        }
        Output::Json => serde_json::to_string(event).unwrap_or_default(),
    };
    // A reader that has gone away ends the showing, not the job.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a line for a person, cleaned: it may hold text of whatever answers as a server.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "swarmboot-agent: {}", harmless(text));
}

fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    say(&format!("{error:#}"));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn help_fits_a_terminal_and_has_an_example() {
        let mut whole = Args::command();
        whole.build();
        let run = whole.find_subcommand("run").unwrap().clone();
        for mut command in [whole, run] {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example:"));
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }

    #[test]
    fn addresses_to_listen_on() {
        assert_eq!(listen_address(None).unwrap(), LISTEN_ANY);
        assert_eq!(listen_address(Some("10.0.0.7:4001")).unwrap(), "/ip4/10.0.0.7/tcp/4001");
        assert_eq!(listen_address(Some("[::1]:0")).unwrap(), "/ip6/::1/tcp/0");
        assert_eq!(listen_address(Some("/ip4/1.2.3.4/tcp/5")).unwrap(), "/ip4/1.2.3.4/tcp/5");
        assert!(listen_address(Some("4001")).is_err());
    }
}
