//! Duties of PID 1: the first mounts, reaping children, restart and power off. If PID 1 ends, the kernel panics; so
//! nothing here ends the process but [`reboot`] and [`power_off`], and while these fail they are tried again each
//! minute. The kernel delivers no signal to PID 1 that it has no handler for, so none is installed. Touches mounts and
//! the kernel's reboot call.

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::RebootMode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::boot::console::Console;

/// One file system to mount: type, target, flags, options.
type Mount = (&'static str, &'static str, MsFlags, &'static str);

/// A file system that could not be mounted.
#[derive(Debug, thiserror::Error)]
#[error("cannot mount {kind} on {target}")]
pub struct MountError {
    kind: &'static str,
    target: &'static str,
    #[source]
    source: std::io::Error,
}

/// Mounts devtmpfs, proc, sysfs and `/run`. What is mounted already stays as it is, so the agent may call it again
/// after the loader.
///
/// # Errors
/// Returns the file systems that could not be mounted; the others are.
pub fn mount_all() -> Vec<MountError> {
    let closed = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mounts: [Mount; 4] = [
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "mode=0755"),
        ("proc", "/proc", closed, ""),
        ("sysfs", "/sys", closed, ""),
        // All files that a program leaves for the next are small; a leak must not fill the machine's memory.
        ("tmpfs", "/run", closed, "mode=0755,size=16m"),
    ];
    mounts.into_iter().filter_map(|entry| mount_one(entry).err()).collect()
}

/// Mounts the UEFI variables read-only; does nothing where there are none. To be called once drivers are loaded,
/// because Debian's kernel has the file system as a module.
///
/// # Errors
/// When there are variables, but they cannot be mounted.
pub fn mount_firmware_variables() -> Result<(), MountError> {
    let target = "/sys/firmware/efi/efivars";
    if !Path::new(target).is_dir() {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount_one(("efivarfs", target, flags, ""))
}

fn mount_one((kind, target, flags, options): Mount) -> Result<(), MountError> {
    let failed = |source| MountError { kind, target, source };
    if let Err(error) = std::fs::create_dir_all(target)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(failed(error));
    }
    if is_mount_point(Path::new(target)) {
        return Ok(());
    }
    match mount(Some(kind), target, Some(kind), flags, Some(options)) {
        // devtmpfs may be mounted by the kernel itself (CONFIG_DEVTMPFS_MOUNT does not do that for an
        // initramfs, but a patched kernel might).
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(errno) => Err(failed(errno.into())),
    }
}

fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    let parent = path.parent().and_then(device);
    parent.is_some() && parent != device(path)
}

/// Milliseconds since the kernel started; 0 if `/proc/uptime` cannot be read.
#[must_use]
pub fn uptime_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    parse_uptime(&text).unwrap_or_default()
}

fn parse_uptime(text: &str) -> Option<u64> {
    let (seconds, rest) = text.split_once('.')?;
    let hundredths: u64 = rest.get(..2)?.parse().ok()?;
    Some(seconds.parse::<u64>().ok()? * 1000 + hundredths * 10)
}

/// Reaps the children that have ended: PID 1 inherits those whose parent has gone. Only for a program that waits for no
/// child of its own.
pub fn reap() {
    while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

/// Restarts the machine.
pub fn reboot(console: &Console) -> ! {
    end(console, RebootMode::RB_AUTOBOOT, "restart")
}

/// Leaves the machine on, with nothing left to do, until somebody restarts it.
pub fn stay(console: &Console) -> ! {
    loop {
        nix::unistd::sync();
        console.say("done; this machine stays on: restart it to boot its new OS");
        // Said again, because a screen that goes blank shows nothing.
        std::thread::sleep(Duration::from_secs(600));
    }
}

/// Switches the machine off.
pub fn power_off(console: &Console) -> ! {
    end(console, RebootMode::RB_POWER_OFF, "switch off")
}

fn end(console: &Console, mode: RebootMode, verb: &str) -> ! {
    loop {
        nix::unistd::sync();
        let errno = match nix::sys::reboot::reboot(mode) {
            Ok(never) => match never {},
            Err(errno) => errno,
        };
        console.say(&format!("cannot {verb} this machine: {errno}; please do it by hand"));
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uptime_is_read_to_the_hundredth() {
        assert_eq!(parse_uptime("12.34 40.00\n"), Some(12_340));
        assert_eq!(parse_uptime("12"), None);
        assert_eq!(parse_uptime(""), None);
    }

    #[test]
    fn a_mount_point_is_told_from_a_directory() {
        assert!(is_mount_point(Path::new("/proc")));
        assert!(!is_mount_point(Path::new("/proc/self")));
    }
}
