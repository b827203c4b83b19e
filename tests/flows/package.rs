//! The package on a clean Debian with systemd: installed, configured and started with the commands of the manual's first
//! page and no others, and a machine deployed by it. Then what a service has to live through: its program hangs, it is
//! upgraded.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::host::Host;
use lab::images::{self, BANNER_B};
use lab::net::Net;
use lab::scratch::Scratch;
use lab::vm::{Bus, Firmware, Spec};
use lab::{disk, process, rack, wait};
use serde_json::Value;

/// The page that a newcomer follows.
const MANUAL: &str = include_str!("../../server/docs/first-rack.md");
/// The watchdog of the unit is 60 s, and the next start follows it by 5.
const WATCHDOG_LIMIT: Duration = Duration::from_secs(240);

/// The package of this tree.
fn package() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let said =
        process::output(&root.join("server/packaging/build-deb").display().to_string(), [""; 0]).unwrap();
    root.join(said.lines().last().unwrap())
}

/// Debian's image as its makers publish it: compressed qcow2.
fn qcow2(folder: &Path) -> PathBuf {
    let (image, out) = (images::debian().unwrap().b, folder.join("image.qcow2"));
    let paths = [image.display().to_string(), out.display().to_string()];
    let words = ["convert", "-c", "-f", "raw", "-O", "qcow2"].map(str::to_owned);
    process::output("qemu-img", words.into_iter().chain(paths)).unwrap();
    out
}

/// A command of the manual, with what differs here in the place of what the manual shows.
fn of_manual(line: &str, differs: &[(&str, &str)]) -> String {
    assert!(MANUAL.lines().any(|own| own == line), "the manual's first page does not say `{line}`");
    differs.iter().fold(line.to_owned(), |line, (shown, here)| line.replace(shown, here))
}

fn jobs(host: &Host<'_>) -> Value {
    let shown: Value = serde_json::from_str(&host.run("swarmboot -o json deploy status").unwrap()).unwrap();
    shown["jobs"].clone()
}

#[test]
#[ignore = "needs root and virtual machines: run ./tests/full"]
fn full_the_package_on_a_clean_debian() {
    let scratch = Scratch::new().unwrap();
    let (net, segment) = Net::with_segment().unwrap();
    let ipxe = images::kit_packages().unwrap().pop().unwrap();
    let files = [
        (package(), "swarmboot_0.1.0_amd64.deb"),
        (ipxe, "ipxe.deb"),
        (qcow2(scratch.path()), "debian-12-genericcloud-amd64.qcow2"),
    ];
    let files: Vec<(&Path, &str)> = files.iter().map(|(path, name)| (path.as_path(), *name)).collect();
    let host = Host::start(&net, segment, scratch.path(), &files).unwrap();
    let card = host.run("ls /sys/class/net | grep -v '^lo$'").unwrap().trim().to_owned();
    // Without a way to a mirror, iPXE's package is a file too; this rack has one machine, not twelve.
    let differs = [("eth1", card.as_str()), (".deb ipxe", ".deb ./ipxe.deb"), ("rack1-[01-12]", "rack1-01")];
    let typed = |line: &str| {
        let command = of_manual(line, &differs);
        let said = host.run(&command).unwrap();
        println!("seed# {command}\n{said}");
        said
    };

    typed("apt-get install ./swarmboot_0.1.0_amd64.deb ipxe");
    assert_eq!(
        host.ask("systemctl is-active swarmboot").unwrap().text.trim(),
        "inactive",
        "nothing asked for it"
    );
    // The doctor ends with an exit code of its own while something is missing.
    let command = of_manual("swarmboot doctor --interface eth1", &differs);
    println!("seed# {command}\n{}", host.ask(&command).unwrap().text);
    let range = segment.range(100, 199);
    host.run(&format!(
        "sed -i 's/^#interface = .*/interface = \"{card}\"/; s/^#dhcp_range = .*/dhcp_range = \"{range}\"/' \
         /etc/swarmboot/swarmboot.toml"
    ))
    .unwrap();
    typed("swarmboot config check");
    typed("systemctl enable --now swarmboot");
    typed("swarmboot status");
    typed("swarmboot kit import");
    typed("swarmboot image add debian-12 debian-12-genericcloud-amd64.qcow2");

    let blank = disk::blank(&scratch.file("disk"), 2 << 30).unwrap();
    let spec = Spec::new(1, Firmware::Uefi, segment).disk(Bus::Virtio, &blank);
    let mut machine = spec.power_on(&net, scratch.path()).unwrap();
    wait::until("the machine to report its hardware", rack::REPORT_LIMIT, || {
        wait::pause(Duration::from_secs(2))?;
        let shown: Value = serde_json::from_str(&host.run("swarmboot -o json machine list")?)?;
        Ok((!shown[0]["hardware"].is_null()).then_some(()))
    })
    .unwrap();
    typed("swarmboot machine list");
    typed("swarmboot machine show m1");
    typed("swarmboot machine name m1 rack1-01");
    typed("swarmboot machine label rack1-01 role=web");
    host.run("ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519").unwrap();
    let start =
        "swarmboot deploy start --image debian-12 --machines rack1-[01-12] --ssh-key ~/.ssh/id_ed25519.pub";
    typed(&format!("{start} --dry-run"));
    println!("{}", host.run_answering(&of_manual(start, &differs), "yes").unwrap());
    typed("swarmboot deploy watch");
    rack::at_login(&mut machine, BANNER_B, "rack1-01").unwrap();
    assert_eq!(jobs(&host)[0]["state"], "deployed");

    println!(
        "{}",
        host.run("systemctl show swarmboot -p User -p StatusText -p NRestarts -p MemoryCurrent").unwrap()
    );
    println!("{}", host.run("systemd-analyze security --no-pager swarmboot | tail -1").unwrap());
    println!("{}", host.run("journalctl --no-pager -u swarmboot | tail -40").unwrap());
    let user = host.run("ps -o user= -p $(systemctl show swarmboot -p MainPID --value)").unwrap();
    assert_eq!(user.trim(), "swarmboot");

    // A program that hangs is started again, and knows what it knew.
    host.run("kill -STOP $(systemctl show swarmboot -p MainPID --value)").unwrap();
    wait::until("systemd to start the hanging server again", WATCHDOG_LIMIT, || {
        wait::pause(Duration::from_secs(5))?;
        let restarts = host.run("systemctl show swarmboot -p NRestarts --value")?;
        Ok((restarts.trim() != "0" && host.ask("swarmboot status")?.code == 0).then_some(()))
    })
    .unwrap();
    assert_eq!(jobs(&host)[0]["state"], "deployed");

    // An upgrade starts it anew, and keeps configuration and records.
    let before = host.run("systemctl show swarmboot -p MainPID --value").unwrap();
    host.run("dpkg -i ./swarmboot_0.1.0_amd64.deb").unwrap();
    assert_ne!(host.run("systemctl show swarmboot -p MainPID --value").unwrap(), before);
    assert_eq!(host.run("systemctl is-active swarmboot").unwrap().trim(), "active");
    assert_eq!(jobs(&host)[0]["state"], "deployed");
}
