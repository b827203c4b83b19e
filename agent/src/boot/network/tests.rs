//! Tests of the lines shown while nobody answers; and of an interface that was tried without success, in a network
//! namespace (needs root; without it that test says so and passes).

use std::process::Command;

use super::*;

/// Set in the process that this test starts inside the network namespace.
const INSIDE: &str = "SWARMBOOT_TEST_NAMESPACE";

fn asking(link: bool) -> Asking {
    Asking { link, ..Asking::new("eth0".to_owned(), Mac([2, 0, 0, 0, 0, 1]), 0) }
}

#[test]
fn silence_has_another_likely_cause_after_a_minute() {
    let early = patience(&asking(true), 30_000);
    assert!(early.contains("spanning tree") && !early.contains("VLAN"), "{early}");
    let late = patience(&asking(true), 60_000);
    assert!(late.contains("tagged VLAN") && late.contains("60 s"), "{late}");
    assert!(patience(&asking(false), 60_000).contains("no link"));
}

fn ip(line: &str) -> String {
    let output = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn lease(last: u8) -> Lease {
    Lease {
        address: Ipv4Addr::new(10, 77, 0, last),
        prefix: 24,
        router: Some(Ipv4Addr::new(10, 77, 0, 254)),
        server: Ipv4Addr::new(10, 77, 0, 1),
        since_ms: 0,
        seconds: 600,
        renew_s: 300,
        rebind_s: 525,
    }
}

#[test]
fn nothing_is_left_of_an_interface_that_was_tried_in_vain() {
    if std::env::var_os(INSIDE).is_none() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not root, so there is no namespace to try it in");
            return;
        }
        let name = "boot::network::tests::nothing_is_left_of_an_interface_that_was_tried_in_vain";
        let mut command = Command::new("unshare");
        command.arg("-n").arg(std::env::current_exe().unwrap()).args(["--exact", name]).env(INSIDE, "1");
        let done = command.output().unwrap();
        let said =
            String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    // Two cables whose networks have one prefix: a BMC's own, which answers first, and the server's (E7).
    for cable in ["bmc", "net"] {
        ip(&format!("link add {cable} type veth peer name {cable}0"));
        ip(&format!("link set {cable}0 up"));
        ip(&format!("link set {cable} up"));
    }
    let links = Links::open().unwrap();
    links.configure("bmc", &lease(50)).unwrap();
    let routes = ip("-4 route");
    assert!(routes.contains("default via 10.77.0.254 dev bmc"), "{routes}");
    links.deconfigure("bmc", &lease(50)).unwrap();
    assert_eq!(ip("-4 route"), "");
    links.configure("net", &lease(187)).unwrap();
    let routes = ip("-4 route");
    assert!(!routes.contains("bmc") && routes.contains("default via 10.77.0.254 dev net"), "{routes}");
    assert!(ip("-4 route get 10.77.0.1").contains("dev net src 10.77.0.187"));
    assert!(!ip("-4 addr show dev bmc").contains("inet"));
    links.deconfigure("bmc", &lease(50)).unwrap();
}
