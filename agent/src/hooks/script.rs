//! One script, from mount to unmount: on a thread of its own, whose namespaces end with it. Touches the kernel through
//! `sandbox`; tells what the script says.

use std::io::{self, PipeReader, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use common::hooks::Hook;
use common::limits::cut;
use common::text::harmless;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::error::HookError;
use super::output::Output;
use super::region::Region;
use super::sandbox::{Group, confine, enter, mount_root};
use crate::disk::device::Device;

/// How often a running script is looked after.
const LOOK: u16 = 200;
/// The most bytes of a subvolume's name in the log.
const NAME: usize = 80;
/// How long a killed script may take to end: a call to a failing disk cannot be interrupted.
const DYING: Duration = Duration::from_secs(60);

/// A script to run.
pub struct Script<'a> {
    /// The disk, whose root is at `region`.
    pub device: &'a dyn Device,
    /// The root.
    pub region: &'a Region,
    /// The script and its limits.
    pub hook: &'a Hook,
    /// Its environment beside `PATH`, `HOME` and `LANG`.
    pub environment: &'a [(&'static str, String)],
    /// Whether the job is over: the script is then killed.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Takes a line of what it says.
    pub tell: &'a (dyn Fn(String) + Sync),
}

impl std::fmt::Debug for Script<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Script").field(&self.hook.name).finish()
    }
}

/// Mounts the root, runs the script in it, and unmounts it. Blocks until everything that the script started has ended
/// and nothing of the root is mounted any more.
///
/// # Errors
/// When it cannot be run, failed, or was killed; [`HookError::is_of_script`] tells whether going on is safe.
pub fn run(script: &Script<'_>) -> Result<(), HookError> {
    let failed = |source| HookError::System { what: "cannot start a thread", source };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("hook".to_owned());
        let running = thread.spawn_scoped(scope, || in_mounts(script)).map_err(failed)?;
        running.join().unwrap_or_else(|_| {
            Err(HookError::System {
                what: "the thread of a hook panicked",
                source: io::ErrorKind::Other.into(),
            })
        })
    })
}

fn in_mounts(script: &Script<'_>) -> Result<(), HookError> {
    let Script { device, region, hook, .. } = script;
    let disk = device.backing().map_err(HookError::NoBacking)?;
    let old_root = enter()?;
    let group = Group::new();
    let way = mount_root(old_root, &disk, &region.bytes, device.sector_bytes(), region.file_system)?;
    if let Some(name) = way.subvolume() {
        (script.tell)(format!("runs in the subvolume {}", cut(&harmless(name), NAME)));
    }
    let result = if way.has_system() {
        way.go(&hook.script.0).and_then(|path| in_root(script, path, group.as_ref()))
    } else {
        Err(HookError::NoSystem(format!("partition {}", region.number)))
    };
    let left = way.back().map_err(|source| HookError::Busy { hook: hook.name.clone(), source });
    if let Some(group) = group {
        group.remove();
    }
    // What is still mounted weighs more than what the script said.
    left.and(result)
}

fn in_root(script: &Script<'_>, path: &str, group: Option<&Group>) -> Result<(), HookError> {
    let hook = script.hook;
    let named = hook.script.0.starts_with(b"#!");
    if !named && Path::new("/bin/sh").metadata().is_err() {
        return Err(HookError::NoShell(hook.name.clone()));
    }
    let mut command = Command::new(if named { path } else { "/bin/sh" });
    if !named {
        command.arg(path);
    }
    let first = if named { first_line(&hook.script.0) } else { "/bin/sh".to_owned() };
    let failed = |source| HookError::Start { hook: hook.name.clone(), first: first.clone(), source };
    let (output, input) = io::pipe().map_err(failed)?;
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .envs([("HOME", "/root"), ("LANG", "C")])
        .envs(script.environment.iter().map(|(name, content)| (*name, content)))
        .stdin(Stdio::null())
        .stdout(input.try_clone().map_err(failed)?)
        .stderr(input);
    confine(&mut command, group).map_err(failed)?;
    let mut child = command.spawn().map_err(failed)?;
    // It holds the writing ends of the pipe, which has to end with the child.
    drop(command);
    // The first to go when memory is short: the agent writes a disk.
    let _ = std::fs::write("/proc/1/oom_score_adj", "1000");
    look_after(script, &mut child, output)
}

fn first_line(script: &[u8]) -> String {
    let text = String::from_utf8_lossy(&script[..script.len().min(200)]).into_owned();
    cut(&harmless(text.lines().next().unwrap_or_default()), 80).to_owned()
}

/// Reads what the script says until it has ended, or kills it.
fn look_after(script: &Script<'_>, child: &mut Child, mut output: PipeReader) -> Result<(), HookError> {
    let hook = script.hook;
    let failed = |source| HookError::System { what: "cannot look after a hook", source };
    let limit = Duration::from_secs(u64::from(hook.timeout_seconds));
    let (begun, mut said, mut open) = (Instant::now(), Output::default(), true);
    let status = loop {
        open = open && hear(&mut output, &mut said, script.tell).map_err(failed)?;
        // What it said last is still in the pipe when it has ended: it is read before that is asked.
        if !open && let Some(status) = child.try_wait().map_err(failed)? {
            break Some(status);
        }
        if begun.elapsed() >= limit || (script.stop)() {
            break None;
        }
        if !open {
            std::thread::sleep(Duration::from_millis(u64::from(LOOK)));
        }
    };
    let status = match status {
        Some(status) => Ok(status),
        None => Err(kill(hook, child, script.stop)),
    };
    said.end().into_iter().for_each(script.tell);
    let said = said.said();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(HookError::Failed { hook: hook.name.clone(), status: words(status), said }),
        Err(HookError::Late { hook, seconds, .. }) => Err(HookError::Late { hook, seconds, said }),
        Err(other) => Err(other),
    }
}

/// Takes what there is to read, and waits for it a little. False when all who could say something have ended.
fn hear(output: &mut PipeReader, said: &mut Output, tell: &dyn Fn(String)) -> io::Result<bool> {
    let mut ready = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
    match poll(&mut ready, PollTimeout::from(LOOK)) {
        Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(true),
        Ok(_) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut bytes = [0; 16 << 10];
    let count = output.read(&mut bytes)?;
    said.take(&bytes[..count]).into_iter().for_each(tell);
    Ok(count > 0)
}

/// Kills the script; the kernel kills all others of its namespace with it.
fn kill(hook: &Hook, child: &mut Child, stop: &dyn Fn() -> bool) -> HookError {
    let _ = child.kill();
    let begun = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if begun.elapsed() > DYING {
            let source = io::ErrorKind::TimedOut.into();
            return HookError::Busy { hook: hook.name.clone(), source };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if stop() {
        return HookError::Stopped(hook.name.clone());
    }
    HookError::Late { hook: hook.name.clone(), seconds: hook.timeout_seconds, said: String::new() }
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

#[cfg(test)]
mod tests;
