//! Tests of the configuration: what a flag and a file say, together and alone.

use super::*;

fn flags() -> Flags {
    on(LinkFlags::default())
}

fn on(link: LinkFlags) -> Flags {
    Flags { link: LinkFlags { interface: Some("eth1".to_owned()), ..link }, ..Flags::default() }
}

fn merged(flags: Flags, file: &str) -> Result<Config, Fault> {
    Config::merge(flags, toml::from_str(file).unwrap(), PathBuf::from("s"))
}

#[test]
fn harmless_unless_a_range_is_given() {
    let config = merged(flags(), "").unwrap();
    assert_eq!(config.addresses, Addresses::Proxy);
    let config = merged(flags(), "dhcp_range = '10.0.0.5-10.0.0.9'").unwrap();
    assert_eq!(config.addresses, Addresses::Range([10, 0, 0, 5].into(), [10, 0, 0, 9].into()));
    let proxy = on(LinkFlags { proxy_dhcp: true, ..LinkFlags::default() });
    assert_eq!(merged(proxy, "dhcp_range = '10.0.0.5-10.0.0.9'").unwrap().addresses, Addresses::Proxy);
}

#[test]
fn nobody_is_refused_unless_that_is_asked_for() {
    assert!(!merged(flags(), "").unwrap().authoritative);
    assert!(merged(flags(), "authoritative = true").unwrap().authoritative);
    assert!(merged(on(LinkFlags { authoritative: true, ..LinkFlags::default() }), "").unwrap().authoritative);
}

#[test]
fn a_flag_stands_above_the_file() {
    let given = Flags { http_port: Some(1), ..flags() };
    assert_eq!(merged(given, "http_port = 2").unwrap().http_port, 1);
    assert_eq!(merged(flags(), "http_port = 2").unwrap().http_port, 2);
}

#[test]
fn a_site_has_subnets_and_a_limit() {
    let text = "limit = '100M'\n[[site]]\nname = 'branch'\nsubnets = ['10.2.0.7/24', '10.3.0.0/16']\n\
                limit = '20M'\n[[site]]\nname = 'lab'\nsubnets = []";
    let config = merged(flags(), text).unwrap();
    let subnets: Vec<String> = config.sites.rules().iter().map(|rule| rule.subnet.to_string()).collect();
    assert_eq!(subnets, ["10.2.0.0/24", "10.3.0.0/16"]);
    let shown = |rate: &Rate| rate.to_string();
    assert_eq!(config.limits.server.as_ref().map(shown).as_deref(), Some("100 Mbit/s"));
    assert_eq!(config.limits.sites.get("branch").map(shown).as_deref(), Some("20 Mbit/s"));
    let given = Flags { limit: Some("50M".to_owned()), ..flags() };
    assert_eq!(merged(given, text).unwrap().limits.server.as_ref().map(shown).unwrap(), "50 Mbit/s");
    for wrong in [
        "limit = 'much'",
        "[[site]]\nname = ''\nsubnets = []",
        "[[site]]\nname = 'a'\nsubnets = ['10.0.0.0/8']\n[[site]]\nname = 'b'\nsubnets = ['10.0.0.0/8']",
    ] {
        assert!(merged(flags(), wrong).is_err(), "{wrong}");
    }
    assert!(toml::from_str::<File>("[[site]]\nname = 'a'\nsubnets = ['10.0.0.0/40']").is_err());
}

#[test]
fn neighbours_are_trusted_only_when_that_is_asked_for() {
    assert_eq!(merged(flags(), "").unwrap().boot_peers, BootPeers::Verified);
    assert_eq!(merged(flags(), "boot_peers = 'any'").unwrap().boot_peers, BootPeers::Any);
    assert_eq!(merged(flags(), "boot_peers = 'off'").unwrap().boot_peers, BootPeers::Off);
    let wrong = toml::from_str::<File>("boot_peers = 'yes'").unwrap_err().to_string();
    assert!(wrong.contains("`verified`, `any`, `off`"), "{wrong}");
}

#[test]
fn what_is_kept_has_bounds_that_can_be_set() {
    let config = merged(flags(), "").unwrap();
    assert_eq!(config.keep_events, Some(SignedDuration::from_hours(400 * 24)));
    assert_eq!((config.keep_bytes, config.reserve_bytes), (Some(4 << 30), 256 << 20));
    assert_eq!(config.connections_per_address, 64);
    let text = "keep_events = 'forever'\nkeep_events_size = '64M'\ndisk_reserve = '0'\nconnections_per_address = 500";
    let config = merged(flags(), text).unwrap();
    assert_eq!((config.keep_events, config.keep_bytes, config.reserve_bytes), (None, Some(64 << 20), 0));
    assert_eq!(config.connections_per_address, 500);
    for wrong in [
        "keep_events = '400'",
        "keep_events_size = '1K'",
        "disk_reserve = 'much'",
        "connections_per_address = 0",
    ] {
        assert!(merged(flags(), wrong).is_err(), "{wrong}");
    }
}

#[test]
fn orders_live_a_week_unless_told_otherwise() {
    let hours =
        |flags: Flags, file: &str| merged(flags, file).unwrap().order_expires.map(|life| life.as_hours());
    assert_eq!(hours(flags(), ""), Some(168));
    assert_eq!(hours(flags(), "order_expires = '12h'"), Some(12));
    assert_eq!(hours(flags(), "order_expires = 'never'"), None);
    let given = Flags { order_expires: Some("1d".to_owned()), ..flags() };
    assert_eq!(hours(given, "order_expires = 'never'"), Some(24));
    for wrong in ["order_expires = 'soon'", "order_expires = '99999999999999d'"] {
        assert!(merged(flags(), wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_life_has_an_end_or_none() {
    let table = [("7d", Some(604_800)), ("90s", Some(90)), ("never", None), ("0", None), ("0s", None)];
    for (text, wanted) in table {
        assert_eq!(lifetime(text).unwrap(), wanted, "{text}");
    }
    for wrong in ["", "d", "-1d", "7", "7w", "4000d", "99999999999999999999d", "é"] {
        assert!(lifetime(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn nonsense_is_refused() {
    assert!(Config::merge(Flags::default(), File::default(), PathBuf::new()).is_err());
    for range in ["10.0.0.1", "10.0.0.9-10.0.0.1", "a-b", ""] {
        let given = on(LinkFlags { dhcp_range: Some(range.to_owned()), ..LinkFlags::default() });
        assert!(merged(given, "").is_err(), "{range}");
    }
    assert!(merged(Flags { http_port: Some(0), ..flags() }, "").is_err());
    for arguments in ["a\nb", "a||b"] {
        assert!(merged(Flags { kernel_args: Some(arguments.to_owned()), ..flags() }, "").is_err());
    }
    assert!(toml::from_str::<File>("interfaces = 'eth1'").is_err());
}
