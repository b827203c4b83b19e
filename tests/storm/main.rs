//! The boot storm: many machines powered on in one instant, beside idle connections and slow ones, against the real
//! server; and the same requests to dnsmasq and nginx. Everything runs in two network namespaces of its own, joined by
//! one virtual cable. Needs root.
//!
//! ```text
//! storm [--clients 1000]        everything; ends with 1 when a machine was not served
//! storm --short                 200 machines, ours alone
//! ```

#![allow(clippy::print_stdout)]

// The machines, in their namespace.
mod machines;

// The files of a boot kit that cannot boot.
mod kit;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::net::Net;
use lab::process::{Beside, output_of};
use lab::scratch::{self, Scratch};
use lab::server::Server;
use lab::wait;

/// The server's address; the machines' are in the same network, above it.
const SERVER: &str = "10.77.0.1";
/// The timeout of a server's start.
const START: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "machines") {
        return machines::main(&words[1..]);
    }
    let short = words.iter().any(|word| word == "--short");
    let clients = match words.iter().position(|word| word == "--clients") {
        Some(at) => words.get(at + 1).context("--clients N")?.parse()?,
        None => {
            if short {
                200
            } else {
                1000
            }
        }
    };
    ensure!(clients <= 1200, "the range has 1,280 addresses");
    wait::stop_on_signals()?;
    scratch::sweep();
    let scratch = Scratch::new()?;
    let wire = Wire::new()?;
    println!("{clients} machines at once, beside 1,000 idle connections and 32 that trickle; milliseconds");
    println!("{:<24}{:>8}{:>9}{:>9}{:>9}", "", "served", "median", "p99", "longest");
    let lost = ours(&wire, scratch.path(), clients)?;
    if !short {
        dnsmasq(&wire, scratch.path(), clients)?;
        nginx(&wire, scratch.path(), clients)?;
    }
    if lost {
        bail!("not every machine was served");
    }
    Ok(())
}

/// The two namespaces at the ends of the cable.
struct Wire {
    server: Net,
    machines: Net,
}

impl Wire {
    fn new() -> Result<Self> {
        let wire = Self { server: Net::new()?, machines: Net::new()? };
        let shell = wire.machines.shell();
        let other = shell.split(' ').nth(3).context("no namespace")?.to_owned();
        let server = |line: &str| output_of(wire.server.command("ip").args(line.split(' '))).map(drop);
        server(&format!("link add srv type veth peer name rom netns {other}"))?;
        server(&format!("addr add {SERVER}/16 dev srv"))?;
        server("link set srv up")?;
        // All machines share one kernel: if it answered ARP, each of their addresses would seem to be in use.
        let machines = |line: &str| output_of(wire.machines.command("sh").args(["-c", line])).map(drop);
        machines("echo 8 > /proc/sys/net/ipv4/conf/all/arp_ignore; ip link set rom up")?;
        let addresses = "for a in 1 2 3 4 5; do for b in $(seq 0 255); do echo \"addr add 10.77.$a.$b/16 dev rom\"; done; done | ip -batch -";
        machines(addresses)?;
        let mac = output_of(wire.machines.command("cat").arg("/sys/class/net/rom/address"))?;
        let neighbours = format!(
            "for a in 1 2 3 4 5; do for b in $(seq 0 255); do echo \"neigh add 10.77.$a.$b lladdr {} dev srv nud permanent\"; done; done | ip -batch -",
            mac.trim()
        );
        output_of(wire.server.command("sh").args(["-c", &neighbours]))?;
        Ok(wire)
    }

    /// Runs the machines through `parts`; whether one was not served.
    fn storm(&self, who: &str, parts: &str, clients: u32) -> Result<bool> {
        let mut command = self.machines.command(std::env::current_exe()?);
        command.args(["machines", who, parts, &clients.to_string()]);
        let text = output_of(&mut command)?;
        print!("{text}");
        Ok(text.contains("LOST"))
    }
}

fn ours(wire: &Wire, folder: &Path, clients: u32) -> Result<bool> {
    let arguments = ["--interface", "srv", "--dhcp-range", "10.77.1.0-10.77.5.255"];
    let server = Server::start_with(&wire.server, folder, &arguments)?;
    let kit = folder.join("kit");
    kit::write(&kit)?;
    server.run(["kit", "import", "--folder", &kit.display().to_string()])?;
    wire.storm("swarmboot", "dhcp,tftp,ipxe,http,report,beside", clients)
}

fn dnsmasq(wire: &Wire, folder: &Path, clients: u32) -> Result<()> {
    let root = folder.join("tftp");
    std::fs::create_dir_all(&root)?;
    std::fs::write(root.join("undionly.kpxe"), kit::program())?;
    let mut command = wire.server.command("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping", "--user=root"]);
    command.args(["--bind-dynamic", "--log-facility=-", "--pid-file=", "--interface=srv", "--enable-tftp"]);
    command.arg("--dhcp-range=10.77.1.0,10.77.5.255,255.255.0.0,1h");
    command.args(["--dhcp-boot=undionly.kpxe", "--dhcp-lease-max=2000", "--tftp-max=2000"]);
    command.arg(format!("--tftp-root={}", root.display()));
    command.arg(format!("--dhcp-leasefile={}", folder.join("leases").display()));
    let mut running = Beside::start("dnsmasq", &mut command, &folder.join("dnsmasq.log"))?;
    wait::until("dnsmasq to start", START, || {
        running.check_running()?;
        Ok(running.said().contains("started").then_some(()))
    })?;
    wire.storm("dnsmasq", "dhcp,tftp", clients).map(drop)
}

fn nginx(wire: &Wire, folder: &Path, clients: u32) -> Result<()> {
    if !Path::new("/usr/sbin/nginx").exists() {
        println!("nginx is not installed (tests/bench/packages has it): no row of its own");
        return Ok(());
    }
    let root = folder.join("www");
    std::fs::create_dir_all(root.join("boot/kit"))?;
    let (kernel, loader) = (kit::kernel(), vec![7; 1 << 20]);
    std::fs::write(root.join("boot/kit/vmlinuz"), kernel)?;
    std::fs::write(root.join("boot/kit/loader.img"), loader)?;
    let config = folder.join("nginx.conf");
    let text = format!(
        "daemon off; pid {0}/nginx.pid; worker_processes 2; events {{ worker_connections 8192; }}\nerror_log {0}/nginx.log;\n\
         http {{ access_log off; server {{ listen {SERVER}:8069; root {1}; }} }}\n",
        folder.display(),
        root.display()
    );
    std::fs::write(&config, text)?;
    let mut command: Command = wire.server.command("/usr/sbin/nginx");
    command.arg("-c").arg(&config);
    let _running = Beside::start("nginx", &mut command, &folder.join("nginx.out"))?;
    wait::pause(Duration::from_secs(1))?;
    wire.storm("nginx", "files,beside", clients).map(drop)
}
