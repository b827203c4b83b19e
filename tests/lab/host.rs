//! Owns a virtual machine that is the server's host: a clean Debian with systemd and nothing of swarmboot, to which an
//! admin logs in over SSH. Touches its disks in the folder it was given, and SSH in the rack's namespace.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::images;
use crate::net::{Net, Segment};
use crate::vm::{Bus, Firmware, Spec, Vm};
use crate::{disk, process, wait};

/// The timeout from power-on until SSH answers, emulated.
const UP_LIMIT: Duration = Duration::from_secs(300);
/// The last byte of its address; the rack's own bridge has 1.
const LAST: u8 = 2;
/// The room for state and images.
const DISK_BYTES: u64 = 8 << 30;
/// The number in its Ethernet address and UUID: above those of the machines of a rack.
const NUMBER: u8 = 0xf0;

/// The host, which runs until it is dropped.
#[derive(Debug)]
pub struct Host<'n> {
    net: &'n Net,
    address: String,
    key: PathBuf,
    /// The machine itself, with its console.
    pub vm: Vm,
}

/// The result of a command of the admin there.
#[derive(Debug, Clone)]
pub struct Said {
    /// The exit code.
    pub code: i32,
    /// Both outputs.
    pub text: String,
}

impl<'n> Host<'n> {
    /// Boots a host on `segment` whose admin finds `files` in `/srv`, each under the name that is given.
    ///
    /// # Errors
    /// When the images cannot be built, or it does not answer at the timeout.
    pub fn start(net: &'n Net, segment: Segment, folder: &Path, files: &[(&Path, &str)]) -> Result<Self> {
        let address = segment.address(LAST);
        let key = folder.join("admin");
        let words = ["-q", "-t", "ed25519", "-N", "", "-f"].map(std::ffi::OsStr::new);
        process::output("ssh-keygen", words.into_iter().chain([key.as_os_str()]))?;
        let root = disk::holding(&folder.join("host.root"), &images::debian()?.a, DISK_BYTES)?;
        let seed = seed(folder, &address, &std::fs::read_to_string(key.with_extension("pub"))?)?;
        let files = files_of_admin(folder, files)?;
        let mut spec = Spec::new(NUMBER, Firmware::Bios, segment)
            .disk(Bus::Virtio, &root)
            .disk(Bus::Virtio, &seed)
            .disk(Bus::Virtio, &files);
        (spec.name, spec.memory_mib, spec.processors) = ("host".to_owned(), 2048, 2);
        let host = Self { net, address, key, vm: spec.power_on(net, folder)? };
        let mut last = String::new();
        let up = wait::until("SSH on the server's host", UP_LIMIT, || {
            wait::pause(Duration::from_secs(2))?;
            let said = host.ask("mkdir -p /srv && mount /dev/vdc /srv")?;
            last = said.text;
            Ok((said.code == 0).then_some(()))
        });
        up.with_context(|| format!("{last}\n{}", process::tail(&host.vm.console(), 30)))?;
        Ok(host)
    }

    /// Runs a command there as root in `/srv`, without a terminal; its result even if it fails.
    ///
    /// # Errors
    /// When SSH cannot be run.
    pub fn ask(&self, command: &str) -> Result<Said> {
        self.said(command, None)
    }

    /// Runs a command there that has to succeed, and returns what it said.
    ///
    /// # Errors
    /// When it does not.
    pub fn run(&self, command: &str) -> Result<String> {
        succeeded(command, self.ask(command)?)
    }

    /// Runs a command there at a terminal, at which `answer` is typed.
    ///
    /// # Errors
    /// When it does not succeed.
    pub fn run_answering(&self, command: &str, answer: &str) -> Result<String> {
        succeeded(command, self.said(command, Some(answer))?)
    }

    fn said(&self, command: &str, answer: Option<&str>) -> Result<Said> {
        let mut ssh: Command = self.net.command("ssh");
        ssh.arg("-i").arg(&self.key).args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]);
        // Its key is made at its first boot, and nobody but the rack is on this network.
        ssh.args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
        ]);
        if answer.is_some() {
            ssh.arg("-tt");
        }
        ssh.arg(format!("root@{}", self.address)).arg(format!("cd /srv 2>/dev/null; {{ {command}; }} 2>&1"));
        let input = if answer.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = ssh.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let (Some(answer), Some(mut input)) = (answer, child.stdin.take()) {
            writeln!(input, "{answer}")?;
        }
        let result = child.wait_with_output().context("cannot wait for ssh")?;
        let mut text = String::from_utf8_lossy(&result.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&result.stderr));
        Ok(Said { code: result.status.code().unwrap_or(-1), text })
    }
}

fn succeeded(command: &str, said: Said) -> Result<String> {
    if said.code != 0 {
        bail!("`{command}` on the server's host gave {}: {}", said.code, said.text);
    }
    Ok(said.text)
}

/// A file system with what cloud-init asks for: a name, the admin's key, and a fixed address.
fn seed(folder: &Path, address: &str, key: &str) -> Result<PathBuf> {
    let network = format!("[Match]\\nType=ether\\n[Network]\\nAddress={address}/24\\n");
    let user_data = format!(
        "#cloud-config\nhostname: seed\nssh_authorized_keys: ['{}']\nruncmd:\n  - \"printf '{network}' > \
         /etc/systemd/network/10-rack.network && systemctl restart systemd-networkd\"\n",
        key.trim()
    );
    let path = disk::blank(&folder.join("host.seed"), 2 << 20)?;
    process::output("mkfs.vfat", ["-n", "CIDATA", &path.display().to_string()])?;
    for (name, text) in [("user-data", user_data.as_str()), ("meta-data", "instance-id: seed-1\n")] {
        let file = folder.join(name);
        std::fs::write(&file, text)?;
        let words =
            ["-i".to_owned(), path.display().to_string(), file.display().to_string(), format!("::{name}")];
        process::output("mcopy", words)?;
    }
    Ok(path)
}

/// A file system with copies of these files.
fn files_of_admin(folder: &Path, files: &[(&Path, &str)]) -> Result<PathBuf> {
    let from = folder.join("host.files.d");
    std::fs::create_dir(&from)?;
    for (file, name) in files {
        std::fs::copy(file, from.join(name)).with_context(|| format!("no {}", file.display()))?;
    }
    let path = disk::blank(&folder.join("host.files"), 1 << 30)?;
    process::output(
        "mke2fs",
        ["-q", "-t", "ext4", "-d", &from.display().to_string(), &path.display().to_string()],
    )?;
    std::fs::remove_dir_all(from)?;
    Ok(path)
}
