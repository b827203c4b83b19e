//! Core: the TOML text of a profile: what it says, and every mistake in it with its place. Touches `api`, `common`, the
//! tailor's disk rule and the other cores of the fleet.

use std::collections::BTreeMap;

use common::hooks::{self, Hook, OnFailure, RootRule};
use common::limits::{HOOK_SECONDS, HOOKS_MAX, USER_DATA_BYTES_MAX, cut};
use common::plan::Finish;
use common::text::plain_name;
use common::user_data::UserData;
use serde::Deserialize;
use toml::Spanned;

use super::order::{HOSTNAME_PATTERN_MAX, SSH_KEYS_MAX, is_pattern, is_ssh_key};
use super::selectors::Selectors;
use super::user_data;
use crate::api::shapes::{DeployOrder, ProfileFile, Selection};
use crate::tailor::TargetRule;
use crate::toml_text::{Mistake, Mistakes, Severity, read};

/// The longest text, in bytes: all scripts and the user-data of one order fit into it.
pub const PROFILE_BYTES_MAX: usize = 1 << 20;

/// The text as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    image: Option<Spanned<String>>,
    machines: Option<Spanned<String>>,
    disk: Option<Spanned<String>>,
    hostname: Option<Spanned<String>>,
    #[serde(default)]
    ssh_keys: Vec<Spanned<String>>,
    user_data: Option<Spanned<String>>,
    user_data_file: Option<Spanned<String>>,
    hook_root: Option<Spanned<String>>,
    personalise: Option<Spanned<bool>>,
    confirm: Option<bool>,
    at_end: Option<AtEnd>,
    #[serde(default)]
    hook: Vec<Spanned<HookText>>,
}

/// What machines do at the end.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum AtEnd {
    Reboot,
    PowerOff,
    Stay,
}

/// A `[[hook]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HookText {
    name: Option<Spanned<String>>,
    file: Option<Spanned<String>>,
    script: Option<Spanned<String>>,
    timeout: Option<Spanned<u32>>,
    on_failure: Option<OnFailure>,
}

/// The names of the files that `text` names, as far as it can be read: scripts, user-data, and files of SSH keys.
#[must_use]
pub fn files_named(text: &str) -> Vec<String> {
    let Ok(table) = toml::from_str::<toml::Table>(text) else { return vec![] };
    let list = |key: &str| table.get(key).and_then(toml::Value::as_array).into_iter().flatten();
    let hooks = list("hook").filter_map(|hook| hook.get("file"));
    let keys = list("ssh_keys").filter(|key| key.as_str().is_some_and(is_file));
    let all = table.get("user_data_file").into_iter().chain(hooks).chain(keys);
    all.filter_map(toml::Value::as_str).map(str::to_owned).collect()
}

/// Whether an entry of `ssh_keys` names a file: a key has a kind and a body.
fn is_file(entry: &str) -> bool {
    entry.split_whitespace().count() < 2
}

/// What `text` says, if nothing is wrong with it, and its mistakes. `files` are those that it names, and `image` looks
/// whether there is an image of a name: if not, it says why.
pub fn check(
    text: &str,
    files: &BTreeMap<String, ProfileFile>,
    image: impl Fn(&str) -> Option<String>,
) -> (Option<DeployOrder>, Vec<Mistake>) {
    let mut reading = Reading { mistakes: Mistakes::of(text), files };
    if text.len() > PROFILE_BYTES_MAX {
        reading.wrong(
            None,
            format!("{} bytes, more than {PROFILE_BYTES_MAX}", text.len()),
            "let a script fetch what is large",
        );
        return (None, reading.mistakes.sorted());
    }
    let readable = read::<Text>(&mut reading.mistakes);
    let Some(read) = readable.and_then(|readable| toml::from_str::<Text>(&readable).ok()) else {
        return (None, reading.mistakes.sorted());
    };
    let wish = reading.wish(read, image);
    let is_right = !reading.mistakes.has_errors();
    (is_right.then_some(wish), reading.mistakes.sorted())
}

struct Reading<'a> {
    mistakes: Mistakes<'a>,
    files: &'a BTreeMap<String, ProfileFile>,
}

fn start<T>(value: &Spanned<T>) -> Option<usize> {
    Some(value.span().start)
}

impl Reading<'_> {
    fn wrong(&mut self, at: Option<usize>, text: String, hint: &str) {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        self.mistakes.add(Severity::Error, at, text, hint);
    }

    fn wish(&mut self, text: Text, image: impl Fn(&str) -> Option<String>) -> DeployOrder {
        self.image(text.image.as_ref(), image);
        let machines = self.machines(text.machines.as_ref());
        if let Some(rule) = &text.disk
            && let Err(error) = rule.get_ref().parse::<TargetRule>()
        {
            self.wrong(
                start(rule),
                error.to_string(),
                "such as bus=nvme,size>=100G; leave it out where there is one disk",
            );
        }
        if let Some(pattern) = text.hostname.as_ref().filter(|pattern| !is_pattern(pattern.get_ref())) {
            let error = format!(
                "the hostname pattern is empty, longer than {HOSTNAME_PATTERN_MAX}, or holds control characters"
            );
            self.wrong(start(pattern), error, "such as web-{id}");
        }
        let no_personalise = text.personalise.as_ref().is_some_and(|personalise| !personalise.get_ref());
        let awaits = text.confirm.unwrap_or(true) && !no_personalise;
        let ssh_keys = self.ssh_keys(&text.ssh_keys);
        let user_data = self.user_data(text.user_data, text.user_data_file, awaits);
        if let Some(personalise) = text.personalise.filter(|_| no_personalise)
            && (user_data.is_some() || !ssh_keys.is_empty() || text.hostname.is_some())
        {
            let error = "the profile gives the OS something and forbids to personalise it".to_owned();
            self.wrong(start(&personalise), error, "leave out one of the two");
        }
        let has_hooks = !text.hook.is_empty();
        let hooks = self.hooks(text.hook);
        DeployOrder {
            image: text.image.map(Spanned::into_inner).unwrap_or_default(),
            selection: Selection { machines: vec![], labels: machines },
            disk: text.disk.map(Spanned::into_inner).unwrap_or_default(),
            hostname: text.hostname.map(Spanned::into_inner),
            ssh_keys,
            user_data,
            hooks,
            hook_root: self.hook_root(text.hook_root.as_ref(), has_hooks),
            no_personalise,
            no_confirm: text.confirm == Some(false),
            finish: text.at_end.map(|at_end| match at_end {
                AtEnd::Reboot => Finish::Reboot,
                AtEnd::PowerOff => Finish::PowerOff,
                AtEnd::Stay => Finish::Stay,
            }),
            ..DeployOrder::default()
        }
    }

    fn image(&mut self, image: Option<&Spanned<String>>, look: impl Fn(&str) -> Option<String>) {
        let hint = "`swarmboot image list` shows the images";
        match image {
            // One that is there and could not be read was named already.
            None if self.mistakes.found.is_empty() => {
                self.wrong(None, "no image is named".to_owned(), "write image = \"NAME\"");
            }
            None => {}
            Some(name) => {
                if let Some(why) = look(name.get_ref()) {
                    self.wrong(start(name), why, hint);
                }
            }
        }
    }

    fn machines(&mut self, text: Option<&Spanned<String>>) -> Vec<String> {
        let Some(text) = text else { return vec![] };
        if text.get_ref().trim().is_empty() {
            let error = "an empty selector fits every machine".to_owned();
            self.wrong(start(text), error, "leave machines out where the order names them");
        } else if let Err(error) = Selectors::parse(std::slice::from_ref(text.get_ref())) {
            self.wrong(start(text), error.to_string(), "such as role=web,memory>=16G");
        }
        vec![text.get_ref().clone()]
    }

    fn ssh_keys(&mut self, entries: &[Spanned<String>]) -> Vec<String> {
        let mut keys = vec![];
        for entry in entries {
            let before = keys.len();
            if is_file(entry.get_ref()) {
                let Some(data) = self.file(entry) else { continue };
                let text = String::from_utf8_lossy(&data.0).into_owned();
                let lines =
                    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                keys.extend(lines.map(str::to_owned));
                if keys.len() == before {
                    self.wrong(start(entry), "the file holds no SSH public key".to_owned(), "one a line");
                }
            } else {
                keys.push(entry.get_ref().trim().to_owned());
            }
            if !keys[before..].iter().all(|key| is_ssh_key(key)) {
                let error = "an SSH key is no line such as `ssh-ed25519 AAAA… name`".to_owned();
                self.wrong(start(entry), error, "give public keys, or a file of them");
            }
        }
        if let Some(first) = entries.first().filter(|_| keys.len() > SSH_KEYS_MAX) {
            self.wrong(start(first), format!("{} SSH keys, more than {SSH_KEYS_MAX}", keys.len()), "");
        }
        keys
    }

    fn user_data(
        &mut self,
        text: Option<Spanned<String>>,
        file: Option<Spanned<String>>,
        awaits_call_home: bool,
    ) -> Option<UserData> {
        let (at, data) = match (text, file) {
            (Some(_), Some(file)) => {
                let error = "user_data and user_data_file are both given".to_owned();
                self.wrong(start(&file), error, "leave out one of the two");
                return None;
            }
            (Some(text), None) => (start(&text), UserData(text.into_inner().into_bytes())),
            (None, Some(file)) => (start(&file), self.file(&file)?),
            (None, None) => return None,
        };
        if data.len() > USER_DATA_BYTES_MAX {
            let error = format!("user-data of {} bytes, more than {USER_DATA_BYTES_MAX}", data.len());
            self.wrong(at, error, "let the user-data fetch what is large");
        }
        for warning in user_data::warnings(&data.0, awaits_call_home) {
            let hint = warning.stops().map(|word| format!("an order by it needs --accept {word}"));
            self.mistakes.add(Severity::Warning, at, warning.to_string(), hint);
        }
        Some(data)
    }

    fn hook_root(&mut self, text: Option<&Spanned<String>>, has_hooks: bool) -> RootRule {
        let Some(text) = text else { return RootRule::Auto };
        match text.get_ref().parse::<RootRule>() {
            Ok(rule) => {
                if rule != RootRule::Auto && !has_hooks {
                    self.wrong(
                        start(text),
                        "a root for hooks, and no hook".to_owned(),
                        "add a [[hook]], or leave it out",
                    );
                }
                rule
            }
            Err(error) => {
                self.wrong(start(text), error.to_string(), "");
                RootRule::Auto
            }
        }
    }

    fn hooks(&mut self, texts: Vec<Spanned<HookText>>) -> Vec<Hook> {
        let mut list: Vec<Hook> = vec![];
        for text in texts {
            let at = start(&text);
            if list.len() == HOOKS_MAX {
                self.wrong(
                    at,
                    format!("more than {HOOKS_MAX} hooks"),
                    "let one script do the work of several",
                );
                break;
            }
            let Some(hook) = self.hook(at, text.into_inner()) else { continue };
            list.push(hook);
            // Only what this one adds: the others were checked when they came.
            if let Err(error) = hooks::check(&list) {
                self.wrong(at, error.to_string(), "");
                list.pop();
            }
        }
        list
    }

    fn hook(&mut self, at: Option<usize>, text: HookText) -> Option<Hook> {
        let named = text.name.as_ref().map(|name| name.get_ref().clone());
        let from_file = text.file.as_ref().and_then(|file| {
            let path = std::path::Path::new(file.get_ref());
            plain_name(&path.file_name()?.to_string_lossy())
        });
        let script = match (&text.file, text.script) {
            (Some(file), Some(_)) => {
                self.wrong(
                    start(file),
                    "the hook has a file and a script".to_owned(),
                    "leave out one of the two",
                );
                return None;
            }
            (Some(file), None) => self.file(file)?,
            (None, Some(script)) => UserData(script.into_inner().into_bytes()),
            (None, None) => {
                let error = "the hook has no script".to_owned();
                self.wrong(at, error, "write file = \"setup.sh\", or script = \"\"\"…\"\"\"");
                return None;
            }
        };
        let Some(name) = named.or(from_file) else {
            self.wrong(at, "the hook has no name".to_owned(), "write name = \"setup\", for the log");
            return None;
        };
        let timeout_seconds = text.timeout.map_or(HOOK_SECONDS, Spanned::into_inner);
        Some(Hook { name, script, timeout_seconds, on_failure: text.on_failure.unwrap_or_default() })
    }

    /// What the file holds that the text names.
    fn file(&mut self, name: &Spanned<String>) -> Option<UserData> {
        let shown = cut(name.get_ref(), 80).escape_debug().to_string();
        match self.files.get(name.get_ref()) {
            Some(ProfileFile::Holds(data)) => return Some(data.clone()),
            Some(ProfileFile::Unread(why)) => {
                let error = format!("cannot read `{shown}`: {}", cut(why, 200).escape_debug());
                self.wrong(start(name), error, "files are looked for beside the profile's own");
            }
            None => {
                let error = format!("the file `{shown}` was not sent with the profile");
                self.wrong(start(name), error, "send it too, or write what it holds into the profile");
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
