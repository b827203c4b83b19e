//! The kernel's means to run a script in the new root and to be rid of it: a loop device over the root's bytes, because
//! the disk has no partition table yet; namespaces of mounts and processes that die with the script; a control group
//! that bounds how many processes it starts. Owns the only unsafe code of hooks: two ioctls, and what a child does
//! between fork and exec. Touches the kernel.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chroot, fchdir, setsid};

use super::error::HookError;
use super::subvolume::{SUBVOLUME_INODE, root_subvolume};

/// Where everything of a script is mounted: hidden by a file system of its own in a namespace of its own.
const RUN: &str = "/run";
/// The new root there.
const ROOT: &str = "/run/root";
/// Where the top of a btrfs is looked through for the root.
const TOP: &str = "/run/top";
/// The most processes of a script at once: a system's package manager starts dozens, a fork bomb thousands.
const PROCESSES: &str = "2048";
/// How often a loop device is asked for when others take the free one first.
const LOOP_TRIES: u32 = 16;
/// How long the kernel may take to let go of the root after it was unmounted.
const LET_GO: Duration = Duration::from_secs(60);

mod ioctl {
    nix::ioctl_none_bad!(free_loop, 0x4c82);
    nix::ioctl_write_ptr_bad!(configure_loop, 0x4c0a, super::LoopConfig);
}

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`, since Linux 5.8.
#[repr(C)]
pub(super) struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(std::mem::size_of::<LoopConfig>() == 304);

/// The loop device is freed when its last user closes it.
const AUTOCLEAR: u32 = 4;

/// The calling thread's way back to the agent's own root.
#[derive(Debug)]
pub(super) struct Way {
    old_root: File,
    /// The subvolume that is the root; none where that is the file system's default one, or has no subvolumes.
    subvolume: Option<String>,
    /// The loop device's entry in sysfs, and what is said there of its file.
    behind: (PathBuf, String),
}

/// Gives the calling thread its own mounts, and its future children their own processes. The thread must end after the
/// script: it cannot have a second one.
pub(super) fn enter() -> Result<File, HookError> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID).map_err(|errno| {
        let source = io::Error::from(errno);
        match source.kind() {
            io::ErrorKind::PermissionDenied => HookError::NotRoot(source),
            _ => HookError::System { what: "cannot make namespaces", source },
        }
    })?;
    // Not before: that would be the way into the mounts of the whole agent, where the new root is not.
    let old_root = File::open("/").map_err(|source| HookError::System { what: "cannot open /", source })?;
    mounted("/ for itself", mount(none(), "/", none(), MsFlags::MS_REC | MsFlags::MS_PRIVATE, none()))?;
    mounted("a folder for the root", mount(Some("tmpfs"), RUN, Some("tmpfs"), quiet(), Some("mode=0700")))?;
    fs::create_dir(ROOT).map_err(|source| HookError::System { what: "cannot make a folder", source })?;
    Ok(old_root)
}

fn none() -> Option<&'static str> {
    None
}

fn quiet() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV
}

fn mounted(what: impl Into<String>, result: nix::Result<()>) -> Result<(), HookError> {
    result.map_err(|errno| {
        let source = io::Error::from(errno);
        if source.kind() == io::ErrorKind::PermissionDenied {
            return HookError::NotRoot(source);
        }
        HookError::Mount { what: what.into(), source }
    })
}

/// Mounts the root: the `bytes` of the disk that `disk` is an open file of. Returns the thread's way back.
pub(super) fn mount_root(
    old_root: File,
    disk: &File,
    bytes: &Range<u64>,
    sector_bytes: u32,
    file_system: &str,
) -> Result<Way, HookError> {
    let (device, path, behind) = attach(disk, bytes, sector_bytes)?;
    // XFS refuses a UUID that is mounted, as on a host whose own root is of the same image.
    let options = (file_system == "xfs").then_some("nouuid");
    let what = || format!("the root, which has the file system {file_system}");
    mounted(what(), mount(Some(&path), ROOT, Some(file_system), MsFlags::MS_NOATIME, options))?;
    let mut subvolume = None;
    if file_system == "btrfs" && !is_system(Path::new(ROOT)) {
        subvolume = mount_subvolume(&path).inspect_err(|_| {
            // Nothing else would unmount these before the thread ends. Whichever is not mounted any more fails.
            let _ = (umount2(TOP, MntFlags::empty()), umount2(ROOT, MntFlags::empty()));
        })?;
    }
    // Not before: a device without a user is freed.
    drop(device);
    Ok(Way { old_root, subvolume, behind })
}

/// Puts the subvolume of the btrfs on `device` that holds a system where its default one is; returns its name. None when
/// no subvolume does: the default one stays.
fn mount_subvolume(device: &Path) -> Result<Option<String>, HookError> {
    let failed = |source| HookError::System { what: "cannot look for the root's subvolume", source };
    fs::create_dir(TOP).map_err(failed)?;
    let top = mount(Some(device), TOP, Some("btrfs"), MsFlags::MS_NOATIME, Some("subvolid=5"));
    mounted("the top of the root's btrfs", top)?;
    let mut found = vec![];
    for entry in fs::read_dir(TOP).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_subvolume = entry.metadata().is_ok_and(|it| it.is_dir() && it.ino() == SUBVOLUME_INODE);
        if is_subvolume && is_system(&entry.path()) {
            found.extend(entry.file_name().into_string());
        }
    }
    let chosen = root_subvolume(found)?;
    if let Some(name) = &chosen {
        // A bind, because a name with a comma would be no option of a mount.
        umount2(ROOT, MntFlags::empty()).map_err(|errno| failed(errno.into()))?;
        let from = Path::new(TOP).join(name);
        mounted("the root's subvolume", mount(Some(&from), ROOT, none(), MsFlags::MS_BIND, none()))?;
    }
    umount2(TOP, MntFlags::empty()).map_err(|errno| failed(errno.into()))?;
    Ok(chosen)
}

/// Whether a system is below `root`. A link counts as it stands: it points into the new root, not into the agent's.
fn is_system(root: &Path) -> bool {
    ["etc/os-release", "usr/lib/os-release"].iter().any(|path| root.join(path).symlink_metadata().is_ok())
}

type Attached = (File, PathBuf, (PathBuf, String));

fn attach(disk: &File, bytes: &Range<u64>, sector_bytes: u32) -> Result<Attached, HookError> {
    let failed = |what| move |source| HookError::Loop { what, source };
    let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
    let control = open(Path::new("/dev/loop-control")).map_err(failed("opening /dev/loop-control"))?;
    for _ in 0..LOOP_TRIES {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument, and the descriptor is open.
        let number = unsafe { ioctl::free_loop(control.as_raw_fd()) }
            .map_err(|errno| failed("asking for a free one")(errno.into()))?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open(&path).map_err(failed("opening a free one"))?;
        let config = LoopConfig {
            fd: u32::try_from(disk.as_raw_fd()).unwrap_or(u32::MAX),
            block_size: sector_bytes,
            info: LoopInfo {
                device: 0,
                inode: 0,
                rdevice: 0,
                offset: bytes.start,
                size_limit: bytes.end - bytes.start,
                number: 0,
                encrypt_type: 0,
                encrypt_key_size: 0,
                flags: AUTOCLEAR,
                file_name: [0; 64],
                crypt_name: [0; 64],
                encrypt_key: [0; 32],
                init: [0; 2],
            },
            reserved: [0; 8],
        };
        // SAFETY: the structure is the kernel's, and outlives the call; both descriptors are open.
        match unsafe { ioctl::configure_loop(device.as_raw_fd(), &raw const config) } {
            Ok(_) => {
                let entry = PathBuf::from(format!("/sys/block/loop{number}/loop/backing_file"));
                let said = fs::read_to_string(&entry).map_err(failed("looking at /sys/block"))?;
                return Ok((device, path, (entry, said)));
            }
            // Another process was faster.
            Err(nix::errno::Errno::EBUSY) => {}
            Err(errno) => return Err(failed("setting it up")(errno.into())),
        }
    }
    Err(failed("setting one up")(io::ErrorKind::ResourceBusy.into()))
}

impl Way {
    /// Whether the root holds a system.
    #[allow(clippy::unused_self)] // It is mounted as long as there is a way back.
    pub(super) fn has_system(&self) -> bool {
        is_system(Path::new(ROOT))
    }

    /// The subvolume that is the root, where the file system does not say so itself.
    pub(super) fn subvolume(&self) -> Option<&str> {
        self.subvolume.as_deref()
    }

    /// Mounts what a script expects in a root, puts `script` there, and makes the new root the thread's. Returns the
    /// script's path.
    pub(super) fn go(&self, script: &[u8]) -> Result<&'static str, HookError> {
        for place in ["dev", "proc", "run", "sys"] {
            // A link would lead out of the new root.
            let is_folder = Path::new(ROOT).join(place).symlink_metadata().is_ok_and(|found| found.is_dir());
            if !is_folder {
                return Err(HookError::NoPlace(place));
            }
        }
        self.devices()?;
        let sys = format!("{ROOT}/sys");
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mounted("/sys for a hook", mount(Some("/sys"), sys.as_str(), none(), bind, none()))?;
        let fixed = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
        mounted("/sys for a hook", mount(none(), sys.as_str(), none(), fixed, none()))?;
        let run = format!("{ROOT}/run");
        let options = Some("mode=0755,size=64m");
        mounted("/run for a hook", mount(Some("tmpfs"), run.as_str(), Some("tmpfs"), quiet(), options))?;
        // Only in memory: a script may hold secrets, and what is on the disk may be read after the job.
        let failed = |source| HookError::System { what: "cannot put the script into the root", source };
        let path = format!("{run}/swarmboot-hook");
        fs::write(&path, script).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        let enter = |source| HookError::System { what: "cannot make the new root the script's", source };
        chroot(ROOT).map_err(|errno| enter(errno.into()))?;
        std::env::set_current_dir("/").map_err(enter)?;
        Ok("/run/swarmboot-hook")
    }

    /// A small /dev: no disk is in it, because the disk is not a script's to write beside the root.
    fn devices(&self) -> Result<(), HookError> {
        let failed = |source| HookError::System { what: "cannot make /dev for a hook", source };
        let dev = format!("{ROOT}/dev");
        let options = Some("mode=0755,size=1m");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mounted("/dev for a hook", mount(Some("tmpfs"), dev.as_str(), Some("tmpfs"), flags, options))?;
        for name in ["null", "zero", "full", "random", "urandom"] {
            let (from, to) = (format!("/dev/{name}"), format!("{dev}/{name}"));
            File::create(&to).map_err(failed)?;
            let bound = mount(Some(from.as_str()), to.as_str(), none(), MsFlags::MS_BIND, none());
            mounted(format!("{from} for a hook"), bound)?;
        }
        for (name, to) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
            std::os::unix::fs::symlink(format!("/proc/self/fd{to}"), format!("{dev}/{name}"))
                .map_err(failed)?;
        }
        fs::create_dir(format!("{dev}/shm")).map_err(failed)
    }

    /// Goes back to the agent's root and unmounts the new one, with everything in it. When this returns without an
    /// error, all that the script wrote is in the disk's cache, and nothing holds the root any more.
    pub(super) fn back(self) -> io::Result<()> {
        fchdir(&self.old_root)?;
        chroot(".")?;
        let root = File::open(ROOT)?;
        nix::unistd::syncfs(&root)?;
        drop(root);
        umount2(RUN, MntFlags::MNT_DETACH)?;
        // Only when the last mount is gone does the loop device let go of the disk.
        let (entry, said) = &self.behind;
        let begun = Instant::now();
        while fs::read_to_string(entry).is_ok_and(|now| now == *said) {
            if begun.elapsed() > LET_GO {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// A control group that bounds the number of processes; it is gone when it is dropped.
#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
    procs: File,
}

impl Group {
    /// A new group in cgroup v2; none where the kernel has not got it, or its parent does not share out processes.
    /// Without one a fork bomb ends at the time limit, with the namespace of its processes.
    pub(super) fn new() -> Option<Self> {
        let top = Path::new(RUN).join("cgroup");
        fs::create_dir(&top).ok()?;
        mount(Some("cgroup2"), &top, Some("cgroup2"), quiet(), none()).ok()?;
        // Fails where it is on already, which the next write tells.
        let _ = fs::write(top.join("cgroup.subtree_control"), "+pids");
        let folder = top.join(format!("swarmboot-hook-{}", std::process::id()));
        let _ = fs::remove_dir(&folder);
        fs::create_dir(&folder).ok()?;
        let procs = fs::write(folder.join("pids.max"), PROCESSES)
            .and_then(|()| OpenOptions::new().write(true).open(folder.join("cgroup.procs")));
        match procs {
            Ok(procs) => Some(Self { folder, procs }),
            Err(_) => {
                let _ = fs::remove_dir(&folder);
                None
            }
        }
    }

    /// Removes the group. To be called when its processes have ended, in the agent's root.
    pub(super) fn remove(self) {
        // One that stays is empty, and the next of this process removes it.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Prepares `command` to run as the first process of its own namespace of processes, with its own mounts and `/proc`, in
/// `group`: when it ends or is killed, the kernel kills all that it started.
pub(super) fn confine(command: &mut Command, group: Option<&Group>) -> io::Result<()> {
    let procs = group.map(|group| group.procs.try_clone()).transpose()?;
    let prepare = move || {
        if let Some(procs) = &procs {
            nix::unistd::write(procs, b"0")?;
        }
        setsid()?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), "/proc", Some("proc"), flags, none())?;
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls only: nix copies such short paths to the stack and allocates
    // nothing, and no lock is taken.
    unsafe { command.pre_exec(prepare) };
    Ok(())
}
