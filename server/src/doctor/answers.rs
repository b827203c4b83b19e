//! Core: what those who answer machines on this network would do to them, firmware by firmware. Touches nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::facts::{Finding, Severity};
use crate::dhcp4::{Answer, Asked};

/// What was looked at.
const TOPIC: &str = "other servers";

/// What each other server does, and whether somebody gives out addresses; `ours` says whether our server does.
pub(super) fn judge(answers: &[Answer], ours: bool) -> Vec<Finding> {
    let mut servers: BTreeMap<Ipv4Addr, Vec<&Answer>> = BTreeMap::new();
    for answer in answers {
        servers.entry(answer.server).or_default().push(answer);
    }
    let mut findings: Vec<Finding> = servers.iter().map(|(server, said)| one(*server, said, ours)).collect();
    let gives = |answer: &&Answer| answer.addresses;
    if !answers.iter().any(|answer| gives(&answer)) && !ours {
        findings.push(Finding {
            topic: TOPIC,
            severity: Severity::Error,
            text: "nobody gave out an address, and neither would this server: machines cannot boot"
                .to_owned(),
            cure: Some(
                "start a DHCP server for this network, or give out addresses: --dhcp-range FIRST-LAST"
                    .to_owned(),
            ),
        });
    }
    if findings.is_empty() {
        findings.push(Finding {
            topic: TOPIC,
            severity: Severity::Ok,
            text: "nobody else answers machines here".to_owned(),
            cure: None,
        });
    }
    findings
}

fn one(server: Ipv4Addr, said: &[&Answer], ours: bool) -> Finding {
    let find = |severity, does: String, cure: Option<&str>| Finding {
        topic: TOPIC,
        severity,
        text: format!("{server} {does}"),
        cure: cure.map(str::to_owned),
    };
    let addresses = said.iter().any(|answer| answer.addresses);
    let firmware = |wanted: &dyn Fn(&&&Answer) -> bool| {
        let mut names: Vec<&str> =
            said.iter().filter(|answer| wanted(answer)).map(|answer| word(answer.asked)).collect();
        names.dedup();
        names.join(" and ")
    };
    // UEFI takes the boot file of the server that gives the address, BIOS waits for other offers but may do so, too.
    if let Some(file) = said.iter().find_map(|answer| answer.file.as_deref()) {
        let whom = firmware(&|answer| answer.file.is_some());
        let gives = if addresses { "gives addresses and boots" } else { "boots" };
        return find(
            Severity::Warning,
            format!(
                "{gives} {whom} machines with `{file}`: they start that, or ours, whichever they hear first"
            ),
            Some(
                "take boot file and next server (options 66 and 67) out of its settings, or stop it; if it has machines of \
                 its own, run this server with --no-discovery",
            ),
        );
    }
    let waits = |answer: &&&Answer| answer.pxe && !answer.menu;
    if said.iter().any(|answer| waits(&answer)) && !said.iter().any(|answer| answer.second) {
        return find(
            Severity::Error,
            format!(
                "says that it boots {} machines (option 60, PXEClient), and does not: they wait for its port 4011 and give up",
                firmware(&waits)
            ),
            Some("take option 60 (vendor class PXEClient) out of its settings"),
        );
    }
    if said.iter().any(|answer| answer.pxe) {
        return find(
            Severity::Warning,
            "answers PXE clients: machines take its menu or ours, whichever they hear first".to_owned(),
            Some("stop its network boot service, or run this server with --no-discovery"),
        );
    }
    match (addresses, ours) {
        (true, true) => find(
            Severity::Error,
            "gives out addresses, and so would this server: machines get one or the other".to_owned(),
            Some("leave addresses to it (take dhcp_range out, or --proxy-dhcp), or stop it"),
        ),
        (true, false) => {
            find(Severity::Ok, "gives out addresses; this server adds boot information".to_owned(), None)
        }
        (false, _) => {
            find(Severity::Ok, "answers, without an address and without a boot file".to_owned(), None)
        }
    }
}

fn word(asked: Asked) -> &'static str {
    match asked {
        Asked::Bios => "BIOS",
        Asked::Uefi => "UEFI",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 66);

    fn answer(asked: Asked) -> Answer {
        Answer { server: SERVER, asked, second: false, addresses: false, pxe: false, menu: false, file: None }
    }

    #[test]
    fn each_answer_is_told_by_what_a_machine_does_with_it() {
        let dhcp = Answer { addresses: true, ..answer(Asked::Uefi) };
        let boots = Answer { file: Some("pxelinux.0".to_owned()), ..dhcp.clone() };
        let empty = Answer { pxe: true, ..dhcp.clone() };
        let proxy = Answer { pxe: true, menu: true, ..answer(Asked::Bios) };
        let second = Answer { second: true, pxe: true, ..answer(Asked::Uefi) };
        type Row = (Vec<Answer>, bool, Vec<(Severity, &'static str)>);
        let other = Answer { server: Ipv4Addr::new(10, 0, 0, 67), ..proxy };
        let table: Vec<Row> = vec![
            (vec![], false, vec![(Severity::Error, "nobody gave out an address")]),
            (vec![], true, vec![(Severity::Ok, "nobody else")]),
            (vec![dhcp.clone()], false, vec![(Severity::Ok, "10.0.0.66 gives out addresses")]),
            (vec![dhcp.clone()], true, vec![(Severity::Error, "and so would this server")]),
            (
                vec![boots],
                false,
                vec![(Severity::Warning, "gives addresses and boots UEFI machines with `pxelinux.0`")],
            ),
            (vec![empty.clone()], false, vec![(Severity::Error, "option 60, PXEClient")]),
            (vec![empty, second], false, vec![(Severity::Warning, "answers PXE clients")]),
            (
                vec![dhcp, other],
                false,
                vec![
                    (Severity::Ok, "10.0.0.66 gives out"),
                    (Severity::Warning, "10.0.0.67 answers PXE clients"),
                ],
            ),
        ];
        for (answers, ours, wanted) in table {
            let found = judge(&answers, ours);
            assert_eq!(found.len(), wanted.len(), "{answers:?}: {found:?}");
            for (finding, (severity, part)) in found.iter().zip(&wanted) {
                assert!(finding.severity == *severity && finding.text.contains(part), "{part}: {finding:?}");
                assert_eq!(finding.cure.is_none(), *severity == Severity::Ok);
            }
        }
    }
}
