//! Scripts on a real file system, through the kernel: mounts, namespaces, limits. Each test needs root, a loop device,
//! `mke2fs`, `mkfs.xfs`, `mkfs.btrfs` and a static busybox in /bin/busybox, so tests/run runs them by name: `cargo test -p swarmboot-agent --lib --
//! --ignored hooks`. `SWARMBOOT_TEST_BUSYBOX` names another busybox.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::hooks::OnFailure;
use common::user_data::UserData;
use parking_lot::Mutex;

use super::*;
use crate::disk::device::FileDevice;

/// Where the root begins in the file that is the disk, and how long it is.
const START: u64 = 1 << 20;
const BYTES: u64 = 32 << 20;

struct Disk {
    folder: tempfile::TempDir,
    device: FileDevice,
    bytes: u64,
    file_system: &'static str,
}

/// Runs a program that has to succeed; returns what it said.
fn command(program: &str, arguments: &[&str]) -> String {
    let ended = std::process::Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    assert!(ended.status.success(), "{program}: {said}");
    said
}

/// A folder with what is in a root, a busybox as its shell, for all that a hook looks at.
fn root_in(folder: &Path) -> PathBuf {
    let root = folder.join("root");
    for place in ["dev", "proc", "run", "sys", "etc", "bin"] {
        std::fs::create_dir_all(root.join(place)).unwrap();
    }
    std::fs::write(root.join("etc/os-release"), "ID=test\n").unwrap();
    let busybox = std::env::var("SWARMBOOT_TEST_BUSYBOX").unwrap_or_else(|_| "/bin/busybox".to_owned());
    std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "dd", "echo", "env", "head", "ls", "mount", "rm", "sleep", "tr", "wc", "yes"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    root
}

/// A disk with an ext4 root.
fn disk() -> Disk {
    let folder = tempfile::tempdir().unwrap();
    let root = root_in(folder.path());
    let path = folder.path().join("disk");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(START + BYTES + (1 << 20)).unwrap();
    let at = format!("offset={START}");
    let (from, to) = (root.display().to_string(), path.display().to_string());
    let blocks = (BYTES >> 12).to_string();
    command("mke2fs", &["-q", "-t", "ext4", "-b", "4096", "-E", &at, "-d", &from, &to, &blocks]);
    let device = FileDevice::open(&path, false).unwrap();
    Disk { folder, device, bytes: BYTES, file_system: "ext4" }
}

/// A disk with a root of XFS or btrfs; of btrfs in these subvolumes, and in none where there are none.
fn disk_of(file_system: &'static str, subvolumes: &[&str]) -> Disk {
    // XFS takes no less.
    let bytes: u64 = 300 << 20;
    let folder = tempfile::tempdir().unwrap();
    root_in(folder.path());
    let (made, top) = (folder.path().join("made"), folder.path().join("top"));
    std::fs::create_dir(&top).unwrap();
    std::fs::File::create(&made).unwrap().set_len(bytes).unwrap();
    command(&format!("mkfs.{file_system}"), &["-q", made.to_str().unwrap()]);
    // In mounts of its own, which end with it.
    let mut script =
        format!("set -e; cd {}; mount -o loop made top; cp -a root/. top/", folder.path().display());
    if !subvolumes.is_empty() {
        script = script.replace("cp -a root/. top/", "true");
    }
    for name in subvolumes {
        script.push_str(&format!("; btrfs subvolume create 'top/{name}'; cp -a root/. 'top/{name}/'"));
    }
    command("unshare", &["--mount", "sh", "-c", &format!("{script}; umount top")]);
    let path = folder.path().join("disk");
    let mut file = std::fs::File::create(&path).unwrap();
    file.set_len(START + bytes + (1 << 20)).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(START)).unwrap();
    std::io::copy(&mut std::fs::File::open(&made).unwrap(), &mut file).unwrap();
    let device = FileDevice::open(&path, false).unwrap();
    Disk { folder, device, bytes, file_system }
}

impl Disk {
    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Runs `script` with a limit of `seconds`; returns how it ended and what it said.
    fn run(&self, script: &[u8], seconds: u32) -> (Result<(), HookError>, Vec<String>) {
        self.run_until(script, seconds, &|| false)
    }

    fn run_until(
        &self,
        script: &[u8],
        seconds: u32,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> (Result<(), HookError>, Vec<String>) {
        let hook = Hook {
            name: "10-test".to_owned(),
            script: UserData(script.to_vec()),
            timeout_seconds: seconds,
            on_failure: OnFailure::Fail,
        };
        let region = Region { number: 1, bytes: START..START + self.bytes, file_system: self.file_system };
        let said = Mutex::new(vec![]);
        let result = run(&Script {
            device: &self.device,
            region: &region,
            hook: &hook,
            environment: &[("SWARMBOOT_HOSTNAME", "rack1-01".to_owned())],
            stop,
            tell: &|line| said.lock().push(line),
        });
        self.assert_let_go(&result);
        (result, said.into_inner())
    }

    /// Nothing of the disk is left behind: no loop device, no mount.
    fn assert_let_go(&self, result: &Result<(), HookError>) {
        let path = self.path();
        let name = path.to_str().unwrap();
        for entry in std::fs::read_dir("/sys/block").unwrap().flatten() {
            let file = entry.path().join("loop/backing_file");
            let behind = std::fs::read_to_string(file).unwrap_or_default();
            assert!(!behind.contains(name), "{:?} holds the disk: {result:?}", entry.file_name());
        }
        assert!(!std::fs::read_to_string("/proc/self/mounts").unwrap().contains("/run/root"));
    }

    /// Checks the file system as it is on the disk: it has to be whole and unmounted, with nothing in its log.
    fn check(&self) {
        let alone = self.folder.path().join("alone");
        let mut part = std::fs::File::open(self.path()).unwrap();
        std::io::Seek::seek(&mut part, std::io::SeekFrom::Start(START)).unwrap();
        let mut out = std::fs::File::create(&alone).unwrap();
        std::io::copy(&mut std::io::Read::take(part, self.bytes), &mut out).unwrap();
        let alone = alone.to_str().unwrap();
        let said = match self.file_system {
            "xfs" => command("xfs_repair", &["-n", alone]),
            "btrfs" => command("btrfs", &["check", "--readonly", alone]),
            _ => command("e2fsck", &["-fn", alone]),
        };
        // Neither takes a journal that was left with something in it for a fault.
        assert!(!said.contains("recovery") && !said.contains("ALERT"), "{said}");
    }

    /// The file `name` of the root, as it is on the disk.
    fn read(&self, name: &str) -> String {
        let disk = format!("{}?offset={START}", self.path().display());
        let ended = std::process::Command::new("debugfs")
            .args(["-R", &format!("cat {name}"), &disk])
            .output()
            .unwrap();
        String::from_utf8_lossy(&ended.stdout).into_owned()
    }
}

fn cause(result: Result<(), HookError>) -> String {
    common::causes::with_causes(&result.unwrap_err())
}

#[test]
#[ignore = "needs root, loop devices and a static busybox"]
fn a_script_changes_the_root_and_is_heard() {
    let disk = disk();
    let script =
        b"echo \"I am $SWARMBOOT_HOSTNAME\"; echo lost >&2\necho \"$SWARMBOOT_HOSTNAME\" > /etc/made\n\
                   ls /dev; cat /proc/1/comm; read line || echo no input\n";
    let (result, said) = disk.run(script, 60);
    assert!(result.is_ok(), "{result:?} {said:?}");
    for wanted in ["I am rack1-01", "lost", "no input", "null"] {
        assert!(said.iter().any(|line| line == wanted), "{wanted}: {said:?}");
    }
    assert!(!said.iter().any(|line| line.starts_with("loop") || line.starts_with("sd")), "{said:?}");
    assert_eq!(disk.read("/etc/made"), "rack1-01\n");
    // The script itself, which may hold secrets, never was on the disk.
    let bytes = std::fs::read(disk.path()).unwrap();
    assert!(!bytes.windows(15).any(|window| window == b"echo lost >&2\ne"));
}

#[test]
#[ignore = "needs root, loop devices and a static busybox"]
fn what_a_script_does_wrong_is_its_own_failure() {
    let disk = disk();
    let (result, _) = disk.run(b"echo went wrong; exit 3\n", 60);
    assert_eq!(cause(result), "the hook 10-test ended with exit status 3: went wrong");
    let (result, _) = disk.run(b"#!/bin/bash\ntrue\n", 60);
    let missing = cause(result);
    assert!(missing.contains("cannot start the hook 10-test: #!/bin/bash"), "{missing}");
    let (result, _) = disk.run(b"\x7fELF\0\xff\xfe binary\n", 60);
    assert!(matches!(result, Err(HookError::Failed { .. })));
    let (result, _) = disk.run(b"dd if=/dev/zero of=/large bs=1M\n", 120);
    let full = cause(result);
    assert!(full.contains("No space left"), "{full}");
    let (result, _) = disk.run(b"rm -rf /large /bin\n", 60);
    assert!(result.is_ok());
    let (result, _) = disk.run(b"true\n", 60);
    assert_eq!(cause(result), "the root has no /bin/sh, which runs the hook 10-test");
}

#[test]
#[ignore = "needs root, loop devices and a static busybox"]
fn a_script_that_does_not_end_is_killed_with_all_its_children() {
    let disk = disk();
    let begun = Instant::now();
    let mark = "sleep 4711";
    for script in [
        format!("echo begun; {mark}\n"),
        // Children in sessions of their own that keep the pipe, and one that closes it and goes on.
        format!("{mark} & {mark} & ({mark} &) ; wait\n"),
        format!("exec >/dev/null 2>&1; {mark}\n"),
        "while :; do sleep 4711 & done\n".to_owned(),
        "yes\n".to_owned(),
    ] {
        let (result, said) = disk.run(script.as_bytes(), 2);
        let late = cause(result);
        // A fork bomb may also fail by itself, when it gets no more processes.
        assert!(late.contains("did not end within 2 s") || script.starts_with("while"), "{script}: {late}");
        assert!(said.len() <= 151, "{}", said.len());
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
    let alive = |entry: std::fs::DirEntry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == b"sleep\x004711\0")
    };
    assert!(!std::fs::read_dir("/proc").unwrap().flatten().any(alive), "a child is alive");
    // A background child does not hold a script up that ends.
    let begun = Instant::now();
    let (result, _) = disk.run(format!("{mark} &\nexit 0\n").as_bytes(), 60);
    assert!(result.is_ok() && begun.elapsed() < Duration::from_secs(30), "{result:?}");
}

#[test]
#[ignore = "needs root, loop devices and a static busybox"]
fn a_cancelled_job_ends_its_script() {
    let disk = disk();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            stop.store(true, Ordering::SeqCst);
        });
        let (result, _) = disk.run_until(b"sleep 4712\n", 300, &|| stop.load(Ordering::SeqCst));
        assert!(matches!(result, Err(HookError::Stopped(_))), "{result:?}");
    });
}

#[test]
#[ignore = "needs root, loop devices and a static busybox"]
fn a_script_that_mounts_leaves_nothing_mounted() {
    let disk = disk();
    let (result, said) =
        disk.run(b"mount -o bind / /etc && mount -t tmpfs none /bin && echo done > /etc/x\n", 60);
    assert!(result.is_ok(), "{result:?} {said:?}");
}

#[test]
#[ignore = "needs root, loop devices and a static busybox"]
fn what_is_no_root_is_refused() {
    let disk = disk();
    let (result, _) = disk.run(b"rm /etc/os-release; rm -rf /sys; true\n", 60);
    assert!(matches!(result, Ok(()) | Err(HookError::Failed { .. })), "{result:?}");
    let (result, _) = disk.run(b"true\n", 60);
    assert!(matches!(result, Err(HookError::NoSystem(_))), "{result:?}");
    assert!(Path::new("/run").is_dir());
}

/// What a script does to its root, and what it leaves of itself, on each file system.
#[test]
#[ignore = "needs root, loop devices and a static busybox"]
fn every_file_system_is_left_whole_and_unmounted() {
    let disks = [disk(), disk_of("xfs", &[]), disk_of("btrfs", &[]), disk_of("btrfs", &["@", "@.old"])];
    for (at, disk) in disks.iter().enumerate() {
        let (result, said) = disk.run(b"echo one >> /etc/made; cat /etc/made\n", 60);
        assert!(result.is_ok(), "{at}: {result:?} {said:?}");
        assert_eq!(said.contains(&"runs in the subvolume @".to_owned()), at == 3, "{at}: {said:?}");
        disk.check();
        // A child that writes on and holds a file open.
        let left = b"(exec 3>/kept; while :; do echo x >&3; done) & sleep 1\n";
        let (result, _) = disk.run(left, 60);
        assert!(result.is_ok(), "{at}: {result:?}");
        disk.check();
        let (result, _) = disk.run(b"while :; do echo x >> /late; done\n", 1);
        assert!(matches!(result, Err(HookError::Late { .. })), "{at}: {result:?}");
        disk.check();
        let (result, _) = disk.run(b"dd if=/dev/zero of=/large bs=1M\n", 120);
        assert!(cause(result).contains("No space left"), "{at}");
        disk.check();
        let (result, said) = disk.run(b"rm /large; echo two >> /etc/made; cat /etc/made\n", 60);
        assert!(result.is_ok(), "{at}: {result:?}");
        assert_eq!(said[said.len() - 2..], ["one", "two"], "{at}");
        disk.check();
    }
    let (result, _) = disk_of("btrfs", &["a", "b"]).run(b"true\n", 60);
    assert!(cause(result).contains("systems in the subvolumes a, b"));
}
