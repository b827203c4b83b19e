//! Core: what the facts mean, and what to do about each. Touches nothing.

use common::limits::FILES_WANTED;
use common::text::bytes;

use super::answers;
use super::facts::{Facts, Finding, Host, Kit, Link, Port, Severity};
use super::firewall::Passes;
use crate::mistakes;

/// Free space below which an image hardly fits.
const ROOM: u64 = 10 << 30;
/// Free space below which nothing can be done.
const ROOM_LEAST: u64 = 512 << 20;
/// Memory below which a rack's boot files and connections do not fit.
const MEMORY: u64 = 512 << 20;
/// The MTU of Ethernet: firmware sends frames of it and cannot be told otherwise.
const MTU: u32 = 1500;
/// The year of this program: no right clock is before it.
const YEAR: i16 = 2026;

/// All findings, in the order in which a machine would meet what they are about.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![];
    findings.extend(server(facts));
    findings.extend(facts.mistakes.iter().map(mistake));
    link(&facts.link, &mut findings);
    match &facts.answers {
        Some(Ok(said)) => findings.extend(answers::judge(said, facts.gives_addresses)),
        Some(Err(why)) => findings.push(find(
            "other servers",
            Severity::Unknown,
            format!("could not be asked: {why}"),
            Some("run it as root: it sends what firmware sends".to_owned()),
        )),
        None => {}
    }
    facts.ports.iter().for_each(|one| port(one, facts.root, &mut findings));
    firewall(&facts.ports, facts.root, &mut findings);
    kit(&facts.kit, facts.server.is_some(), &mut findings);
    for (machine, device) in &facts.undriven {
        findings.push(find(
            "drivers",
            Severity::Warning,
            format!("the kit has no driver for the network adapter {device} of {machine}"),
            Some("import a kit of the full kernel, with linux-modules-extra on Ubuntu".to_owned()),
        ));
    }
    host(&facts.host, facts.root, &mut findings);
    findings
}

/// What a server on another host says of itself, which is all that can be known from here.
#[must_use]
pub fn from_afar(warnings: &[String]) -> Vec<Finding> {
    let facts = Facts { server: Some(warnings.to_vec()), ..Facts::default() };
    let mut findings = server(&facts);
    let text = "only what the server itself notices was looked at, not its host and network".to_owned();
    let cure = "run `swarmboot doctor` on the server's host".to_owned();
    findings.push(find("server", Severity::Unknown, text, Some(cure)));
    findings
}

fn find(topic: &'static str, severity: Severity, text: String, cure: Option<String>) -> Finding {
    Finding { topic, severity, text, cure }
}

fn server(facts: &Facts) -> Vec<Finding> {
    let Some(warnings) = &facts.server else {
        return vec![find(
            "server",
            Severity::Ok,
            "none runs on this host; looked at what it would need".to_owned(),
            None,
        )];
    };
    let runs = find("server", Severity::Ok, "it runs".to_owned(), None);
    let warned = warnings.iter().map(|text| {
        find(
            "server",
            Severity::Warning,
            text.clone(),
            Some("`swarmboot status` says it until it is put right".to_owned()),
        )
    });
    std::iter::once(runs).chain(warned).collect()
}

fn mistake(mistake: &mistakes::Mistake) -> Finding {
    let severity = match mistake.severity {
        mistakes::Severity::Warning => Severity::Warning,
        mistakes::Severity::Error => Severity::Error,
    };
    let place = mistake.line.map(|line| format!("line {line}: ")).unwrap_or_default();
    let hint = mistake.hint.clone().unwrap_or_else(|| "see `swarmboot config check`".to_owned());
    find("configuration", severity, format!("{place}{}", mistake.text), Some(hint))
}

fn link(link: &Link, findings: &mut Vec<Finding>) {
    let topic = "interface";
    let Some(name) = &link.name else {
        let cure = format!(
            "name the one that the machines are on: --interface NAME (there is: {})",
            link.others.join(", ")
        );
        findings.push(find(topic, Severity::Error, "none is named".to_owned(), Some(cure)));
        return;
    };
    match link.address {
        Some((address, prefix)) => {
            findings.push(find(topic, Severity::Ok, format!("{name} has {address}/{prefix}"), None));
        }
        None => {
            let text = format!(
                "there is no interface {name} with an IPv4 address (there is: {})",
                link.others.join(", ")
            );
            let cure = format!("give it one, such as: ip address add 10.0.0.1/24 dev {name}");
            findings.push(find(topic, Severity::Error, text, Some(cure)));
        }
    }
    if link.carrier == Some(false) {
        let cure = format!("plug the cable in, and `ip link set {name} up`");
        findings.push(find(topic, Severity::Error, format!("{name} is down or has no cable"), Some(cure)));
    }
    let Some(mtu) = link.mtu else { return };
    if mtu < MTU {
        let cure = format!("ip link set {name} mtu {MTU}");
        findings.push(find(
            topic,
            Severity::Warning,
            format!("{name} has an MTU of {mtu}: firmware sends frames of {MTU}"),
            Some(cure),
        ));
    }
    if mtu > MTU {
        let text = format!(
            "{name} has an MTU of {mtu}: switch and machines must all take such frames, and firmware does not"
        );
        findings.push(find(topic, Severity::Warning, text, Some(format!("leave it at {MTU}"))));
    }
    for (part, smaller) in link.parts.iter().filter(|(_, part)| *part < mtu) {
        let text = format!(
            "{part}, a part of {name}, has an MTU of {smaller}, less than {mtu}: larger frames are lost"
        );
        findings.push(find(topic, Severity::Error, text, Some(format!("ip link set {part} mtu {mtu}"))));
    }
}

fn port(port: &Port, root: bool, findings: &mut Vec<Finding>) {
    let name = format!("{} {} ({})", port.protocol, port.number, port.purpose);
    if port.holders.is_empty() {
        findings.push(find("ports", Severity::Ok, format!("{name} is free"), None));
        return;
    }
    let holders = port.holders.join(", ");
    if port.holders.iter().all(|holder| holder.starts_with("swarmboot ")) {
        findings.push(find("ports", Severity::Ok, format!("{name} is our server's, {holders}"), None));
    } else if port.opens == Some(true) {
        let text = format!("{name} is also {holders}'s, which lets it be shared");
        findings.push(find("ports", Severity::Ok, text, None));
    } else {
        let (who, cure) = if root {
            (
                format!("{name} is taken by {holders}"),
                format!("stop it, or run this server on another host: {holders}"),
            )
        } else {
            (
                format!("{name} is taken"),
                "run it as root to see by whom; then stop that, or use another host".to_owned(),
            )
        };
        findings.push(find("ports", Severity::Error, who, Some(cure)));
    }
}

fn firewall(ports: &[Port], root: bool, findings: &mut Vec<Finding>) {
    let names = |wanted: Option<Passes>| {
        let named = ports.iter().filter(|port| port.passes == wanted);
        named.map(|port| format!("{} {}", port.protocol, port.number)).collect::<Vec<_>>().join(", ")
    };
    let (shut, unclear, unseen) = (names(Some(Passes::No)), names(Some(Passes::Unknown)), names(None));
    let open = "with nftables: nft add rule inet filter input udp dport '{67, 69, 4011}' accept, and tcp dport '{8069, \
                4001}'; with ufw: ufw allow 67/udp, and so on";
    if !shut.is_empty() {
        findings.push(find(
            "firewall",
            Severity::Error,
            format!("drops what machines send to {shut}"),
            Some(open.to_owned()),
        ));
    }
    if !unclear.is_empty() {
        let text = format!("whether it lets {unclear} in depends on rules that are not understood here");
        findings.push(find(
            "firewall",
            Severity::Unknown,
            text,
            Some("look with: nft list ruleset".to_owned()),
        ));
    }
    if !unseen.is_empty() {
        let cure = if root { "install nftables, whose `nft` is asked" } else { "run it as root" };
        findings.push(find(
            "firewall",
            Severity::Unknown,
            "its rules could not be read".to_owned(),
            Some(cure.to_owned()),
        ));
    }
    if shut.is_empty() && unclear.is_empty() && unseen.is_empty() {
        findings.push(find("firewall", Severity::Ok, "lets machines in".to_owned(), None));
    }
}

fn kit(kit: &Kit, runs: bool, findings: &mut Vec<Finding>) {
    let topic = "boot kit";
    match kit {
        Kit::Unknown => {
            let cure = "run it as root".to_owned();
            findings.push(find(
                topic,
                Severity::Unknown,
                "the folder of kits cannot be read".to_owned(),
                Some(cure),
            ));
        }
        Kit::None => {
            let cure =
                if runs { "swarmboot kit import" } else { "start the server, then: swarmboot kit import" };
            findings.push(find(
                topic,
                Severity::Error,
                "there is none to boot machines with".to_owned(),
                Some(cure.to_owned()),
            ));
        }
        Kit::Damaged(why) => {
            let cure = "import it again, under another name, and remove this one".to_owned();
            findings.push(find(topic, Severity::Error, format!("it cannot be used: {why}"), Some(cure)));
        }
        Kit::There { name, programs, warnings } => {
            findings.push(find(topic, Severity::Ok, format!("{name}, with {}", programs.join(", ")), None));
            let has =
                |names: [&str; 2]| names.iter().any(|name| programs.iter().any(|program| program == name));
            for (firmware, names) in
                [("UEFI", ["snponly.efi", "ipxe.efi"]), ("BIOS", ["undionly.kpxe", "ipxe.pxe"])]
            {
                if !has(names) && !warnings.iter().any(|warning| warning.contains(firmware)) {
                    let text = format!("{name} has no boot program for {firmware} machines");
                    let cure = "apt-get install ipxe, and import the kit again".to_owned();
                    findings.push(find(topic, Severity::Warning, text, Some(cure)));
                }
            }
            for warning in warnings {
                let cure =
                    "see `swarmboot kit show`; what a warning is about may not matter for your machines"
                        .to_owned();
                findings.push(find(topic, Severity::Warning, warning.clone(), Some(cure)));
            }
        }
    }
}

fn host(host: &Host, root: bool, findings: &mut Vec<Finding>) {
    if host.year < YEAR {
        let cure = "set it: timedatectl set-ntp true, or date -s".to_owned();
        let text = format!("it is {} by this host's clock: every time in the log will be wrong", host.year);
        findings.push(find("clock", Severity::Error, text, Some(cure)));
    } else {
        findings.push(match host.synchronised {
            Some(true) => find("clock", Severity::Ok, "set over the network".to_owned(), None),
            Some(false) => find(
                "clock",
                Severity::Warning,
                "not set over the network: times in the log may be wrong".to_owned(),
                Some("timedatectl set-ntp true".to_owned()),
            ),
            None => find(
                "clock",
                Severity::Ok,
                format!("it is {}; whether the network sets it is not known", host.year),
                None,
            ),
        });
    }
    let state = host.state.display();
    findings.push(match host.free {
        Some(free) if free < ROOM_LEAST => find(
            "space",
            Severity::Error,
            format!("only {} are free in {state}", bytes(free)),
            Some("make room, or choose another folder with --state".to_owned()),
        ),
        Some(free) if free < ROOM => find(
            "space",
            Severity::Warning,
            format!("only {} are free in {state}, less than some images need", bytes(free)),
            Some("make room, or choose another folder with --state".to_owned()),
        ),
        Some(free) => find("space", Severity::Ok, format!("{} are free in {state}", bytes(free)), None),
        None => find(
            "space",
            Severity::Unknown,
            format!("{state} cannot be looked at"),
            Some("run it as root".to_owned()),
        ),
    });
    if let Some((owner, user)) = &host.foreign_owner {
        let text = format!("{state} belongs to {owner}, but the service runs as {user}");
        findings.push(find("space", Severity::Error, text, Some(format!("chown -R {user}: {state}"))));
    }
    limits(host, root, findings);
}

fn limits(host: &Host, root: bool, findings: &mut Vec<Finding>) {
    if let Some(memory) = host.memory {
        let text = format!("{} are free to use", bytes(memory));
        let cure = "for more than a few machines, 1 GiB".to_owned();
        let is_little = memory < MEMORY;
        findings.push(find(
            "memory",
            if is_little { Severity::Warning } else { Severity::Ok },
            text,
            is_little.then_some(cure),
        ));
    }
    if let Some(files) = host.files {
        let is_low = files < FILES_WANTED;
        let cure = format!("LimitNOFILE={FILES_WANTED} of the service, or ulimit -Hn {FILES_WANTED}");
        findings.push(find(
            "open files",
            if is_low { Severity::Warning } else { Severity::Ok },
            format!("a server may have {files} open"),
            is_low.then_some(cure),
        ));
    }
    if root && !host.closed_kernels.is_empty() {
        let names: Vec<String> = host.closed_kernels.iter().map(|path| path.display().to_string()).collect();
        let text = format!(
            "the service cannot read {}, so `kit import` of this host's kernel fails",
            names.join(", ")
        );
        let cure = format!("chgrp swarmboot {0} && chmod g+r {0}", names.join(" "));
        findings.push(find("boot kit", Severity::Warning, text, Some(cure)));
    }
    if host.selinux {
        let cure =
            "if something is refused for no other reason, see: ausearch -m avc -c swarmboot".to_owned();
        findings.push(find(
            "security",
            Severity::Warning,
            "SELinux enforces its rules, and has none for this server".to_owned(),
            Some(cure),
        ));
    }
}

#[cfg(test)]
mod tests;
