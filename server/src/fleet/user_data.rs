//! Core: warnings about what cloud-init will make of user-data, before it is ordered. It is passed on unchanged
//! whatever it is; but with a first line that it does not know, cloud-init ignores all of it without an error, and some
//! keys disable the call home. Events of a YAML parser are read instead of a tree, so that aliases are not expanded.
//! Touches `api`.

use std::io::Read as _;

use common::limits::{USER_DATA_BYTES_MAX, cut};
use saphyr_parser::{Event, Parser};

use crate::api::shapes::Warning;

/// First lines that cloud-init knows (its `INCLUSION_TYPES_MAP` and its templates).
const BEGINNINGS: [&str; 10] = [
    "#!",
    "#cloud-config",
    "#cloud-config-archive",
    "#cloud-config-jsonp",
    "#include",
    "#include-once",
    "#cloud-boothook",
    "#part-handler",
    "#upstart-job",
    "## template:",
];

/// cloud-init looks for the header of a MIME message in so many bytes.
const MIME_WITHIN: usize = 4096;

/// The deepest nesting of lists and mappings that is read; cloud-init's own is about ten.
const DEPTH_MAX: usize = 64;

/// The warnings about `data`. `waits` says whether the order waits for a call home.
#[must_use]
pub(super) fn warnings(data: &[u8], waits: bool) -> Vec<Warning> {
    if data.starts_with(&[0x1f, 0x8b]) {
        let mut inside = vec![];
        let most = 4 * USER_DATA_BYTES_MAX as u64;
        return match flate2::read::MultiGzDecoder::new(data).take(most).read_to_end(&mut inside) {
            Ok(_) => warnings_of_plain(&inside, waits),
            Err(error) => vec![Warning::UserDataBroken { why: format!("its gzip data is damaged: {error}") }],
        };
    }
    warnings_of_plain(data, waits)
}

fn warnings_of_plain(data: &[u8], waits: bool) -> Vec<Warning> {
    let head = String::from_utf8_lossy(&data[..data.len().min(MIME_WITHIN)]).to_lowercase();
    if data.is_empty() || head.contains("mime-version:") {
        return vec![];
    }
    let known = |text: &str| BEGINNINGS.iter().any(|beginning| text.starts_with(beginning));
    let first = || cut(String::from_utf8_lossy(data).lines().next().unwrap_or_default(), 60).to_owned();
    let exact = known(&String::from_utf8_lossy(&data[..data.len().min(64)]));
    if !exact {
        // cloud-init since 2013 strips blanks and ignores case; older versions, and other readers of NoCloud, do not.
        let always = !known(head.trim_start());
        let ignored = Warning::UserDataIgnored { first: first().escape_debug().to_string(), always };
        return if always { vec![ignored] } else { [vec![ignored], of_config(data, waits)].concat() };
    }
    of_config(data, waits)
}

fn of_config(data: &[u8], waits: bool) -> Vec<Warning> {
    let mut warnings = vec![];
    let mentions = |words: &[u8]| data.windows(words.len()).any(|window| window == words);
    if mentions(b"cloud-init.disabled") {
        warnings.push(Warning::UserDataDisables);
    }
    let head = String::from_utf8_lossy(&data[..data.len().min(64)]).trim_start().to_lowercase();
    if !head.starts_with("#cloud-config") || head.starts_with("#cloud-config-") {
        return warnings;
    }
    match config(data) {
        Err(why) => warnings.push(Warning::UserDataBroken { why }),
        Ok(config) => warnings.extend(of_words(&config, waits)),
    }
    warnings
}

fn of_words(config: &Node, waits: bool) -> Vec<Warning> {
    let mut warnings = vec![];
    if config.get("network").is_some() {
        warnings.push(Warning::UserDataNetwork);
    }
    if !waits {
        return warnings;
    }
    let vendor = config.get("vendor_data");
    let listed = |list: Option<&Node>, name: &str| list.is_some_and(|list| list.names(name));
    let handlers = vendor.and_then(|vendor| vendor.get("disabled_handlers"));
    let off = vendor.and_then(|vendor| vendor.get("enabled")).is_some_and(Node::is_false);
    let modules = config.get("cloud_final_modules");
    let runs = |name: &str| modules.is_none_or(|modules| modules.names(name));
    let script = !off && runs("scripts-vendor") && !listed(handlers, "text/x-shellscript");
    let own = config.get("phone_home").is_some();
    let phone = !off && runs("phone-home") && !own && !listed(handlers, "text/cloud-config");
    if !script && !phone {
        let by = match (off, own) {
            (true, _) => "vendor_data: {enabled: false}",
            (_, true) => "its own phone_home, and no vendor scripts",
            (false, false) => "cloud_final_modules without scripts-vendor and phone-home",
        };
        warnings.push(Warning::CallHomeOff { by: by.to_owned() });
    } else if !script {
        warnings.push(Warning::CallHomeBare);
    }
    warnings
}

/// A YAML node. Only whether an alias is there is kept, not what it stands for.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Alias,
}

impl Node {
    /// The value of a key in a mapping; of several equal keys the last counts, as in `PyYAML`.
    fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().rev().find(|(name, _)| matches!(name, Self::Text(name) if name == key)).map(|(_, v)| v)
    }

    /// Whether a list has the entry `name`, or a list that begins with it (then arguments follow). As in cloud-init,
    /// `_` is the same as `-`. An alias is taken to have it.
    fn names(&self, name: &str) -> bool {
        let Self::List(entries) = self else { return matches!(self, Self::Alias) };
        let is = |node: &Self| matches!(node, Self::Text(text) if text.replace('_', "-") == name);
        entries.iter().any(|entry| match entry {
            Self::List(inner) => inner.first().is_some_and(is),
            entry => is(entry),
        })
    }

    fn is_false(&self) -> bool {
        matches!(self, Self::Text(text)
            if ["false", "no", "off", "0", "null", "~", ""].contains(&text.to_lowercase().as_str()))
    }
}

/// The mapping in `data`, or why `PyYAML` would not read it.
fn config(data: &[u8]) -> Result<Node, String> {
    let text =
        std::str::from_utf8(data).map_err(|error| format!("byte {} is not UTF-8", error.valid_up_to()))?;
    let odd = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    if let Some((at, c)) = text.char_indices().find(|(_, c)| odd(*c)) {
        return Err(format!("byte {at} is the control character {}", c.escape_debug()));
    }
    let mut parser = Parser::new_from_str(text);
    let (mut open, mut documents): (Vec<(Node, Option<Node>)>, u32) = (vec![], 0);
    let mut root = None;
    while let Some(event) = parser.next_event() {
        let (event, _) = event.map_err(|error| error.to_string())?;
        let done = match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err("it holds several documents".to_owned());
                }
                continue;
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= DEPTH_MAX => {
                return Err(format!("it is nested more than {DEPTH_MAX} deep"));
            }
            Event::SequenceStart(..) => {
                open.push((Node::List(vec![]), None));
                continue;
            }
            Event::MappingStart(..) => {
                open.push((Node::Map(vec![]), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(|(node, _)| node),
            Event::Scalar(text, ..) => Some(Node::Text(text.into_owned())),
            Event::Alias(_) => Some(Node::Alias),
            _ => None,
        };
        let Some(node) = done else { continue };
        match open.last_mut() {
            None => root = Some(node),
            Some((Node::List(entries), _)) => entries.push(node),
            Some((Node::Map(entries), key)) => match key.take() {
                None => *key = Some(node),
                Some(name) => entries.push((name, node)),
            },
            Some(_) => {}
        }
    }
    match root {
        None => Ok(Node::Map(vec![])),
        Some(Node::Text(text)) if text.is_empty() || text == "~" || text == "null" => Ok(Node::Map(vec![])),
        Some(map @ Node::Map(_)) => Ok(map),
        Some(_) => Err("it is no mapping of keys".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn words(data: &[u8]) -> Vec<String> {
        let word = |warning: &Warning| {
            let value = serde_json::to_value(warning).unwrap();
            format!(
                "{}{}",
                value["warning"].as_str().unwrap(),
                if warning.stops().is_some() { "!" } else { "" }
            )
        };
        warnings(data, true).iter().map(word).collect()
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
        packed.write_all(data).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn d6_first_lines() {
        let ignored: &[&str] = &["user-data-ignored"];
        let table: Vec<(&[u8], &[&str])> = vec![
            (b"#cloud-config\n{}\n", &[]),
            (b"#cloud-config\r\nhostname: a\r\n", &[]),
            (b"#!/bin/sh\necho\n", &[]),
            (b"#include\nhttp://a/b\n", &[]),
            (b"#cloud-boothook\n#!/bin/sh\n", &[]),
            (b"#part-handler\nimport x\n", &[]),
            (b"#cloud-config-archive\n- content: a\n", &[]),
            (b"## template: jinja\n#cloud-config\nname: {{ v1.name }}\n", &[]),
            (b"Content-Type: multipart/mixed\nMIME-Version: 1.0\n", &[]),
            (b"", &[]),
            (b"\n#cloud-config\n{}\n", ignored),
            (b" #cloud-config\n{}\n", ignored),
            (b"\xef\xbb\xbf#cloud-config\n{}\n", ignored),
            (b"#Cloud-Config\n{}\n", ignored),
            (b"# cloud-config\n{}\n", ignored),
            (b"hostname: a\n", ignored),
            (b"{\"ignition\":{\"version\":\"3.4.0\"}}", ignored),
            (b"\0\0\0", ignored),
            (b"#ignition", ignored),
            (b"\x1f\x8bgarbage", &["user-data-broken"]),
        ];
        for (data, wanted) in table {
            assert_eq!(words(data), wanted, "{}", String::from_utf8_lossy(data));
        }
        assert!(words(&gzip(b"#cloud-config\n{}\n")).is_empty());
        assert_eq!(words(&gzip(b"hostname: a\n")), ignored);
        assert_eq!(words(&gzip(b"#cloud-config\nvendor_data: {enabled: false}\n")), ["call-home-off!"]);
    }

    #[test]
    fn d5_what_switches_the_call_home_off() {
        let config = |text: &str| words(format!("#cloud-config\n{text}").as_bytes());
        let off: &[&str] = &["call-home-off!"];
        let table: Vec<(&str, &[&str])> = vec![
            ("vendor_data: {enabled: false}\n", off),
            ("vendor_data:\n  enabled: no\n", off),
            ("vendor_data: {enabled: true}\n", &[]),
            ("vendor_data: {prefix: /usr/bin/nice}\n", &[]),
            ("phone_home: {url: 'http://a/'}\n", &[]),
            ("cloud_final_modules: [scripts-user]\n", off),
            ("cloud_final_modules:\n- scripts_vendor\n- scripts-user\n", &[]),
            ("cloud_final_modules: [[scripts-vendor, always], phone-home]\n", &[]),
            ("cloud_final_modules: [phone-home]\n", &["call-home-bare"]),
            ("cloud_final_modules: [phone-home]\nphone_home: {url: x}\n", off),
            ("vendor_data: {disabled_handlers: [text/x-shellscript, text/cloud-config]}\n", off),
            ("power_state: {mode: poweroff}\n", &[]),
            ("network: {config: disabled}\n", &["user-data-network"]),
            ("runcmd: [touch /etc/cloud/cloud-init.disabled]\n", &["user-data-disables"]),
        ];
        for (text, wanted) in table {
            assert_eq!(config(text), wanted, "{text}");
        }
        let text = b"#cloud-config\nvendor_data: {enabled: false}\n";
        assert!(warnings(text, false).is_empty(), "--no-confirm: nobody waits for a call");
    }

    #[test]
    fn d5_what_is_no_yaml() {
        let bomb = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(900), "*a,".repeat(9000));
        for text in [
            "hostname: [a\n",
            "a: b: c\n",
            "runcmd:\n\t- a\n",
            "name: a\0b\n",
            "- a\n- b\n",
            "a: 1\n---\nb: 2\n",
            "name: M\u{fc}ller\n",
            &format!("a: {}", "[".repeat(5000)),
            &bomb,
        ] {
            let is_good = text.contains("ller") || text == bomb;
            let said = words(format!("#cloud-config\n{text}").as_bytes());
            assert_eq!(said, if is_good { vec![] } else { vec!["user-data-broken"] }, "{}", cut(text, 60));
        }
        assert_eq!(words(b"#cloud-config\nname: M\xfcller\n"), ["user-data-broken"]);
    }

    #[test]
    fn what_is_said_names_the_place() {
        let said = warnings(b"#cloud-config\nhostname: [a\n", true)[0].to_string();
        assert!(said.contains("line"), "{said}");
        let said = warnings(b"\xef\xbb\xbf#cloud-config\n", true)[0].to_string();
        assert!(said.contains("u{feff}") && said.contains("takes nothing of it"), "{said}");
    }
}
