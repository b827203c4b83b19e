//! Core: what holds of the configuration, and where each value comes from. Touches nothing.

use serde::Serialize;

use super::template::{SERVER, settings};
use crate::subscribers::WebhookUrl;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// The configuration file.
    File,
    /// Nobody set it.
    Default,
}

/// A setting with the value that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Its name in the configuration file; `site.branch.limit` for a part of a table.
    pub key: String,
    /// The value; none where it has no default and nobody set it. A secret is not shown.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: Source,
}

/// Parts of names that are secrets.
const SECRET: [&str; 4] = ["secret", "password", "token", "invite"];

/// What a secret is shown as.
const HIDDEN: &str = "(set, not shown)";

/// Every setting, in the order of the commented configuration file. `file` is what was read of the configuration file,
/// `given` a setting's value from flag or environment.
#[must_use]
pub fn held(file: &toml::Table, given: impl Fn(&str) -> Option<(String, Source)>) -> Vec<Held> {
    let mut all: Vec<Held> = vec![];
    for setting in settings(SERVER) {
        let key = setting.key.clone();
        // What stands in a table has no default; it is shown below, as far as the file has some.
        if key.contains('.') || key.starts_with('[') {
            continue;
        }
        if let Some((value, source)) = given(&key) {
            all.push(hold(key, value, source));
        } else if let Some(value) = file.get(&key) {
            parts(&key, value, &mut all);
        } else if setting.is_default {
            let value = setting.value.parse::<toml::Value>().map_or(setting.value, |value| shown(&value));
            all.push(hold(key, value, Source::Default));
        } else {
            all.push(Held { key, value: None, source: Source::Default });
        }
    }
    let known: Vec<String> = settings(SERVER).into_iter().map(|setting| setting.key).collect();
    for (key, value) in file {
        if !known.contains(key) {
            parts(key, value, &mut all);
        }
    }
    all
}

fn hold(key: String, value: String, source: Source) -> Held {
    let last = key.rsplit('.').next().unwrap_or_default();
    // Where a secret is is none.
    let is_place = ["_file", "_credential"].iter().any(|end| last.ends_with(end));
    let is_secret = !is_place && SECRET.iter().any(|part| last.contains(part));
    let value = if is_secret {
        HIDDEN.to_owned()
    } else if key.starts_with("webhook.") && last == "url" {
        // Chats have a secret in the path or the query.
        value.parse::<WebhookUrl>().map_or_else(|_| HIDDEN.to_owned(), |url| format!("{url}/…"))
    } else {
        value
    };
    Held { key, value: Some(value), source }
}

/// A table's parts, each by itself; a table of an array is called by its name, or its place.
fn parts(key: &str, value: &toml::Value, all: &mut Vec<Held>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                parts(&format!("{key}.{name}"), value, all);
            }
        }
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            for (place, item) in items.iter().enumerate() {
                let name = item.get("name").and_then(toml::Value::as_str);
                let name =
                    name.map_or_else(|| (place + 1).to_string(), |name| name.escape_debug().to_string());
                parts(&format!("{key}.{name}"), item, all);
            }
        }
        _ => all.push(hold(key.to_owned(), shown(value), Source::File)),
    }
}

/// A value as it would be typed behind a flag.
fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_source_and_no_secret_is_shown() {
        let file = "http_port = 80\nlimit = '5M'\ndns = ['10.0.0.1', '10.0.0.2']\n[[site]]\nname = 'branch'\nlimit = '2M'\n\
                    [[webhook]]\nsecret = 'hush'\nsecret_file = '/etc/s'\nurl = 'https://a.example/hush?x=hush'\n\
                    [[webhook]]\nname = 'b'\nurl = 'https://me:hush@a/'\n[api]\ntoken = 'hush'";
        let given = |key: &str| match key {
            "limit" => Some(("9M".to_owned(), Source::Flag)),
            "interface" => Some(("eth1".to_owned(), Source::Environment)),
            _ => None,
        };
        let all = held(&toml::from_str(file).unwrap(), given);
        let of = |key: &str| {
            let held = all.iter().find(|held| held.key == key).unwrap_or_else(|| panic!("{key}: {all:?}"));
            (held.value.as_deref(), held.source)
        };
        assert_eq!(of("interface"), (Some("eth1"), Source::Environment));
        assert_eq!(of("limit"), (Some("9M"), Source::Flag));
        assert_eq!(of("http_port"), (Some("80"), Source::File));
        assert_eq!(of("dns"), (Some("10.0.0.1,10.0.0.2"), Source::File));
        assert_eq!(of("swarm_port"), (Some("4001"), Source::Default));
        assert_eq!(of("log"), (Some("info"), Source::Default));
        assert_eq!(of("router"), (None, Source::Default));
        assert_eq!(of("site.branch.limit"), (Some("2M"), Source::File));
        assert_eq!(of("webhook.1.secret"), (Some(HIDDEN), Source::File));
        assert_eq!(of("webhook.1.secret_file"), (Some("/etc/s"), Source::File));
        assert_eq!(of("webhook.1.url"), (Some("https://a.example/…"), Source::File));
        assert_eq!(of("webhook.b.url"), (Some(HIDDEN), Source::File));
        assert_eq!(of("api.token"), (Some(HIDDEN), Source::File));
        assert!(!format!("{all:?}").contains("hush"));
    }
}
