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

/// The commented file has every setting, means the defaults where it says so, and can be taken as it is.
#[test]
fn the_commented_configuration_is_whole_and_true() {
    use super::template::{SERVER, fields, in_force, settings};
    assert_eq!(
        merged(flags(), SERVER).unwrap(),
        merged(flags(), "").unwrap(),
        "commented out it changes nothing"
    );
    let defaults = merged(flags(), &in_force(SERVER, true)).unwrap();
    assert_eq!(defaults, merged(flags(), "").unwrap(), "what it calls defaults are the defaults");
    merged(flags(), &in_force(SERVER, false)).unwrap();
    let keys: Vec<String> = settings(SERVER).into_iter().map(|setting| setting.key).collect();
    let fields = fields::<File>();
    assert!(fields.len() > 15, "{fields:?}");
    for field in &fields {
        let tables = [format!("[[{field}]]"), format!("[{field}]")];
        let is_there = keys.contains(field) || tables.iter().any(|table| keys.contains(table));
        assert!(
            is_there,
            "server/packaging/swarmboot.toml lacks `{field}`: add it with its meaning and default"
        );
    }
    for key in keys.iter().filter(|key| !key.contains('.')) {
        let key = key.trim_matches(['[', ']']);
        assert!(
            fields.iter().any(|field| field == key),
            "server/packaging/swarmboot.toml has `{key}`, which nothing reads"
        );
    }
}

/// The manual's page of settings, made from the commented file and the flags.
#[test]
fn the_page_of_settings_is_what_is_read() {
    use std::fmt::Write as _;

    use clap::Args as _;

    use super::template::{SERVER, settings};
    let command = Flags::augment_args(clap::Command::new("serve"));
    let mut page = "# Settings\n\nEvery setting of `/etc/swarmboot/swarmboot.toml`. A flag of `swarmboot serve` stands above the \
                    environment, and that above the file. `swarmboot config check` finds mistakes; `swarmboot config show` \
                    tells what holds, and why. This page is made from the commented file, \
                    `server/packaging/swarmboot.toml`.\n"
        .to_owned();
    for setting in settings(SERVER) {
        let flag = command.get_arguments().find(|arg| {
            let long = arg.get_long().unwrap_or_default().replace('-', "_");
            long == setting.key || long == format!("no_{}", setting.key)
        });
        write!(page, "\n## {}\n\n{}\n\n", setting.key, setting.about).unwrap();
        if !setting.value.is_empty() {
            let what = if setting.is_default { "Default" } else { "Example" };
            writeln!(page, "- {what}: `{}`", setting.value).unwrap();
        }
        if let Some(flag) = flag {
            writeln!(page, "- Flag: `--{}`", flag.get_long().unwrap()).unwrap();
            if let Some(env) = flag.get_env() {
                writeln!(page, "- Environment: `{}`", env.to_string_lossy()).unwrap();
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    if std::env::var_os("SWARMBOOT_UPDATE").is_some() {
        std::fs::write(path, page).unwrap();
        return;
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(there == page, "server/docs/settings.md is not what the program reads: SWARMBOOT_UPDATE=1");
}
