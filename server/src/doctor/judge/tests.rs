//! One fact changed at a time, and the finding about it.

use std::net::Ipv4Addr;

use super::*;

fn well() -> Facts {
    let port = |protocol, number| Port {
        protocol,
        number,
        purpose: "x",
        holders: vec![],
        opens: Some(true),
        passes: Some(Passes::Yes),
    };
    Facts {
        root: true,
        gives_addresses: true,
        link: Link {
            name: Some("eth1".to_owned()),
            address: Some((Ipv4Addr::new(10, 0, 0, 1), 24)),
            carrier: Some(true),
            mtu: Some(1500),
            ..Link::default()
        },
        answers: Some(Ok(vec![])),
        ports: vec![port("udp", 67), port("tcp", 8069)],
        kit: Kit::There {
            name: "k".to_owned(),
            programs: vec!["snponly.efi".to_owned(), "undionly.kpxe".to_owned()],
            warnings: vec![],
        },
        host: Host {
            year: 2027,
            synchronised: Some(true),
            free: Some(1 << 40),
            memory: Some(1 << 33),
            files: Some(1 << 20),
            ..Host::default()
        },
        ..Facts::default()
    }
}

#[test]
fn a_host_that_is_well_is_said_to_be() {
    let found = judge(&well());
    assert!(
        found.iter().all(|finding| finding.severity == Severity::Ok && finding.cure.is_none()),
        "{found:#?}"
    );
    let topics = [
        "server",
        "interface",
        "other servers",
        "ports",
        "firewall",
        "boot kit",
        "clock",
        "space",
        "memory",
        "open files",
    ];
    for topic in topics {
        assert!(found.iter().any(|finding| finding.topic == topic), "{topic}");
    }
}

/// One fact is changed in each row; the finding about it has that severity, words and a cure.
#[test]
fn each_fact_that_is_wrong_is_found() {
    type Change = fn(&mut Facts);
    let table: [(Change, Severity, &str); 22] = [
        (|facts| facts.server = Some(vec!["no kit".to_owned()]), Severity::Warning, "no kit"),
        (|facts| facts.link.name = None, Severity::Error, "none is named"),
        (|facts| facts.link.address = None, Severity::Error, "no interface eth1"),
        (|facts| facts.link.carrier = Some(false), Severity::Error, "no cable"),
        (|facts| facts.link.mtu = Some(1400), Severity::Warning, "MTU of 1400"),
        (|facts| facts.link.mtu = Some(9000), Severity::Warning, "MTU of 9000"),
        (|facts| facts.link.parts.push(("eth7".to_owned(), 1400)), Severity::Error, "eth7, a part of eth1"),
        (|facts| facts.answers = Some(Err("no rights".to_owned())), Severity::Unknown, "no rights"),
        (|facts| facts.gives_addresses = false, Severity::Error, "nobody gave out an address"),
        (
            |facts| {
                (facts.ports[0].holders, facts.ports[0].opens) =
                    (vec!["dnsmasq (7)".to_owned()], Some(false));
            },
            Severity::Error,
            "taken by dnsmasq (7)",
        ),
        (|facts| facts.ports[0].passes = Some(Passes::No), Severity::Error, "udp 67"),
        (|facts| facts.ports[1].passes = Some(Passes::Unknown), Severity::Unknown, "tcp 8069"),
        (|facts| facts.ports[1].passes = None, Severity::Unknown, "could not be read"),
        (|facts| facts.kit = Kit::None, Severity::Error, "none to boot"),
        (|facts| facts.kit = Kit::Damaged("gone".to_owned()), Severity::Error, "gone"),
        (
            |facts| {
                if let Kit::There { programs, .. } = &mut facts.kit {
                    programs.remove(0);
                }
            },
            Severity::Warning,
            "no boot program for UEFI",
        ),
        (
            |facts| facts.undriven.push(("m1".to_owned(), "pci:1".to_owned())),
            Severity::Warning,
            "pci:1 of m1",
        ),
        (|facts| facts.host.year = 1970, Severity::Error, "it is 1970"),
        (|facts| facts.host.free = Some(1), Severity::Error, "only 1 B"),
        (
            |facts| facts.host.foreign_owner = Some(("root".into(), "swarmboot".into())),
            Severity::Error,
            "belongs to root",
        ),
        (|facts| facts.host.files = Some(1024), Severity::Warning, "1024"),
        (
            |facts| facts.host.closed_kernels.push("/boot/vmlinuz-1".into()),
            Severity::Warning,
            "/boot/vmlinuz-1",
        ),
    ];
    for (change, severity, part) in table {
        let mut facts = well();
        change(&mut facts);
        let found = judge(&facts);
        let wrong: Vec<_> = found.iter().filter(|finding| finding.severity != Severity::Ok).collect();
        assert!(wrong.len() == 1, "{part}: {wrong:#?}");
        assert!(wrong[0].severity == severity && wrong[0].text.contains(part), "{part}: {:?}", wrong[0]);
        assert!(wrong[0].cure.is_some(), "{part}");
    }
}

#[test]
fn our_own_ports_and_shared_ones_are_well() {
    let mut facts = well();
    facts.ports[0].holders = vec!["swarmboot (9)".to_owned()];
    (facts.ports[1].holders, facts.ports[1].opens) = (vec!["dnsmasq (7)".to_owned()], Some(true));
    assert!(judge(&facts).iter().all(|finding| finding.severity == Severity::Ok));
}
