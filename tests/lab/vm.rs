//! Owns the virtual machines: QEMU processes, emulated, because KVM may not be available. A machine is described by a
//! [`Spec`] like hardware, runs once it is powered on, and is observed through its serial console. Touches QEMU, its
//! monitor socket, and the files of the folder it was given.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::capture;
pub use crate::firmware::Firmware;
use crate::net::{Net, Segment};
use crate::process::{self, Beside};
use crate::uefi::{self, Card};
use crate::wait;

/// The path of UEFI firmware on Debian and Ubuntu.
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// The same with System Management Mode, which keeps Secure Boot's variables; and variables with Microsoft's keys.
const OVMF_CODE_SECURE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const OVMF_VARIABLES_SECURE: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";
/// The PCI slot of the first network card. Fixed, because a UEFI boot option names it; high, so that it is free.
const FIRST_SLOT: u8 = 16;
/// The timeout of the monitor: it answers at once, but not while a large request holds QEMU's lock.
const MONITOR_LIMIT: Duration = Duration::from_secs(30);

/// The bus of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk.
    Virtio,
    /// AHCI.
    Sata,
    /// NVM Express.
    Nvme,
    /// virtio-scsi.
    Scsi,
}

/// One disk. Its serial number can be named in a disk rule.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The bus that it is on.
    pub bus: Bus,
    /// The path of the raw file.
    pub path: PathBuf,
    /// Its serial number.
    pub serial: String,
}

/// A network card's model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// virtio-net.
    Virtio,
    /// Intel 82540.
    E1000,
    /// Intel 82574.
    E1000e,
}

/// One network card and the segment that it is connected to.
#[derive(Debug, Clone)]
pub struct Nic {
    /// The model that QEMU emulates.
    pub model: Model,
    /// Its Ethernet address, as text.
    pub mac: String,
    /// The segment that it is connected to.
    pub segment: Segment,
}

/// A machine's hardware.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Our name for it; the prefix of its files.
    pub name: String,
    /// Its firmware.
    pub firmware: Firmware,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// How many processors it has.
    pub processors: u32,
    /// Its disks, in boot order.
    pub disks: Vec<Disk>,
    /// Its network cards, in boot order.
    pub nics: Vec<Nic>,
    /// Its SMBIOS UUID.
    pub uuid: String,
    /// Its SMBIOS serial number.
    pub serial: String,
}

impl Spec {
    /// Machine number `number`: one NIC on `segment`, 1 GiB, no disk yet. Name, Ethernet address, UUID and serial
    /// number follow from the number, so that it is the same machine in every run.
    #[must_use]
    pub fn new(number: u8, firmware: Firmware, segment: Segment) -> Self {
        let mac = format!("52:54:00:5b:00:{number:02x}");
        Self {
            name: format!("vm{number}"),
            firmware,
            memory_mib: 1024,
            processors: 1,
            disks: vec![],
            nics: vec![Nic { model: Model::Virtio, mac, segment }],
            uuid: format!("5b000000-0000-4000-8000-0000000000{number:02x}"),
            serial: format!("LAB-{number:04}"),
        }
    }

    /// Adds a disk, with a serial number made of its place.
    #[must_use]
    pub fn disk(mut self, bus: Bus, path: &Path) -> Self {
        let serial = format!("DISK-{}-{}", self.name, self.disks.len());
        self.disks.push(Disk { bus, path: path.to_owned(), serial });
        self
    }

    /// Makes all its network cards of this model.
    #[must_use]
    pub fn model(mut self, model: Model) -> Self {
        for nic in &mut self.nics {
            nic.model = model;
        }
        self
    }

    /// Adds a network card, on `segment`.
    #[must_use]
    pub fn nic(mut self, model: Model, segment: Segment) -> Self {
        let first = self.nics.first().map_or("52:54:00:5b:00:00", |nic| nic.mac.as_str());
        let mac = format!("{}{:02x}{}", &first[..12], self.nics.len(), &first[14..]);
        self.nics.push(Nic { model, mac, segment });
        self
    }

    /// Connects the machine to `net` and powers it on. Its files go to `folder`; a machine of the same name there is
    /// the same machine: it keeps its UEFI variables, and its console continues in the same file.
    ///
    /// # Errors
    /// When QEMU, its firmware or a disk does not exist.
    pub fn power_on(&self, net: &Net, folder: &Path) -> Result<Vm> {
        let file = |suffix: &str| folder.join(format!("{}.{suffix}", self.name));
        let console = file("console");
        let monitor = file("monitor");
        let _ = std::fs::remove_file(&monitor);
        // QEMU truncates the file of the console, so its earlier text is kept in another one.
        let before = std::fs::read(&console).unwrap_or_default();
        std::fs::write(file("console.old"), before).context("cannot keep the old console")?;

        let taps = self.nics.iter().map(|nic| net.tap(nic.segment)).collect::<Result<Vec<_>>>()?;
        let mut command = net.command("nice");
        command.args(["-n", "5", "qemu-system-x86_64"]);
        command.args(self.board(folder)?);
        command.args(self.cards(&taps));
        command.args(self.drives()?);
        let dumps: Vec<PathBuf> = match capture::folder() {
            Some(_) => taps.iter().map(|tap| file(&format!("{tap}.pcap"))).collect(),
            None => vec![],
        };
        for (number, dump) in dumps.iter().enumerate() {
            let object = format!("filter-dump,id=dump{number},netdev=net{number},file={}", dump.display());
            command.args(["-object", &object]);
        }
        command.arg("-serial").arg(format!("file:{}", console.display()));
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", monitor.display()));
        let qemu = Beside::start(&self.name, &mut command, &file("qemu.log"))?;
        Ok(Vm { name: self.name.clone(), qemu, console, monitor, taps, dumps, mark: 0 })
    }

    /// QEMU's arguments for everything but disks and network cards.
    fn board(&self, folder: &Path) -> Result<Vec<String>> {
        let mut words: Vec<String> = [
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            // A guest that asks for random numbers must not wait for the jitter of an emulated clock.
            "-device",
            "virtio-rng-pci",
        ]
        .map(str::to_owned)
        .into();
        let pairs = [
            ("-name", self.name.clone()),
            ("-m", self.memory_mib.to_string()),
            ("-smp", self.processors.to_string()),
            ("-uuid", self.uuid.clone()),
            ("-smbios", format!("type=1,manufacturer=swarmboot,product=lab,serial={}", self.serial)),
        ];
        words.extend(pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        words.extend(match self.firmware {
            // graphics=off makes SeaBIOS and iPXE write to the serial line.
            Firmware::Bios => vec!["-machine".to_owned(), "pc,graphics=off".to_owned()],
            Firmware::Uefi | Firmware::UefiHttp | Firmware::UefiSecure => self.uefi(folder)?,
        });
        Ok(words)
    }

    /// QEMU's arguments for UEFI firmware, with a file of variables for this machine.
    fn uefi(&self, folder: &Path) -> Result<Vec<String>> {
        let variables = folder.join(format!("{}.variables", self.name));
        let secure = self.firmware == Firmware::UefiSecure;
        if secure && !variables.exists() {
            std::fs::copy(OVMF_VARIABLES_SECURE, &variables)
                .with_context(|| format!("no {OVMF_VARIABLES_SECURE}; hint: run tests/setup"))?;
        }
        if !variables.exists() {
            let cards: Vec<Card> = (FIRST_SLOT..)
                .zip(&self.nics)
                .map(|(slot, nic)| Card { slot, mac: nic.mac.clone() })
                .collect();
            uefi::write_variables(&variables, self.firmware, &cards)?;
        }
        let (machine, code) = if secure { ("q35,smm=on", OVMF_CODE_SECURE) } else { ("q35", OVMF_CODE) };
        let mut words = vec!["-machine".to_owned(), machine.to_owned()];
        if secure {
            words.extend(["-global".to_owned(), "driver=cfi.pflash01,property=secure,value=on".to_owned()]);
        }
        for drive in [
            format!("if=pflash,format=raw,readonly=on,file={code}"),
            format!("if=pflash,format=raw,file={}", variables.display()),
        ] {
            words.extend(["-drive".to_owned(), drive]);
        }
        Ok(words)
    }

    /// QEMU's arguments for the network cards, which come first in the boot order.
    fn cards(&self, taps: &[String]) -> Vec<String> {
        let mut words = vec![];
        for ((number, slot), (nic, tap)) in (0..).zip(FIRST_SLOT..).zip(self.nics.iter().zip(taps)) {
            let model = match nic.model {
                Model::Virtio => "virtio-net-pci",
                Model::E1000 => "e1000",
                Model::E1000e => "e1000e",
            };
            // Without a ROM under UEFI, so that the firmware's own PXE and HTTP clients boot, by its variables.
            let order = match self.firmware {
                Firmware::Bios => format!("bootindex={}", number + 1),
                Firmware::Uefi | Firmware::UefiHttp | Firmware::UefiSecure => "romfile=".to_owned(),
            };
            words.extend([
                "-netdev".to_owned(),
                format!("tap,id=net{number},ifname={tap},script=no,downscript=no"),
                "-device".to_owned(),
                format!("{model},netdev=net{number},addr={slot:#x},mac={},{order}", nic.mac),
            ]);
        }
        words
    }

    /// QEMU's arguments for the disks, behind the network cards in the boot order: "boot your disk" goes on to them.
    fn drives(&self) -> Result<Vec<String>> {
        let mut words = vec![];
        let device = |words: &mut Vec<String>, text: String| words.extend(["-device".to_owned(), text]);
        if self.disks.iter().any(|disk| disk.bus == Bus::Sata) {
            device(&mut words, "ich9-ahci,id=sata".to_owned());
        }
        if self.disks.iter().any(|disk| disk.bus == Bus::Scsi) {
            device(&mut words, "virtio-scsi-pci,id=scsi".to_owned());
        }
        for (number, disk) in self.disks.iter().enumerate() {
            if !disk.path.exists() {
                bail!("{} has no disk {}", self.name, disk.path.display());
            }
            // unsafe: a guest's flush need not reach the host's disk, because the host outlives the guest here.
            let path = disk.path.display();
            let backend =
                format!("if=none,id=disk{number},format=raw,cache=unsafe,discard=unmap,file={path}");
            words.extend(["-drive".to_owned(), backend]);
            let ahci_port = self.disks[..number].iter().filter(|other| other.bus == Bus::Sata).count();
            let model = match disk.bus {
                Bus::Virtio => "virtio-blk-pci".to_owned(),
                Bus::Sata => format!("ide-hd,bus=sata.{ahci_port}"),
                Bus::Nvme => "nvme".to_owned(),
                Bus::Scsi => "scsi-hd,bus=scsi.0".to_owned(),
            };
            let order = match self.firmware {
                Firmware::Bios => format!(",bootindex={}", self.nics.len() + number + 1),
                Firmware::Uefi | Firmware::UefiHttp | Firmware::UefiSecure => String::new(),
            };
            let rest = format!("drive=disk{number},serial={}{order}", disk.serial);
            device(&mut words, format!("{model},{rest}"));
        }
        Ok(words)
    }
}

/// A machine that is powered on. Dropping it cuts its power.
#[derive(Debug)]
pub struct Vm {
    name: String,
    qemu: Beside,
    console: PathBuf,
    monitor: PathBuf,
    taps: Vec<String>,
    /// The packet dumps of its network cards; empty where none are wanted.
    dumps: Vec<PathBuf>,
    mark: usize,
}

impl Drop for Vm {
    #[allow(clippy::print_stderr)] // Nobody else could be told; the flow itself is not hurt.
    fn drop(&mut self) {
        let Some(folder) = capture::folder() else { return };
        for dump in &self.dumps {
            if let Err(error) = capture::keep(dump, &folder) {
                eprintln!("{}: its requests were not kept: {error:#}", self.name);
            }
        }
    }
}

impl Vm {
    /// Our name for it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The taps that its network cards are connected to, in order.
    #[must_use]
    pub fn taps(&self) -> &[String] {
        &self.taps
    }

    /// The whole text of its serial console since it was powered on.
    #[must_use]
    pub fn console(&self) -> String {
        std::fs::read(&self.console)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Whether its console has shown `text` at any time.
    #[must_use]
    pub fn has_shown(&self, text: &str) -> bool {
        self.console().contains(text)
    }

    /// Waits until its console shows `text` after the end of the last such wait; the line with it.
    ///
    /// # Errors
    /// At the timeout, or when the machine is off; the error has the end of the console.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String> {
        let what = format!("{text:?} on the console of {}", self.name);
        let (console, mark) = (self.console.clone(), self.mark);
        let qemu = &mut self.qemu;
        let found = wait::until(&what, limit, || {
            let bytes = std::fs::read(&console).unwrap_or_default();
            let new = String::from_utf8_lossy(bytes.get(mark..).unwrap_or_default()).into_owned();
            if let Some(at) = new.find(text) {
                return Ok(Some((new, at)));
            }
            qemu.check_running().map(|()| None)
        });
        let (new, at) =
            found.map_err(|error| anyhow!("{error:#}; it ends:\n{}", process::tail(&self.console(), 20)))?;
        // Bytes that are not UTF-8 have become longer, so the mark may be a little too early or late; the texts of
        // firmware and login prompts are ASCII.
        self.mark = mark + at + text.len();
        let begin = new[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = new[at..].find('\n').map_or(new.len(), |newline| at + newline);
        Ok(new[begin..end].trim_end().to_owned())
    }

    /// Resets it, like its reset button.
    ///
    /// # Errors
    /// When the machine is off.
    pub fn reset(&self) -> Result<()> {
        self.ask("system_reset").map(drop)
    }

    /// Sends one command to the monitor (QMP: one JSON object a line, a greeting first) and returns its answer.
    fn ask(&self, command: &str) -> Result<Value> {
        let stream =
            wait::until("the monitor", MONITOR_LIMIT, || Ok(UnixStream::connect(&self.monitor).ok()))
                .with_context(|| format!("{} has no monitor", self.name))?;
        stream.set_read_timeout(Some(MONITOR_LIMIT))?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let mut stream = stream;
        lines.next().context("the monitor does not greet")??;
        for execute in ["qmp_capabilities", command] {
            writeln!(stream, "{}", json!({ "execute": execute }))?;
            loop {
                let line = lines.next().context("the monitor hung up")??;
                let mut answer: Value = serde_json::from_str(&line)?;
                if let Some(error) = answer.get("error") {
                    bail!("{} refuses {execute}: {error}", self.name);
                }
                // Events may come before the answer.
                if answer.get("return").is_some() {
                    if execute == command {
                        return Ok(answer["return"].take());
                    }
                    break;
                }
            }
        }
        bail!("{} gave no answer to {command}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_cards_come_before_disks() {
        let folder = tempfile::tempdir().unwrap();
        let path = crate::disk::blank(&folder.path().join("disk"), 1 << 20).unwrap();
        let (net, segment) = match Net::with_segment() {
            Ok(made) => made,
            Err(_) if !nix::unistd::geteuid().is_root() => return,
            Err(error) => panic!("{error:#}"),
        };
        drop(net);
        let spec = Spec::new(1, Firmware::Bios, segment).nic(Model::E1000, segment).disk(Bus::Sata, &path);
        assert_eq!(spec.nics[1].mac, "52:54:00:5b:01:01");
        assert!(spec.cards(&["tap0".into(), "tap1".into()])[7].contains("bootindex=2"));
        assert!(spec.drives().unwrap().last().unwrap().contains("bus=sata.0,drive=disk0"));
        assert!(spec.drives().unwrap().last().unwrap().contains("bootindex=3"));
    }
}
