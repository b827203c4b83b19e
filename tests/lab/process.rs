//! Owns the lab's child processes: short ones whose output is wanted, and long ones that end when their value is
//! dropped. Each long one leads a process group of its own, so that Ctrl-C in a terminal reaches only us and processes
//! are ended in order.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::wait;
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started or fails; the error has its standard error.
pub fn output<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    output_of(&mut command)
}

/// Runs a prepared command to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started or fails; the error has its standard error.
pub fn output_of(command: &mut Command) -> Result<String> {
    let result =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", line(command)))?;
    if !result.status.success() {
        let said = String::from_utf8_lossy(&result.stderr);
        bail!("{} failed ({}): {}", line(command), result.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// A command as a person would type it, for errors.
fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Used {
    /// Seconds of processor time, in its own code and in the kernel's.
    pub cpu_seconds: f64,
    /// The most memory it held at once, in bytes.
    pub peak_bytes: u64,
}

/// A process that runs in the background, with both its outputs in one file. Dropping it kills the process.
#[derive(Debug)]
pub struct Beside {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Beside {
    /// Starts `command`, and appends its output to the file `log`.
    ///
    /// # Errors
    /// When the program does not exist, or the file cannot be opened.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", line(command)))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its whole output so far.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Its exit status; none while it runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot ask how {} is", self.name))
    }

    /// What it has used so far; none when it has ended.
    #[must_use]
    pub fn used(&self) -> Option<Used> {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.id())).ok();
        let (stat, status) = (read("stat")?, read("status")?);
        // proc(5): behind the name, which may contain spaces, user and system time are the 12th and 13th field.
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
        // USER_HZ has been 100 on every architecture that Linux runs machines of this kind on.
        Some(Used { cpu_seconds: ticks / 100.0, peak_bytes: kib * 1024 })
    }

    /// Fails if it has ended, with the last lines of its output.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} has ended ({status}); its last words:\n{}", self.name, tail(&self.said(), 20));
        }
        Ok(())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_raw(i32::try_from(self.child.id()).context("a process id beyond all bounds")?);
        kill(id, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Waits for its end, and returns its exit status.
    ///
    /// # Errors
    /// When it has not ended within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait::until(&what, limit, || self.ended())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last `count` lines of a text.
#[must_use]
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The path of one of the workspace's programs: beside the running test or example, where Cargo puts them, or in the
/// folder that `SWARMBOOT_PROGRAMS` names.
///
/// # Errors
/// When it has not been built.
pub fn program(name: &str) -> Result<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::env::var_os("SWARMBOOT_PROGRAMS").map(PathBuf::from).into_iter().collect();
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    folders.extend(own.ancestors().skip(1).take(2).map(Path::to_owned));
    for folder in &folders {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("{name} is not built; hint: cargo build --workspace, with the same profile as this program")
}

/// Arguments as a list of `OsString`, to which paths can be added.
pub fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<OsString> {
    words.into_iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_what_was_said() {
        let error = output("sh", ["-c", "echo alas >&2; exit 3"]).unwrap_err().to_string();
        assert!(error.contains("alas") && error.contains('3'), "{error}");
    }

    #[test]
    fn dropping_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let beside = Beside::start("sleep", Command::new("sleep").arg("1000"), &log).unwrap();
        let id = beside.id();
        drop(beside);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn what_a_program_uses_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let busy =
            Beside::start("a loop", Command::new("sh").args(["-c", "while :; do :; done"]), &log).unwrap();
        let used = wait::until("it to use a tenth of a second", Duration::from_secs(60), || {
            Ok(busy.used().filter(|used| used.cpu_seconds >= 0.1))
        });
        assert!(used.unwrap().peak_bytes > 100_000);
    }

    #[test]
    fn the_tail_of_a_short_text_is_the_text() {
        assert_eq!(tail("a\nb", 20), "a\nb");
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
    }
}
