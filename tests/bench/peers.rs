//! Runs a scenario with other programs that people use today, from Debian's packages, on the same lines: HTTP,
//! BitTorrent by libtorrent (with super seeding, and without) and by aria2, and udpcast. All write to the same kind of
//! files as ours, and all files are compared with the image afterwards.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use lab::disk;
use lab::process::{self, Beside};
use lab::scratch::Scratch;
use lab::wait;
use lab::wires::Host;

use crate::ours::{LIMIT, Rig, into_sites, rig};
use crate::result::Measured;
use crate::scenario::{Peer, Scenario};

/// The file that lists the torrents for the tracker.
const LISTED: &str = "listed";

/// A run in progress: the programs that serve, and the folder and network of all.
struct Run<'a> {
    rig: &'a Rig,
    scratch: &'a Scratch,
    image: PathBuf,
    beside: Vec<Beside>,
}

/// Runs `scenario` with `peer`.
pub(crate) fn run(scenario: &Scenario, peer: Peer) -> Result<Measured> {
    let scratch = Scratch::new()?;
    let rig = rig(scenario)?;
    let served = scratch.file("served");
    std::fs::create_dir(&served)?;
    let image = scenario.image(&served.join("image"))?;
    let mut run = Run { rig: &rig, scratch: &scratch, image, beside: vec![] };
    for number in 0..scenario.machines {
        std::fs::create_dir(run.folder(number))?;
        disk::allocated(&run.target(number), scenario.bytes())?;
    }
    run.serve(peer)?;
    if peer.makes_its_own_file() {
        // Kept until now, so that the memory of these files is not given back to the host before the run.
        for number in 0..scenario.machines {
            std::fs::remove_file(run.target(number))?;
        }
    }
    let before = rig.wires.of_host(&rig.server)?;
    let sites_before = into_sites(scenario, &rig.wires)?;
    let begun = Instant::now();
    let mut seconds: f64 = 0.0;
    let fetching = run.fetch(peer)?;
    let mut waiting: Vec<(usize, Option<Beside>)> = fetching.into_iter().enumerate().collect();
    wait::until("every machine to have the image", LIMIT, || {
        for process in &mut run.beside {
            // udpcast's sender ends when all receivers have everything.
            if let Some(status) = process.ended()?.filter(|status| !status.success()) {
                bail!("a process ended ({status}): {}", process.said());
            }
        }
        let mut left = vec![];
        for (number, mut process) in std::mem::take(&mut waiting) {
            let done = match &mut process {
                Some(process) => process.ended()?.map(|status| status.success()),
                None => run.done(number).exists().then_some(true),
            };
            match done {
                Some(good) => {
                    ensure!(good, "machine {number} failed");
                    seconds = begun.elapsed().as_secs_f64();
                }
                None => left.push((number, process)),
            }
        }
        waiting = left;
        Ok(waiting.is_empty().then_some(()))
    })?;
    let after = rig.wires.of_host(&rig.server)?;
    let sites_after = into_sites(scenario, &rig.wires)?;
    let site_bytes = sites_after.iter().zip(&sites_before).map(|(after, before)| after - before).collect();
    run.beside.clear();
    for number in 0..scenario.machines {
        let wrong = disk::differences(&run.target(number), &run.image)?;
        ensure!(wrong.is_empty(), "what machine {number} got differs at {wrong:?}");
    }
    Ok(Measured { seconds, server_bytes: after.up - before.up, site_bytes, ..Measured::default() })
}

impl Run<'_> {
    fn folder(&self, number: usize) -> PathBuf {
        self.scratch.file(format!("to{number}"))
    }

    fn target(&self, number: usize) -> PathBuf {
        self.folder(number).join("image")
    }

    fn done(&self, number: usize) -> PathBuf {
        self.scratch.file(format!("done{number}"))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.scratch.file(format!("{name}.log"))
    }

    fn torrent(&self) -> PathBuf {
        self.scratch.file("image.torrent")
    }

    /// Starts the programs that serve, and waits until they do.
    fn serve(&mut self, peer: Peer) -> Result<()> {
        let server = &self.rig.server;
        match peer {
            Peer::Http | Peer::CurlDd => {
                let text = format!(
                    "daemon off; pid {folder}/nginx.pid; worker_processes 2; events {{ }}\n\
                     http {{ sendfile on; tcp_nopush on; access_log off; client_body_temp_path {folder}/body;\n\
                     server {{ listen 80; root {folder}/served; }} }}\n",
                    folder = self.scratch.path().display()
                );
                let path = self.scratch.file("nginx.conf");
                // nginx's workers run as nobody, who has to reach the file.
                open_to_all(self.scratch.path())?;
                std::fs::write(&path, text)?;
                let mut command = server.net.command("/usr/sbin/nginx");
                command.arg("-c").arg(&path).args(["-e", "stderr"]);
                self.beside.push(Beside::start("nginx", &mut command, &self.log("nginx"))?);
            }
            Peer::SuperSeeding | Peer::Libtorrent => {
                self.make_torrent("")?;
                let role = if peer == Peer::SuperSeeding { "super" } else { "seed" };
                let served = self.scratch.file("served");
                self.beside.push(self.torrent_node(role, server, &served, &self.scratch.file("never"))?);
            }
            Peer::Aria2 => {
                self.make_torrent(&format!("http://{}:6969/announce", server.address))?;
                let mut command = server.net.command("/usr/bin/opentracker");
                command.args(["-i", &server.address, "-p", "6969", "-P", "6969", "-u", "nobody"]);
                // Debian's opentracker serves only what is listed, in a folder that nobody can read.
                open_to_all(self.scratch.path())?;
                command.arg("-d").arg(self.scratch.path()).args(["-w", LISTED]);
                self.beside.push(Beside::start("opentracker", &mut command, &self.log("opentracker"))?);
                let served = self.scratch.file("served");
                let seed =
                    self.aria2(server, &served, &["--bt-seed-unverified=true", "--seed-ratio=0.0"], "seed")?;
                self.beside.push(seed);
            }
            Peer::Udpcast => {
                let count = self.rig.machines.len().to_string();
                let mut command = server.net.command("/usr/bin/udp-sender");
                command.arg("--file").arg(&self.image).args([
                    "--interface",
                    "eth0",
                    "--nokbd",
                    "--full-duplex",
                ]);
                command.args(["--min-receivers", &count, "--ttl", "1", "--mcast-rdv-address", "224.0.0.1"]);
                command.args(["--mcast-data-address", "239.1.1.1"]);
                self.beside.push(Beside::start("udp-sender", &mut command, &self.log("udp-sender"))?);
            }
        }
        // None of them reports when it is ready.
        wait::pause(Duration::from_secs(3))
    }

    /// Starts the programs that fetch: a process for each machine that ends when it is done; none where only its file
    /// shows it.
    fn fetch(&mut self, peer: Peer) -> Result<Vec<Option<Beside>>> {
        let rig = self.rig;
        let mut fetching = vec![];
        for (number, host) in rig.machines.iter().enumerate() {
            let folder = self.folder(number);
            let log = self.log(&format!("fetch{number}"));
            let to = self.target(number);
            let to = to.display();
            match peer {
                Peer::Http | Peer::CurlDd => {
                    let from = format!("http://{}/image", rig.server.address);
                    let line = match peer {
                        Peer::Http => format!("curl -sS -f {from} 1<> {to} && sync {to}"),
                        _ => format!(
                            "curl -sS -f {from} | dd of={to} bs=1M iflag=fullblock conv=fsync,notrunc"
                        ),
                    };
                    fetching.push(Some(shell(host, &line, &log)?));
                }
                Peer::SuperSeeding | Peer::Libtorrent => {
                    let node = self.torrent_node("leech", host, &folder, &self.done(number))?;
                    self.beside.push(node);
                    fetching.push(None);
                }
                Peer::Aria2 => {
                    let done = self.done(number).display().to_string();
                    let script = self.scratch.file(format!("done{number}.sh"));
                    std::fs::write(&script, format!("#!/bin/sh\n: > {done}\n"))?;
                    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
                    let hook = format!("--on-bt-download-complete={}", script.display());
                    let node =
                        self.aria2(host, &folder, &["--seed-ratio=0.0", &hook], &format!("{number}"))?;
                    self.beside.push(node);
                    fetching.push(None);
                }
                Peer::Udpcast => {
                    let receiver = "udp-receiver --interface eth0 --nokbd --mcast-rdv-address 224.0.0.1";
                    let line = format!("{receiver} 1<> {to} && sync {to}");
                    fetching.push(Some(shell(host, &line, &log)?));
                }
            }
        }
        Ok(fetching)
    }

    fn make_torrent(&self, tracker: &str) -> Result<()> {
        let script = script();
        let words = [script.as_os_str(), "make".as_ref(), self.image.as_os_str()];
        let torrent = self.torrent();
        let all = words.into_iter().chain([torrent.as_os_str(), tracker.as_ref()]);
        let name = process::output("/usr/bin/python3", all)?;
        Ok(std::fs::write(self.scratch.file(LISTED), name)?)
    }

    fn torrent_node(&self, role: &str, host: &Host, folder: &Path, done: &Path) -> Result<Beside> {
        let mut command = host.net.command("/usr/bin/python3");
        command.arg(script()).arg(role).arg(self.torrent()).arg(folder).arg(&host.address).arg(done);
        let everybody = self.rig.machines.iter().chain([&self.rig.server]);
        command.args(everybody.map(|other| &other.address).filter(|address| **address != host.address));
        Beside::start("libtorrent", &mut command, &self.log(&format!("torrent-{}", host.address)))
    }

    fn aria2(&self, host: &Host, folder: &Path, words: &[&str], name: &str) -> Result<Beside> {
        let mut command = host.net.command("/usr/bin/aria2c");
        command.arg("-d").arg(folder).args(words).args([
            "--enable-dht=false",
            "--enable-dht6=false",
            "--enable-peer-exchange=true",
            "--bt-enable-lpd=false",
            "--bt-max-peers=0",
            "--bt-tracker-interval=2",
            "--listen-port=6881",
            "--file-allocation=none",
            "--disk-cache=64M",
            "--max-overall-upload-limit=0",
            "--bt-request-peer-speed-limit=1000M",
        ]);
        command.arg(self.torrent());
        Beside::start("aria2", &mut command, &self.log(&format!("aria2-{name}")))
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/torrent.py")
}

/// Runs the shell command `line` on a machine. `1<> FILE` in it writes into a file that is there, as onto a disk.
fn shell(host: &Host, line: &str, log: &Path) -> Result<Beside> {
    let mut command = host.net.command("bash");
    command.args(["-o", "pipefail", "-c", line]);
    Beside::start("a fetching shell", &mut command, log)
}

fn open_to_all(folder: &Path) -> Result<()> {
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(())
}
