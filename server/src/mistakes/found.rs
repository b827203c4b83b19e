//! Core: the mistakes in a configuration file, each with its place: all that can be found at once, and not only the first
//! that would stop `serve`. Touches nothing.

use std::path::PathBuf;

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::{Config, File, Flags};
use crate::toml_text::Mistakes;

/// Tries each setting of `text` by itself, so that each wrong value is found and has its place.
pub(super) fn values(mistakes: &mut Mistakes<'_>, text: &str) {
    let (Ok(table), Ok(plain)) = (DeTable::parse(text), toml::from_str::<toml::Table>(text)) else { return };
    for (key, value) in table.get_ref() {
        let Some(own) = plain.get(&**key.get_ref()) else { continue };
        let tries: Vec<(usize, toml::Value)> = match (value.get_ref(), own) {
            (DeValue::Array(places), toml::Value::Array(items))
                if items.iter().any(toml::Value::is_table) =>
            {
                let places = places.iter().map(inside);
                places.zip(items).map(|(place, item)| (place, vec![item.clone()].into())).collect()
            }
            _ => vec![(value.span().start, own.clone())],
        };
        for (at, value) in tries {
            let one = toml::Table::from_iter([(key.get_ref().to_string(), value)]);
            let Ok(file) = File::deserialize(one) else { continue };
            let mut flags = Flags::default();
            flags.link.interface = Some("lo".to_owned());
            if let Err(fault) = Config::merge(flags, file, PathBuf::new()) {
                mistakes.fault(Some(at), &fault);
            }
        }
    }
}

/// Where a table of an array begins: at its first key, since its header may be anywhere before.
fn inside(table: &Spanned<DeValue<'_>>) -> usize {
    let keys = table.get_ref().as_table().into_iter().flatten().map(|(key, _)| key.span().start);
    keys.min().unwrap_or_else(|| table.span().start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml_text::{Mistake, read};

    fn found(text: &str) -> Vec<(usize, usize, String)> {
        let mut mistakes = Mistakes::of(text);
        if let Some(read) = read::<File>(&mut mistakes) {
            values(&mut mistakes, &read);
        }
        let place = |mistake: Mistake| {
            let hint = mistake.hint.unwrap_or_default();
            (mistake.line.unwrap_or(0), mistake.column.unwrap_or(0), format!("{} {hint}", mistake.text))
        };
        mistakes.found.into_iter().map(place).collect()
    }

    #[test]
    fn every_mistake_has_its_place() {
        let text = "interfaces = 'eth1'\nhttp-port = 'x'\nswarm_port = 'y'\n  dns = ['10.0.0.1', 'dns']\nboot_peers = 'yes'\n\
                    limit = 'much'\n[[site]]\nname = 'a'\nsubnet = []\nsubnets = []\n[[site]]\nname = ''\nsubnets = []\n";
        let found = found(text);
        let has = |line, column, part: &str| {
            assert!(
                found.iter().any(|(l, c, said)| (*l, *c) == (line, column) && said.contains(part)),
                "{line}:{column} {part}: {found:#?}"
            );
        };
        has(1, 1, "no setting `interfaces` did you mean `interface`?");
        has(2, 1, "did you mean `http_port`?");
        has(3, 14, "invalid type: string \"y\"");
        has(4, 22, "IPv4");
        has(5, 14, "`verified`, `any`, `off`");
        has(6, 9, "`much`");
        has(9, 1, "did you mean `subnets`?");
        has(12, 1, "no name for a site");
        assert_eq!(found.len(), 8, "{found:#?}");
    }

    #[test]
    fn what_is_no_toml_is_said_once() {
        for text in [
            "interface eth1",
            "a = {b = 1, b = 2}",
            "[[site]\n",
            "\u{feff}",
            "x = \"",
            "dns = [\n",
            "[site]\n",
            "é",
        ] {
            let found = found(text);
            assert!(found.len() <= 2, "{text}: {found:?}");
        }
        assert_eq!(found("# nothing\n"), []);
        assert_eq!(found("interface = 'eth1'\nrouter = '10.0.0.1'\n"), []);
    }
}
