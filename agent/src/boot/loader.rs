//! The loader's main loop: drivers, network, report, verdict, and then the agent, the machine's own disk, or another
//! report. It never ends: a failure is shown on the console with what is tried next, reported to the server where that
//! is possible, and tried again after a back-off. Touches everything in `boot`.

// Why a try ended.
mod error;

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use common::causes::with_causes;
use common::hardware::HardwareReport;
use common::id::MachineId;
use common::modules::INIT;
use common::plan::{Instruction, Plan, Verdict};
use common::step::{Step, What};
use common::trust::{KeyPair, Signed};
use common::wire::objects::Object;

use crate::boot::bundle;
use crate::boot::cmdline::Invocation;
use crate::boot::console::Console;
use crate::boot::drivers::{Drivers, DriversError};
use crate::boot::handover::{self, DIR, Handover, PID1_ARGUMENT};
use crate::boot::init;
use crate::boot::memory::{SHORT_OF_MEMORY, memory_is_plenty, memory_is_short};
use crate::boot::network::{self, Attachment, LeaseKeeper};
use crate::boot::watchdog::Watchdog;
use crate::fetch::again::Again;
use crate::fetch::wait::{Lookout, ToldToWait};
use crate::fetch::{Failed, FetchError, Server};
use crate::inspect::{self, Reporter};
use crate::outbox::{Backlog, EventOutbox};
use error::{LoaderError, PAUSE, PAUSE_MAX};

/// The directory into which the agent's bundle is unpacked.
const BUNDLE_DIR: &str = "/bundle";

/// The kernel's parameter that names the first directory in which it looks for firmware.
const FIRMWARE_PATH: &str = "/sys/module/firmware_class/parameters/path";

/// Reports in a row without an answer after which the network is set up anew: another interface may reach the server.
const UNANSWERED_MAX: u32 = 6;

/// How long a restart or the hand-over waits for the server to take the last events.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Drivers count as loaded when no new device has appeared for this long; USB hubs and SCSI hosts find their devices
/// one after the other.
const QUIET: Duration = Duration::from_millis(700);

/// The longest wait for devices to appear; a RAID controller takes up to half a minute.
const DEVICES: Duration = Duration::from_secs(40);

/// The bits of entropy that the kernel gathers before it gives out random numbers.
const RANDOM_BITS: u32 = 256;

/// Bytes of the bundle between two progress events.
const PROGRESS_BYTES: u64 = 1 << 20;

/// The console's text while the kernel has no random numbers.
const NO_RANDOM: &str = "waiting for the kernel to gather random numbers, which can take many minutes: this processor makes none; \
     give a virtual machine a virtio-rng device, or a processor model with RDRAND";

/// The loader's state, which is kept over all tries of one boot.
struct Loader {
    console: Console,
    pair: Option<KeyPair>,
    drivers: Option<Drivers>,
    /// Runs in a small loader until the server has answered a report.
    watchdog: Option<Watchdog>,
    /// Events that were not delivered when the last try ended.
    backlog: Backlog,
    /// The running step, under which a failure is reported.
    doing: Step,
    /// Whether the server knows our key by a report, so that it accepts our events.
    introduced: bool,
}

/// Runs as PID 1, for ever.
pub fn run() -> ! {
    let unmounted = init::mount_all();
    let console = Console::open();
    console.show_panics();
    console.say(concat!("loader ", env!("CARGO_PKG_VERSION")));
    for error in &unmounted {
        console.failed("setting up", error, "going on without it");
    }
    let mut loader = Loader {
        console: console.clone(),
        pair: None,
        drivers: None,
        watchdog: None,
        backlog: Backlog::default(),
        doing: Step::Loader,
        introduced: false,
    };
    let mut pause = PAUSE;
    loop {
        // A panic has been shown by the panic hook; a new try makes anew what it may have left half done.
        match catch_unwind(AssertUnwindSafe(|| loader.one_try())) {
            Ok(Ok(never)) => match never {},
            Ok(Err(error)) => {
                pause = pause.min(error.pause_max());
                let next = format!("({}) trying again in {} s", error.hint(), pause.as_secs());
                console.failed("booting", &error, &next);
            }
            Err(_) => console.say(&format!("trying again in {} s", pause.as_secs())),
        }
        init::reap();
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

impl Loader {
    fn one_try(&mut self) -> Result<Infallible, LoaderError> {
        let line = fs::read_to_string("/proc/cmdline").map_err(LoaderError::Cmdline)?;
        let invocation = Invocation::parse(&line)?;
        let server = Server::new(&invocation.server, invocation.key)?;
        self.say_memory();
        self.load_drivers();
        let pair = match &self.pair {
            Some(pair) => pair.clone(),
            None => self.new_key()?,
        };
        let backlog = std::mem::take(&mut self.backlog);
        let outbox = if self.introduced {
            EventOutbox::start(server.clone(), pair.clone(), None, backlog)
        } else {
            EventOutbox::start_held(server.clone(), pair.clone(), backlog)
        };
        self.doing = Step::Loader;
        outbox.event(Step::Loader, What::Started, None);
        let Err(error) = self.with_network(&invocation, &server, &pair, &outbox);
        let cause = with_causes(&error);
        outbox.event(self.doing.clone(), What::Failed { cause, last: false }, None);
        if self.introduced {
            let _ = outbox.flush(LAST_WORDS);
        }
        self.backlog = outbox.stop();
        Err(error)
    }

    /// Makes the boot key. The kernel blocks until it has gathered entropy, which takes a machine whose processor has
    /// no source of its own seconds to many minutes; a person should know what it waits for.
    fn new_key(&mut self) -> Result<KeyPair, LoaderError> {
        let gathered: u32 = fs::read_to_string("/proc/sys/kernel/random/entropy_avail")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(RANDOM_BITS);
        if gathered < RANDOM_BITS {
            self.console.say(NO_RANDOM);
        }
        let pair = KeyPair::generate().map_err(LoaderError::Key)?;
        Ok(self.pair.insert(pair).clone())
    }

    /// Warns where memory is short: many things then fail, and none of the errors names the cause.
    fn say_memory(&self) {
        if memory_is_short() {
            self.console.say(SHORT_OF_MEMORY);
        }
    }

    /// Loads drivers for the machine's devices; without modules, those built into the kernel have to do.
    fn load_drivers(&mut self) {
        if self.drivers.is_none() {
            match Drivers::open(Path::new("/")) {
                Ok(drivers) => {
                    if drivers.agent().is_some() {
                        self.watchdog = Watchdog::start(self.console.clone());
                    }
                    self.drivers = Some(drivers);
                }
                Err(error) => return self.no_drivers(&error),
            }
        }
        let Some(drivers) = &mut self.drivers else { return };
        let running = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        if running.trim() != drivers.kernel() {
            self.console.say(&format!(
                "this kernel is {}, but the loader's modules are for {}: kernel and loader are of different boot kits",
                running.trim(),
                drivers.kernel()
            ));
        }
        // Without a server nothing is fetched, which is all that can fail.
        let _ = drivers.settle(QUIET, DEVICES, None);
        if let Err(error) = init::mount_firmware_variables() {
            self.console.failed("setting up", &error, "Secure Boot will look switched off");
        }
        self.console.say(&format!("{} kernel modules loaded", drivers.loaded()));
        for failed in drivers.take_failed() {
            self.console.say(&format!("kernel module {failed}"));
        }
    }

    /// Fetches and loads the drivers that a small loader lacks: the report is to list every NIC and disk.
    fn fetch_drivers(&mut self, server: &Server) -> Result<(), FetchError> {
        let Some(drivers) = self.drivers.as_mut().filter(|drivers| drivers.agent().is_some()) else {
            return Ok(());
        };
        let before = drivers.loaded();
        let fetched = drivers.settle(QUIET, DEVICES, Some(server));
        self.console.say(&format!("{} more kernel modules loaded", drivers.loaded() - before));
        for failed in drivers.take_failed() {
            self.console.say(&format!("kernel module {failed}"));
        }
        fetched
    }

    fn no_drivers(&self, error: &DriversError) {
        self.console.failed("loading drivers", error, "going on with those of the kernel itself");
    }

    fn with_network(
        &mut self,
        invocation: &Invocation,
        server: &Server,
        pair: &KeyPair,
        outbox: &EventOutbox,
    ) -> Result<Infallible, LoaderError> {
        let attachment = network::attach(&self.console, invocation.mac, |_| match server.identity() {
            Ok(_) => true,
            Err(error) => {
                self.console.say(&with_causes(&error));
                false
            }
        })?;
        outbox.event(Step::Loader, What::Done { text: on(&attachment) }, None);
        let keeper =
            LeaseKeeper::start(attachment.clone(), self.console.clone()).map_err(LoaderError::Lease)?;
        self.fetch_drivers(server)?;
        let (machine, plan, verdict, asked_ms) =
            self.report(invocation, server, pair, outbox, &attachment)?;
        self.console.say(&format!(
            "this is machine {machine}: {} of {} writes image {}",
            plan.job,
            plan.deployment,
            plan.image.0.short()
        ));
        self.doing = Step::Agent;
        let Some((hash, bytes)) = plan.bundle else { return Err(LoaderError::NoBundle) };
        outbox.event(Step::Agent, What::Started, None);
        let (agent, text) = if self.drivers.as_ref().and_then(Drivers::agent) == Some(hash) {
            (Path::new("/").join(INIT), format!("came with the loader, {}", hash.short()))
        } else {
            let object = Object { hash, bytes };
            let archive = self.fetch_bundle(server, outbox, object, &plan.peers)?;
            let agent = bundle::unpack(&archive, Path::new(BUNDLE_DIR))?;
            if memory_is_plenty() {
                handover::leave_bundle(&archive);
            }
            drop(archive);
            self.use_bundle();
            (agent, format!("{} bytes, {}", bytes, hash.short()))
        };
        outbox.event(Step::Agent, What::Done { text }, None);
        let _ = outbox.flush(LAST_WORDS);
        let handover = Handover {
            server_url: server.urls(),
            server_key: server.key(),
            machine_key: pair.clone(),
            verdict,
            asked_ms,
            backlog: outbox.stop(),
            attachment: keeper.stop().unwrap_or(attachment),
        };
        handover::leave(Path::new(DIR), &handover)?;
        self.start_agent(&agent)
    }

    /// Reports to the server and follows its instructions, until there is a plan.
    fn report(
        &mut self,
        invocation: &Invocation,
        server: &Server,
        pair: &KeyPair,
        outbox: &EventOutbox,
        attachment: &Attachment,
    ) -> Result<(MachineId, Plan, Signed<Verdict>, u64), LoaderError> {
        let reporter = Reporter {
            key: pair.public(),
            booted: true,
            boot_mac: invocation.mac.or(Some(attachment.mac)),
            address: Some((attachment.interface.clone(), address_of(attachment))),
            name: None,
            site: None,
        };
        self.doing = Step::Inspect;
        let mut again = Again::new(PAUSE, PAUSE_MAX, &pair.public());
        let (mut said, mut inspected) = (String::new(), false);
        loop {
            init::reap();
            if !inspected {
                outbox.event(Step::Inspect, What::Started, None);
            }
            let report = inspect::report(Path::new("/"), &reporter);
            let text = format!("disks: {}, network interfaces: {}", report.disks.len(), report.nics.len());
            if !inspected {
                self.console.say(&text);
                outbox.event(Step::Inspect, What::Done { text }, None);
                inspected = true;
            }
            let asked_ms = init::uptime_ms();
            let (verdict, signed) = match server.report(pair, &report) {
                Ok(answer) => answer,
                Err(error) => {
                    let pause = again.failed(error.is_unsent());
                    if again.failures() == UNANSWERED_MAX {
                        return Err(error.into());
                    }
                    let next = format!("({}) trying again in {} s", error.hint(), pause.as_secs());
                    self.console.failed("reporting to the server", &error, &next);
                    std::thread::sleep(pause);
                    continue;
                }
            };
            again.answered();
            self.has_reported(outbox);
            match verdict.instruction {
                Instruction::Deploy(plan) => return Ok((verdict.machine, *plan, signed, asked_ms)),
                Instruction::BootDisk { reason } => {
                    self.console.say(&format!(
                        "this is machine {}: nothing to do ({reason}); restarting into its own disk",
                        verdict.machine
                    ));
                    let _ = outbox.flush(LAST_WORDS);
                    init::reboot(&self.console);
                }
                Instruction::Wait { seconds, reason } => {
                    let now = format!("this is machine {}: waiting ({reason})", verdict.machine);
                    if now != said {
                        self.console.say(&now);
                        said = now;
                    }
                    let told = ToldToWait { report: verdict.report, seconds };
                    server.wait(pair, told, &mut Hardware { reported: report, reporter: &reporter });
                }
            }
        }
    }

    /// The server knows this machine's key from now on, and the small loader has done its work.
    fn has_reported(&mut self, outbox: &EventOutbox) {
        self.introduced = true;
        self.watchdog = None;
        outbox.release();
    }

    fn fetch_bundle(
        &self,
        server: &Server,
        outbox: &EventOutbox,
        object: Object,
        peers: &[SocketAddr],
    ) -> Result<Vec<u8>, FetchError> {
        let total = object.bytes;
        self.console.say(&format!("fetching the agent, {} KiB", total.div_ceil(1024)));
        let mut told = 0;
        let mut progress = |done| {
            if done >= told + PROGRESS_BYTES {
                told = done;
                outbox.event(Step::Agent, What::Progress { done, total }, None);
            }
        };
        let mut failed = |failed: &Failed| {
            self.console.say(&failed.to_string());
            outbox.event(Step::Agent, What::Note { text: failed.to_string() }, None);
        };
        server.bundle_near(object, peers, &mut progress, &mut failed)
    }

    /// Lets the kernel find the bundle's firmware, and loads modules that the bundle adds to the loader's.
    fn use_bundle(&self) {
        let firmware = Path::new(BUNDLE_DIR).join("lib/firmware");
        if firmware.is_dir()
            && let Err(error) = fs::write(FIRMWARE_PATH, firmware.as_os_str().as_bytes())
        {
            self.console.failed("naming the firmware to the kernel", &error, "going on without it");
        }
        match Drivers::open(Path::new(BUNDLE_DIR)) {
            // The loader's own drivers are all that this machine needs.
            Ok(drivers) if drivers.is_empty() => {}
            Ok(mut drivers) => {
                drivers.settle_added(QUIET, DEVICES);
                for failed in drivers.take_failed() {
                    self.console.say(&format!("kernel module {failed}"));
                }
            }
            Err(error) => self.console.failed("loading the agent's drivers", &error, "going on"),
        }
    }

    /// Becomes the agent by `execve`. The loader's modules and unused firmware are deleted first, to free memory.
    fn start_agent(&mut self, agent: &Path) -> Result<Infallible, LoaderError> {
        let name = CString::new(agent.as_os_str().as_bytes())
            .map_err(|_| LoaderError::Start(std::io::ErrorKind::InvalidInput.into()))?;
        let argument = CString::new(PID1_ARGUMENT)
            .map_err(|_| LoaderError::Start(std::io::ErrorKind::InvalidInput.into()))?;
        if let Some(drivers) = &self.drivers {
            drivers.forget();
        }
        self.console.say("starting the agent");
        let no_environment: [CString; 0] = [];
        match nix::unistd::execve(&name, &[name.clone(), argument], &no_environment) {
            Ok(never) => match never {},
            Err(errno) => Err(LoaderError::Start(errno.into())),
        }
    }
}

/// The hardware as it was reported, to be compared with what is there.
struct Hardware<'a> {
    reported: HardwareReport,
    reporter: &'a Reporter,
}

impl Lookout for Hardware<'_> {
    fn has_changed(&mut self) -> bool {
        init::reap();
        inspect::report(Path::new("/"), self.reporter) != self.reported
    }

    /// PID 1 waits for ever.
    fn is_over(&self) -> bool {
        false
    }
}

fn address_of(attachment: &Attachment) -> String {
    format!("{}/{}", attachment.lease.address, attachment.lease.prefix)
}

fn on(attachment: &Attachment) -> String {
    format!("{} on {}", address_of(attachment), attachment.interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_can_do_is_one_sentence() {
        assert!(NO_RANDOM.contains("virtio-rng") && !NO_RANDOM.contains("  "), "{NO_RANDOM}");
    }
}
