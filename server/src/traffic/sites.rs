//! Core: which address is at which site. The one rule for that: the fleet, the counts and the limits all ask it.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

/// A subnet whose machines are at one site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRule {
    /// If several subnets contain an address, the one with the longest prefix decides its site.
    pub subnet: Ipv4Net,
    /// The name of that site.
    pub site: String,
}

/// The subnets that the configuration gives to sites; an address in none of them is at a site named after its /24.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sites(Vec<SiteRule>);

impl From<Vec<SiteRule>> for Sites {
    fn from(rules: Vec<SiteRule>) -> Self {
        Self(rules)
    }
}

impl Sites {
    /// The site of an address. One that is not IPv4 reached the server without a router in between.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> String {
        match address.to_canonical() {
            IpAddr::V4(address) => self.of_v4(address),
            IpAddr::V6(_) => "local".to_owned(),
        }
    }

    fn of_v4(&self, address: Ipv4Addr) -> String {
        let inside = self.0.iter().filter(|rule| rule.subnet.contains(&address));
        // The longest prefix is the most specific.
        let named = inside.max_by_key(|rule| rule.subnet.prefix_len());
        let [a, b, c, _] = address.octets();
        named.map_or_else(|| format!("{a}.{b}.{c}.0/24"), |rule| rule.site.clone())
    }

    /// The rules, in the order of the configuration.
    #[must_use]
    pub fn rules(&self) -> &[SiteRule] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_particular_subnet_names_the_site() {
        let rule =
            |subnet: &str, site: &str| SiteRule { subnet: subnet.parse().unwrap(), site: site.to_owned() };
        let sites = Sites::from(vec![rule("10.1.0.0/16", "campus"), rule("10.1.2.0/24", "lab")]);
        let table = [
            ("10.1.2.9", "lab"),
            ("10.1.3.9", "campus"),
            ("10.2.3.9", "10.2.3.0/24"),
            ("::ffff:10.1.2.9", "lab"),
            ("fe80::1", "local"),
        ];
        for (address, site) in table {
            assert_eq!(sites.of(address.parse().unwrap()), site);
        }
    }
}
