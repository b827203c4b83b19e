//! The agent as a machine's first process: takes over from the loader, carries out its order, and restarts the machine.
//! It never exits, because the kernel would panic. After a failure the machine stays up with the reason on its console,
//! and asks the server for another order. Touches the console, the network's lease, and the machine's power.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::causes::with_causes;
use common::hardware::Disk;
use common::id::{Hash, MachineId};
use common::plan::{Finish, Instruction, Plan, Verdict};
use common::step::{Step, StepEvent};
use common::trust::{PublicKey, Signed, Untrusted};
use common::wire::objects::OBJECTS_PORT;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::life::{Asking, End, Host, Life, Outcome, runtime};
use super::run::EventSink;
use crate::boot::console::Console;
use crate::boot::handover::{Handover, HandoverError, take_bundle, take_over};
use crate::boot::init;
use crate::boot::network::LeaseKeeper;
use crate::boot_files::{self, BootFiles, Net};
use crate::fetch::{FetchError, Server};
use crate::inspect::{self, Reporter};

/// Where a machine listens for peers. The port is free: no other process listens.
const LISTEN: &str = "/ip4/0.0.0.0/tcp/4001";

/// How long the console shows why the machine starts over, before it does.
const READING: Duration = Duration::from_secs(60);

/// Why PID 1 cannot begin its job.
#[derive(Debug, thiserror::Error)]
enum NoJob {
    #[error("the loader left no order")]
    Handover(#[from] HandoverError),
    #[error("the server's address cannot be used")]
    Server(#[from] FetchError),
    #[error("the order is not our server's")]
    Verdict(#[from] Untrusted),
    #[error("the order is for another machine, or for another boot of this one")]
    NotOurs,
    #[error("the loader left an order that is no deployment")]
    NotDeploy,
    #[error("cannot keep the network's lease")]
    Lease(#[source] io::Error),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

/// What the machine is to do when the main loop has ended.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    Restart(String),
    PowerOff,
    Stay,
}

/// PID 1's surroundings: the machine's consoles.
struct FirstProcess {
    console: Console,
    /// The bundle that the machine booted with, whose modules are loaded.
    bundle: Option<Hash>,
}

impl Host for FirstProcess {
    type Error = Infallible;

    const PACE: Duration = Duration::from_secs(10);

    fn say(&self, text: &str) {
        self.console.say(text);
    }

    fn show(&self, event: &StepEvent) {
        self.console.say(&event.on_console());
    }

    fn takes(&self, _: MachineId, plan: Plan) -> Plan {
        plan
    }

    /// Nothing to report: the loader has reported the step `agent`.
    fn begins(&self, _: &dyn EventSink) {}

    fn disks(&self) -> Result<Vec<Disk>, Infallible> {
        Ok(inspect::disks::list(Path::new("/")))
    }

    /// A bundle has the file system of the root in which its hooks run, and its modules are gone by now.
    fn lacks(&self, plan: &Plan) -> bool {
        plan.steps.contains(&Step::Hooks) && plan.bundle.map(|(hash, _)| hash) != self.bundle
    }

    fn goes_on_after(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Done => false,
            Outcome::FailedSealed(ended) => {
                self.say(&format!("{}; but the disk is whole", with_causes(ended)));
                false
            }
            Outcome::Failed(ended) => {
                self.say(&format!("this job has failed ({}); waiting for another order", with_causes(ended)));
                true
            }
        }
    }
}

/// Runs as PID 1, until the machine restarts or is switched off.
pub fn run() -> ! {
    let console = Console::open();
    console.show_panics();
    console.say(concat!("agent ", env!("CARGO_PKG_VERSION")));
    match catch_unwind(AssertUnwindSafe(|| live(&console))) {
        Ok(Ok(Then::Restart(why))) => {
            console.say(&why);
            init::reboot(&console)
        }
        Ok(Ok(Then::PowerOff)) => init::power_off(&console),
        Ok(Ok(Then::Stay)) => init::stay(&console),
        Ok(Err(error)) => console.failed("the agent", &error, "this machine starts over in a minute"),
        // The panic hook has shown it.
        Err(_) => console.say("this machine starts over in a minute"),
    }
    std::thread::sleep(READING);
    init::reboot(&console)
}

fn live(console: &Console) -> Result<Then, NoJob> {
    let Handover { server_url, server_key, machine_key, verdict, asked_ms, attachment, backlog } =
        take_over()?;
    let server = Server::new(&server_url, server_key)?;
    let held_ms = init::uptime_ms().saturating_sub(asked_ms);
    let Left { plan, expired } = left(&verdict, &server_key, &machine_key.public(), held_ms)?;
    let reporter = Reporter {
        key: machine_key.public(),
        booted: true,
        boot_mac: Some(attachment.mac),
        address: Some((
            attachment.interface.clone(),
            format!("{}/{}", attachment.lease.address, attachment.lease.prefix),
        )),
        name: None,
        site: None,
    };
    let net = (attachment.lease.address, attachment.lease.prefix);
    let _lease = LeaseKeeper::start(attachment, console.clone()).map_err(NoJob::Lease)?;
    let report = Arc::new(move || inspect::report(Path::new("/"), &reporter));
    let runtime = runtime().map_err(NoJob::Runtime)?;
    let cancel = CancellationToken::new();
    let bundle = plan.bundle.map(|(hash, _)| hash);
    let boot_files = give_out(console, net, bundle, &server, &runtime, &cancel);
    let life = Life {
        asking: Asking { server, key: machine_key, report },
        listen: LISTEN.to_owned(),
        boot_files,
        cancel: cancel.clone(),
        host: Arc::new(FirstProcess { console: console.clone(), bundle }),
    };
    if expired {
        console.say("the order is too old by now: asking again");
    }
    let Ok(end) = life.live(&runtime, (!expired).then_some(plan), backlog);
    Ok(then(end))
}

/// What the machine is to do after the main loop has ended in this way.
fn then(end: End) -> Then {
    match end {
        End::Job(_, Finish::PowerOff) => Then::PowerOff,
        End::Job(_, Finish::Stay) => Then::Stay,
        // PID 1 must not exit, whatever the plan says.
        End::Job(_, Finish::Reboot | Finish::Exit) => Then::Restart("restarting into the new OS".to_owned()),
        End::BootDisk(reason) => Then::Restart(format!("restarting: {reason}")),
        End::AnotherAgent => {
            Then::Restart("restarting: the order has hooks, for which another agent is needed".to_owned())
        }
        End::Stopped => Then::Restart("restarting".to_owned()),
    }
}

/// Gives out small files to machines of this network, first of all the bundle that the loader left. Without it the
/// machine works as well.
fn give_out(
    console: &Console,
    net: Net,
    bundle: Option<Hash>,
    server: &Server,
    runtime: &Runtime,
    cancel: &CancellationToken,
) -> Option<BootFiles> {
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, OBJECTS_PORT));
    let (boot_files, keeper) = match boot_files::open(everywhere, vec![net]) {
        Ok(opened) => opened,
        Err(error) => {
            console.failed("giving out boot files", &error, "going on without it");
            return None;
        }
    };
    if let Some(bytes) = take_bundle(bundle) {
        boot_files.put(bytes);
    }
    // PID 1 never ends but with the machine, so nobody waits for it.
    runtime.spawn(keeper.run(server.clone(), cancel.clone()));
    Some(boot_files)
}

/// The order that the loader handed over, checked.
#[derive(Debug)]
struct Left {
    plan: Box<Plan>,
    /// Whether it is too old: the server is then asked again before anything is done.
    expired: bool,
}

/// Checks the loader's `verdict`, which is `held_ms` old, against the keys, and takes its plan.
fn left(verdict: &Signed<Verdict>, server: &PublicKey, own: &PublicKey, held_ms: u64) -> Result<Left, NoJob> {
    let verdict = verdict.open(server)?;
    if verdict.key != *own {
        return Err(NoJob::NotOurs);
    }
    let expired = held_ms > u64::from(verdict.seconds) * 1000;
    let Instruction::Deploy(plan) = verdict.instruction else { return Err(NoJob::NotDeploy) };
    Ok(Left { plan, expired })
}

#[cfg(test)]
mod tests {
    use common::id::{DeploymentId, Hash, JobId, MachineId};
    use common::trust::KeyPair;

    use super::*;

    fn pair(n: u8) -> KeyPair {
        KeyPair::from_secret([n; 32])
    }

    fn verdict(order: serde_json::Value, seconds: u32) -> Signed<Verdict> {
        pair(1).sign(&Verdict {
            key: pair(2).public(),
            report: Hash([0; 32]),
            seconds,
            machine: MachineId(1),
            instruction: serde_json::from_value(order).unwrap(),
        })
    }

    fn deploy() -> serde_json::Value {
        serde_json::json!({"deploy": {
            "deployment": DeploymentId(1), "job": JobId(1), "attempt": 1, "image": Hash([1; 32]), "image_bytes": 1,
            "target": {"bus": "ata", "size": 1, "sector_bytes": 512, "model": "", "serial": "S", "wwn": "", "path": ""},
            "steps": ["join"], "seed": {"key": pair(1).public(), "addresses": []},
            "tuning": {"cache_bytes": 1, "fetch_parallel": 1, "write_backlog": 1, "sync_bytes": 1, "upload_parallel": 1},
            "finish": "reboot", "bundle": null,
        }})
    }

    #[test]
    fn a_machine_does_at_the_end_what_its_plan_says() {
        let after = |finish| then(End::Job(Outcome::Done, finish));
        assert_eq!((after(Finish::PowerOff), after(Finish::Stay)), (Then::PowerOff, Then::Stay));
        for finish in [Finish::Reboot, Finish::Exit] {
            assert!(matches!(after(finish), Then::Restart(_)), "{finish:?}: PID 1 must not end");
        }
    }

    #[test]
    fn an_order_is_carried_out_only_as_long_as_it_holds() {
        let expired = |seconds, held_ms| {
            left(&verdict(deploy(), seconds), &pair(1).public(), &pair(2).public(), held_ms).unwrap().expired
        };
        for (seconds, held_ms, wanted) in [
            (7200, 0, false),
            (7200, 7_200_000, false),
            (7200, 7_200_001, true),
            (0, 0, false),
            (0, 1, true),
            (u32::MAX, 7_200_001, false),
            (7200, u64::MAX, true),
        ] {
            assert_eq!(expired(seconds, held_ms), wanted, "{seconds} s, after {held_ms} ms");
        }
    }

    #[test]
    fn an_order_of_others_or_for_others_is_none() {
        let (server, own, other) = (pair(1).public(), pair(2).public(), pair(3).public());
        let wait = serde_json::json!({"wait": {"seconds": 1, "reason": "x"}});
        let order = |value| verdict(value, 7200);
        assert!(matches!(left(&order(deploy()), &other, &own, 0), Err(NoJob::Verdict(_))));
        assert!(matches!(left(&order(deploy()), &server, &other, 0), Err(NoJob::NotOurs)));
        assert!(matches!(left(&order(wait), &server, &own, 0), Err(NoJob::NotDeploy)));
    }
}
