//! Core: everything that is wrong with a configuration: of its file alone, of flags, environment and file together, and
//! of the interface that it names. Touches nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use common::limits::DHCP_RANGE_MAX;
use ipnet::Ipv4Net;
use toml::de::DeTable;

use super::found::values;
use crate::config::{Addresses, Config, File, Flags};
use crate::dhcp4::Place;
use crate::toml_text::{Mistake, Mistakes, Severity, read};
use crate::traffic::Rate;

/// What one machine takes over the line before the image, in bits: 12 MiB.
const BOOT_BITS: u64 = (12 * 8) << 20;
/// How many seconds that may take. A machine that waits for its neighbour to boot first gives up after 90.
const BOOT_SECONDS: u64 = 80;

/// The mistakes in the file `text`, with the `flags` that stand above it, on a host whose interface has `place`, if that
/// is known. The configuration is returned if `serve` would take it.
pub fn check(
    text: &str,
    flags: Flags,
    place: impl FnOnce(&str) -> Option<Place>,
) -> (Option<Config>, Vec<Mistake>) {
    let mut mistakes = Mistakes::of(text);
    let readable = read::<File>(&mut mistakes);
    if let Some(readable) = &readable {
        values(&mut mistakes, readable);
        subnets(&mut mistakes, readable);
    }
    if mistakes.has_errors() {
        return (None, mistakes.sorted());
    }
    let merged = toml::from_str::<File>(text).ok().map(|file| Config::merge(flags, file, PathBuf::new()));
    let config = match merged {
        Some(Ok(config)) => config,
        Some(Err(fault)) => {
            mistakes.fault(None, &fault);
            return (None, mistakes.sorted());
        }
        None => return (None, mistakes.sorted()),
    };
    let place = place(&config.interface);
    together(&mut mistakes, &config);
    addresses(&mut mistakes, &config, place);
    lines(&mut mistakes, &config);
    let takes = !mistakes.has_errors();
    (takes.then_some(config), mistakes.sorted())
}

/// The first byte of the value of a setting in the file, if it is there.
fn at(text: &str, key: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    table.get_ref().iter().find(|(name, _)| name.get_ref() == key).map(|(name, _)| name.span().start)
}

/// A subnet that stands twice, at the second place.
fn subnets(mistakes: &mut Mistakes<'_>, text: &str) {
    let Ok(table) = DeTable::parse(text) else { return };
    let sites = table
        .get_ref()
        .iter()
        .find(|(name, _)| name.get_ref() == "site")
        .and_then(|(_, value)| value.get_ref().as_array());
    let mut seen: BTreeMap<Ipv4Net, String> = BTreeMap::new();
    for site in sites.into_iter().flat_map(|sites| sites.iter()).filter_map(|site| site.get_ref().as_table())
    {
        let value = |key: &str| site.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value);
        let name = value("name").and_then(|name| name.get_ref().as_str()).unwrap_or_default();
        let nets = value("subnets").and_then(|nets| nets.get_ref().as_array());
        for net in nets.into_iter().flat_map(|nets| nets.iter()) {
            let Some(subnet) = net.get_ref().as_str().and_then(|text| text.parse::<Ipv4Net>().ok()) else {
                continue;
            };
            let subnet = subnet.trunc();
            if let Some(other) = seen.insert(subnet, name.to_owned()) {
                let severity = if other == name { Severity::Warning } else { Severity::Error };
                let text = format!("{subnet} is at `{name}` and, further up, at `{other}`");
                let hint = "give each subnet to one site; a smaller subnet inside a larger one is fine";
                mistakes.add(severity, Some(net.span().start), text, Some(hint.to_owned()));
            }
        }
    }
}

/// Settings that do not go together.
fn together(mistakes: &mut Mistakes<'_>, config: &Config) {
    let text = mistakes.text;
    let api = config.api.as_ref().map(|api| ("api_port", api.port));
    let ports: Vec<(&str, u16)> =
        [("http_port", config.http_port), ("swarm_port", config.swarm_port)].into_iter().chain(api).collect();
    for (number, (key, port)) in ports.iter().enumerate() {
        if let Some((other, _)) = ports[..number].iter().find(|(_, other)| other == port) {
            let place = at(text, key).or_else(|| at(text, other));
            let hint = Some("give each a port of its own".to_owned());
            mistakes.add(Severity::Error, place, format!("{other} and {key} are both {port}"), hint);
        }
    }
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&config.log) {
        let said = format!("`{}` is no log filter: {error}", config.log.escape_debug());
        mistakes.add(
            Severity::Error,
            at(text, "log"),
            said,
            Some("write info, debug, or server::dhcp4=debug".to_owned()),
        );
    }
    if config.state.is_relative() {
        let said =
            format!("the state folder {} depends on where the server is started", config.state.display());
        mistakes.add(Severity::Warning, at(text, "state"), said, Some("name the whole path".to_owned()));
    }
    for webhook in &config.subscriptions.webhooks {
        if !webhook.url.is_tls() && !webhook.url.is_local() {
            let said = format!(
                "the webhook `{}` goes over plain http: whoever is on the way can read its events",
                webhook.name
            );
            let hint = Some("write https:// in its url; `ca_file` names an authority of your own".to_owned());
            mistakes.add(Severity::Warning, at(text, "webhook"), said, hint);
        }
    }
    if config.addresses == Addresses::Proxy {
        let of_dhcp = [
            ("router", config.router.is_some()),
            ("dns", !config.dns.is_empty()),
            ("authoritative", config.authoritative),
        ];
        for (key, is_set) in of_dhcp {
            if is_set {
                let said =
                    format!("{key} does nothing: without dhcp_range the server gives out no addresses");
                let hint = format!("set dhcp_range, or leave {key} to the DHCP server that is there");
                mistakes.add(Severity::Warning, at(text, key), said, Some(hint));
            }
        }
    }
}

/// Addresses that cannot be given out on the interface, which has `place`, if it is there.
fn addresses(mistakes: &mut Mistakes<'_>, config: &Config, place: Option<Place>) {
    let text = mistakes.text;
    let Some(place) = place else {
        let said = format!("there is no interface {} with an IPv4 address on this host", config.interface);
        let hint = "`ip -brief address` lists the interfaces and their addresses".to_owned();
        mistakes.add(Severity::Warning, at(text, "interface"), said, Some(hint));
        return;
    };
    let network = format!("{}/{} of {}", place.address, place.prefix, config.interface);
    let Addresses::Range(first, last) = config.addresses else { return };
    let range = at(text, "dhcp_range");
    let hint = || Some("choose addresses of the interface's own network".to_owned());
    if !place.reaches(first) || !place.reaches(last) {
        mistakes.add(
            Severity::Error,
            range,
            format!("the range {first}-{last} is not within {network}"),
            hint(),
        );
    } else if last.to_bits() - first.to_bits() >= DHCP_RANGE_MAX {
        mistakes.add(
            Severity::Error,
            range,
            format!("the range has more than {DHCP_RANGE_MAX} addresses"),
            hint(),
        );
    }
    let within = |address: Ipv4Addr| first <= address && address <= last;
    if within(place.address) {
        let said = format!(
            "the range has the server's own address {} in it, which is never given out",
            place.address
        );
        mistakes.add(Severity::Warning, range, said, None);
    }
    if let Some(router) = config.router.filter(|router| !place.reaches(*router)) {
        let said = format!("the router {router} is not within {network}: machines cannot reach it");
        mistakes.add(Severity::Warning, at(text, "router"), said, None);
    }
}

/// Limits that leave too little, and sites that have nobody.
fn lines(mistakes: &mut Mistakes<'_>, config: &Config) {
    let text = mistakes.text;
    let slow = |rate: Rate| BOOT_BITS / u64::from(rate).max(1);
    let mut too_slow = |key: &str, whose: String, rate: Rate| {
        if slow(rate) > BOOT_SECONDS {
            let said = format!(
                "over {whose} of {rate} one machine's boot files take {} s: machines that wait for them give up after 90",
                slow(rate)
            );
            let hint = "allow 2M or more, or stage images at a relay there".to_owned();
            mistakes.add(Severity::Warning, at(text, key), said, Some(hint));
        }
    };
    if let Some(rate) = config.limits.server {
        too_slow("limit", "the server's line".to_owned(), rate);
    }
    for (site, rate) in &config.limits.sites {
        too_slow("site", format!("the line of `{site}`"), *rate);
    }
    for (site, rate) in &config.limits.sites {
        if let Some(server) = config.limits.server.filter(|server| server < rate) {
            let said = format!("`{site}` may take {rate}, but the server sends {server} in all");
            mistakes.add(Severity::Warning, at(text, "site"), said, None);
        }
        if !config.sites.rules().iter().any(|rule| rule.site == *site) {
            let said = format!("`{site}` has no subnet: no machine is ever there");
            mistakes.add(Severity::Warning, at(text, "site"), said, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { address: Ipv4Addr::new(10, 0, 0, 1), prefix: 24 };

    fn said(text: &str) -> String {
        let (_, mistakes) = check(text, Flags::default(), |name| (name == "eth1").then_some(PLACE));
        let line = |mistake: &Mistake| {
            format!(
                "{:?} {}:{} {}\n",
                mistake.severity,
                mistake.line.unwrap_or(0),
                mistake.column.unwrap_or(0),
                mistake.text
            )
        };
        mistakes.iter().map(line).collect()
    }

    #[test]
    fn contradictions_are_named_where_they_stand() {
        let two = "[[site]]\nname = 'a'\nsubnets = ['10.2.0.0/16']\n[[site]]\nname = 'b'\nsubnets = ['10.3.0.0/16', '10.2.9.9/16']\n";
        let table = [
            ("", "Error 0:0 no network interface is named"),
            (
                "interface = 'eth1'\n[[site]]\nname='a'\nsubnets=[]\nlimit='5M'",
                "Warning 2:3 `a` has no subnet",
            ),
            (
                &format!("interface = 'eth1'\n{two}"),
                "Error 7:27 10.2.0.0/16 is at `b` and, further up, at `a`",
            ),
            ("interface = 'eth1'\nhttp_port = 4001", "Error 2:1 http_port and swarm_port are both 4001"),
            ("interface = 'eth1'\napi_port = 8069", "Error 2:1 http_port and api_port are both 8069"),
            ("interface = 'eth1'\nlog = 'a=b=c'", "Error 2:1 `a=b=c` is no log filter"),
            ("interface = 'eth1'\nrouter = '10.0.0.254'", "Warning 2:1 router does nothing"),
            (
                "interface = 'eth1'\ndhcp_range = '10.1.0.1-10.1.0.9'",
                "Error 2:1 the range 10.1.0.1-10.1.0.9 is not within 10.0.0.1/24 of eth1",
            ),
            (
                "interface = 'eth1'\ndhcp_range = '10.0.0.1-10.0.0.9'",
                "Warning 2:1 the range has the server's own address",
            ),
            (
                "interface = 'eth1'\ndhcp_range = '10.0.0.5-10.0.0.9'\nrouter = '10.9.0.1'",
                "Warning 3:1 the router 10.9.0.1",
            ),
            ("interface = 'eth2'", "Warning 1:1 there is no interface eth2"),
            ("interface = 'eth1'\nlimit = '1M'", "Warning 2:1 over the server's line of 1 Mbit/s"),
            (
                "interface = 'eth1'\nlimit = '5M'\n[[site]]\nname='a'\nsubnets=['10.9.0.0/16']\nlimit='9M'",
                "Warning 3:3 `a` may take 9 Mbit/s",
            ),
            ("interface = 'eth1'\nstate = 'here'", "Warning 2:1 the state folder here"),
            (
                "interface = 'eth1'\n[[webhook]]\nname='a'\nurl='http://a'\nsecret_file='/s'\n\
                 [[webhook]]\nname='b'\nurl='http://[::1]:9'\nsecret_file='/s'",
                "Warning 2:3 the webhook `a` goes over plain http",
            ),
            (
                "interface = 'eth1'\n[[webhook]]\nname='a'\nurl='ftp://a'\nsecret_file='/s'",
                "Error 3:1 the `url` of the webhook `a`",
            ),
            ("interface = 'eth1'\n[export]\nsyslog='x'", "Error 2:1 `syslog = \"x\"` cannot be used"),
            ("interface = 'eth1'\n[[webhook]]\nurl='http://a'", "Error 2:1 missing field `name`"),
            ("interface = 'eth1'\n[export]\njournal = true", "Error 3:1 there is no setting `journal`"),
            ("interface = 'eth1'\nlimit = '1K'", "Error 2:9 the limit `1K` makes no sense"),
        ];
        for (text, wanted) in table {
            let found = said(text);
            assert!(found.lines().count() == 1 && found.starts_with(wanted), "{text}\n{found}");
        }
        assert_eq!(said("interface = 'eth1'\ndhcp_range = '10.0.0.5-10.0.0.9'\nrouter = '10.0.0.254'"), "");
    }

    #[test]
    fn flags_stand_above_the_file_here_too() {
        let mut flags = Flags::default();
        flags.link.interface = Some("eth1".to_owned());
        flags.limit = Some("much".to_owned());
        let (config, mistakes) = check("", flags, |_| Some(PLACE));
        assert!(config.is_none());
        assert!(mistakes[0].text.contains("`much`") && mistakes[0].line.is_none(), "{mistakes:?}");
    }
}
