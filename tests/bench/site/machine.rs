//! One machine of the site benchmark, as a process in a namespace of its own: from its firmware's first DHCP packet over
//! iPXE's scripts and downloads to the loader's report, the real agent's code with a file as its disk, and the installed
//! system's call home. What it has come to it prints as marks. Touches the network and its disk's file.
#![allow(clippy::print_stdout)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent::boot::cmdline::Invocation;
use agent::boot_files;
use agent::fetch::wait::{Lookout, ToldToWait};
use agent::fetch::{Server, identity_of};
use agent::outbox::{Backlog, EventOutbox};
use agent::steps::EventSink;
use agent::steps::life::{Asking, End, Host, Life, Outcome, runtime};
use anyhow::{Context as _, Result, bail, ensure};
use common::hardware::{Disk, HardwareReport};
use common::id::MachineId;
use common::plan::{Finish, Instruction, Plan};
use common::step::{Step, StepEvent, What};
use common::trust::KeyPair;
use common::wire::objects::{OBJECTS_PORT, Object};
use lab::ipxe::{Ended, Ipxe, World};
use lab::netboot::{self, Asks, Boot, Client};
use tokio_util::sync::CancellationToken;

use super::hardware;
use super::initramfs::Initramfs;
use super::spec::{Mark, Spec};

/// Where a machine listens for peers, as PID 1 does.
const LISTEN: &str = "/ip4/0.0.0.0/tcp/4001";
/// The bytes at a disk's end in which the agent puts what cloud-init reads.
const PERSONAL_BYTES: usize = 8 << 20;
/// The most reports in a row without an answer.
const UNANSWERED_MAX: u32 = 5;
/// How often an installed system tries to call home, and its pause between two tries.
const CALLS: u32 = 60;
const CALL_PAUSE: Duration = Duration::from_secs(3);

/// Runs the machine that `words` describe, in JSON.
///
/// # Errors
/// When it does not come to its system.
pub(crate) fn main(words: &[String]) -> Result<()> {
    let [spec] = words else { bail!("machine SPEC") };
    let spec: Spec = serde_json::from_str(spec)?;
    if let Some(url) = &spec.only_reports_to {
        return only_report(&spec, url);
    }
    mark("power-on", 0, "");
    let boot = firmware(&spec)?;
    let order = loader(&spec, &boot)?;
    mark("agent", 0, &order.plan.job.to_string());
    std::thread::sleep(Duration::from_millis(spec.pause_ms));
    agent(&spec, order)?;
    call_home(&spec)
}

/// Reports once, so that the server knows the machine.
fn only_report(spec: &Spec, url: &str) -> Result<()> {
    let server = Server::new(url, identity_of(url)?.key)?;
    let key = KeyPair::generate().context("no random numbers")?;
    let report = hardware::report(spec, key.public(), &format!("{}/24", spec.address), None)?;
    server.report(&key, &report)?;
    Ok(())
}

fn mark(what: &str, bytes: u64, text: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_ms = u64::try_from(now.as_millis()).unwrap_or_default();
    println!("{}", Mark { at_ms, what: what.to_owned(), bytes, text: text.to_owned() }.line());
}

/// What the firmware hands to the loader.
struct Booted {
    address: Ipv4Addr,
    command_line: String,
    initrds: Vec<Vec<u8>>,
}

/// DHCP and TFTP of the firmware, then iPXE, until it starts a kernel.
fn firmware(spec: &Spec) -> Result<Booted> {
    let efi = spec.platform == "efi";
    let guid = hex(&spec.uuid().replace('-', ""))?;
    // The first three fields of a UUID have their low byte first in option 97.
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map(|at: usize| guid[at]);
    let client = Client { mac: spec.mac(), guid: order, architecture: if efi { 7 } else { 0 } };
    loop {
        let rom = client.boot(Asks::Pxe)?;
        let program = netboot::tftp(rom.server, &rom.file)?;
        mark("got", program.len() as u64, &format!("tftp://{}/{}", rom.server, rom.file));
        let boot = client.boot(Asks::Ipxe)?;
        ensure!(boot.file.starts_with("http://"), "iPXE was told to boot {}", boot.file);
        let mut ipxe = Ipxe::new(&settings(spec, &boot));
        let mut screen = Screen;
        let script = screen.fetch(&boot.file, None)?;
        match ipxe.run(&String::from_utf8_lossy(&script), &mut screen)? {
            Ended::Booted { kernel, others } => {
                return Ok(Booted {
                    address: boot.address,
                    command_line: kernel.arguments,
                    initrds: others.into_iter().map(|image| image.bytes).collect(),
                });
            }
            // A machine without a system on its disk: its firmware begins again.
            Ended::Left => std::thread::sleep(Duration::from_secs(5)),
        }
    }
}

fn settings(spec: &Spec, boot: &Boot) -> Vec<(&'static str, String)> {
    let (vendor, device) = hardware::NIC;
    let [v1, v2, d1, d2] = [vendor.to_be_bytes(), device.to_be_bytes()].concat()[..] else { return vec![] };
    vec![
        ("net0/mac", spec.mac_text()),
        ("net0/ip", boot.address.to_string()),
        ("net0/busid", format!("01:{v1:02x}:{v2:02x}:{d1:02x}:{d2:02x}")),
        ("uuid", spec.uuid()),
        ("serial", spec.serial()),
        ("platform", spec.platform.clone()),
        ("buildarch", "x86_64".to_owned()),
        ("version", spec.version.clone()),
        ("next-server", boot.server.to_string()),
    ]
}

fn hex(text: &str) -> Result<Vec<u8>> {
    let digits = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).map(|at| digits(at).context("no hexadecimal digits")).collect()
}

/// iPXE's screen and network.
struct Screen;

impl World for Screen {
    fn fetch(&mut self, url: &str, timeout_ms: Option<u64>) -> Result<Vec<u8>> {
        let got = netboot::get(url, timeout_ms.map(Duration::from_millis));
        match &got {
            Ok(bytes) => mark("got", bytes.len() as u64, url),
            Err(error) => mark("missed", 0, &format!("{url}: {error:#}")),
        }
        got
    }

    fn sleep(&mut self, seconds: u64) -> Result<()> {
        std::thread::sleep(Duration::from_secs(seconds));
        Ok(())
    }

    fn echo(&mut self, line: &str) {
        println!("{line}");
    }
}

/// What the loader hands to the agent.
struct Order {
    server: Server,
    key: KeyPair,
    report: Arc<dyn Fn() -> HardwareReport + Send + Sync>,
    plan: Box<Plan>,
    /// The archive of its bundle, which it gives out to others; none where its agent came with the loader.
    bundle: Option<Vec<u8>>,
    address: Ipv4Addr,
    backlog: Backlog,
}

/// The loader's part: reports until there is a plan, and fetches the bundle that it names.
fn loader(spec: &Spec, booted: &Booted) -> Result<Order> {
    let invocation = Invocation::parse(&booted.command_line).context("the kernel command line")?;
    let initrd = booted.initrds.first().context("the kernel was started without a loader")?;
    let shared = spec.target.parent().context("a disk without a folder")?;
    let initramfs = Initramfs::read(initrd, shared)?;
    let server = Server::new(&invocation.server, invocation.key)?;
    let key = KeyPair::generate().context("no random numbers")?;
    let outbox = EventOutbox::start_held(server.clone(), key.clone(), Backlog::default());
    let address = format!("{}/24", booted.address);
    outbox.event(Step::Loader, What::Done { text: format!("{address} on enp3s0") }, None);
    for (path, file) in initramfs.lacking(&hardware::devices()) {
        server.driver(file)?;
        mark("got", file.bytes, &path);
    }
    let made = hardware::report(spec, key.public(), &address, initramfs.kit.drivers)?;
    let report: Arc<dyn Fn() -> HardwareReport + Send + Sync> = Arc::new(move || made.clone());
    outbox.event(Step::Inspect, What::Started, None);
    outbox.event(Step::Inspect, What::Done { text: "disks: 1, network interfaces: 1".to_owned() }, None);
    let plan = plan(&server, &key, &*report, &outbox)?;
    let (hash, bytes) = plan.bundle.context("the plan names no bundle")?;
    outbox.event(Step::Agent, What::Started, None);
    let (bundle, text) = if initramfs.kit.agent == Some(hash) {
        (None, format!("came with the loader, {}", hash.short()))
    } else {
        let object = Object { hash, bytes };
        let bundle = server.bundle_near(object, &plan.peers, &mut |_| (), &mut |failed| {
            mark("missed", 0, &failed.to_string());
        })?;
        mark("got", bundle.len() as u64, &format!("bundle {hash}"));
        (Some(bundle), format!("{bytes} bytes, {}", hash.short()))
    };
    outbox.event(Step::Agent, What::Done { text }, None);
    let _ = outbox.flush(Duration::from_secs(5));
    let backlog = outbox.stop();
    Ok(Order { server, key, report, plan, bundle, address: booted.address, backlog })
}

fn plan(
    server: &Server,
    key: &KeyPair,
    report: &dyn Fn() -> HardwareReport,
    outbox: &EventOutbox,
) -> Result<Box<Plan>> {
    let (mut waiting, mut unanswered) = (false, 0);
    loop {
        let verdict = match server.report(key, &report()) {
            Ok((verdict, _)) => verdict,
            // As the loader does: a busy server answers late.
            Err(error) if unanswered < UNANSWERED_MAX => {
                unanswered += 1;
                println!("reporting: {error}");
                std::thread::sleep(Duration::from_secs(1) * 2u32.pow(unanswered));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        unanswered = 0;
        outbox.release();
        let report = verdict.report;
        match verdict.instruction {
            Instruction::Deploy(plan) => return Ok(plan),
            Instruction::BootDisk { reason } => bail!("sent to a disk without a system: {reason}"),
            Instruction::Wait { seconds, reason } => {
                if !waiting {
                    mark("waiting", 0, &reason);
                    waiting = true;
                }
                server.wait(key, ToldToWait { report, seconds }, &mut Unchanged);
            }
        }
    }
}

/// A machine whose hardware stays as it is while it waits.
struct Unchanged;

impl Lookout for Unchanged {
    fn has_changed(&mut self) -> bool {
        false
    }

    fn is_over(&self) -> bool {
        false
    }
}

/// The agent's surroundings, as PID 1 has them.
struct FirstProcess {
    spec: Spec,
}

impl Host for FirstProcess {
    type Error = anyhow::Error;

    const PACE: Duration = Duration::from_secs(10);

    fn say(&self, text: &str) {
        println!("{text}");
    }

    fn show(&self, event: &StepEvent) {
        println!("{}", event.on_console());
        if event.step == Step::Seal && matches!(event.what, What::Done { .. }) {
            mark("sealed", 0, "");
        }
    }

    fn takes(&self, _: MachineId, plan: Plan) -> Plan {
        plan
    }

    fn begins(&self, _: &dyn EventSink) {}

    fn disks(&self) -> Result<Vec<Disk>> {
        hardware::disks(&self.spec)
    }

    fn goes_on_after(&self, _: &Outcome) -> bool {
        false
    }
}

fn agent(spec: &Spec, order: Order) -> Result<()> {
    let Order { server, key, report, plan, bundle, address, backlog } = order;
    let (runtime, cancel) = (runtime()?, CancellationToken::new());
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, OBJECTS_PORT));
    let (boot_files, keeper) = boot_files::open(everywhere, vec![(address, 24)])?;
    if let Some(bundle) = bundle {
        boot_files.put(bundle);
    }
    runtime.spawn(keeper.run(server.clone(), cancel.clone()));
    let life = Life {
        asking: Asking { server, key, report },
        listen: LISTEN.to_owned(),
        boot_files: Some(boot_files),
        cancel,
        host: Arc::new(FirstProcess { spec: spec.clone() }),
    };
    match life.live(&runtime, Some(plan), backlog)? {
        End::Job(Outcome::Done, Finish::Reboot) => {}
        other => bail!("the agent ended otherwise: {other:?}"),
    }
    // The machine restarts: nothing of the agent lives on.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

/// Calls home as the installed system does, at the URL that was left for cloud-init.
fn call_home(spec: &Spec) -> Result<()> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut disk = std::fs::File::open(&spec.target)?;
    disk.seek(SeekFrom::End(-i64::try_from(PERSONAL_BYTES)?))?;
    let mut bytes = vec![];
    disk.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let urls: BTreeSet<&str> = text
        .match_indices("http://")
        .map(|(at, _)| text[at..].split(['"', '\\', '\'', ' ']).next().unwrap_or_default())
        .filter(|url| url.contains("/v1/confirm/"))
        .collect();
    let url = urls.first().context("nothing was left for cloud-init")?;
    for _ in 0..CALLS {
        match post(url) {
            Ok(()) => {
                mark("home", 0, url);
                return Ok(());
            }
            Err(error) => println!("calling home: {error:#}"),
        }
        std::thread::sleep(CALL_PAUSE);
    }
    bail!("{url} never answered")
}

fn post(url: &str) -> Result<()> {
    use std::io::{Read as _, Write as _};
    let rest = url.strip_prefix("http://").context("no URL")?;
    let (host, path) = rest.split_once('/').context("no path")?;
    let address: SocketAddr = host.parse()?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let body = "hostname=lab&instance_id=lab";
    let head = format!(
        "POST /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "{status}");
    Ok(())
}
