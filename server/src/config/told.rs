//! Core: who is told of events, as the configuration file says it: `[[webhook]]` and `[export]`. Touches `subscribers`.

use std::path::PathBuf;

use serde::Deserialize;

use crate::fault::Fault;
use crate::subscribers::{Export, Place, Secret, Subscriptions, Wants, Webhook, WebhookUrl};

/// The most webhooks: each is a task, and reads the log for itself.
const WEBHOOKS_MAX: usize = 32;
/// The longest name of a webhook, in bytes.
const NAME_MAX: usize = 64;

/// A `[[webhook]]` of the configuration file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookTable {
    name: String,
    url: String,
    secret_file: Option<PathBuf>,
    secret_credential: Option<String>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    levels: Vec<String>,
    #[serde(default)]
    steps: Vec<String>,
    labels: Option<String>,
}

/// The `[export]` of the configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExportTable {
    journald: bool,
    syslog: Option<String>,
    file: Option<PathBuf>,
    levels: Vec<String>,
    steps: Vec<String>,
    labels: Option<String>,
}

/// Checks who is told of events.
pub(super) fn subscriptions(
    webhooks: Vec<WebhookTable>,
    export: ExportTable,
) -> Result<Subscriptions, Fault> {
    if webhooks.len() > WEBHOOKS_MAX {
        return Err(Fault::usage(format!("there are more than {WEBHOOKS_MAX} webhooks"))
            .hint("let one receiver pass events on to the others"));
    }
    let mut checked: Vec<Webhook> = vec![];
    for table in webhooks {
        let webhook = webhook(table)?;
        if checked.iter().any(|other| other.name == webhook.name) {
            return Err(Fault::usage(format!("there are two webhooks `{}`", webhook.name))
                .hint("give each a name of its own: by it the server knows how far each is"));
        }
        checked.push(webhook);
    }
    Ok(Subscriptions { webhooks: checked, exports: exports(export)? })
}

fn webhook(table: WebhookTable) -> Result<Webhook, Fault> {
    let WebhookTable { name, url, secret_file, secret_credential, ca_file, levels, steps, labels } = table;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(fits) {
        return Err(Fault::usage(format!("`{}` is no name for a webhook", name.escape_debug()))
            .hint("letters, digits, dashes and dots: name = \"chat\""));
    }
    // The URL itself may hold a secret.
    let url: WebhookUrl = url.parse().map_err(|error| {
        Fault::usage(format!("the `url` of the webhook `{name}` cannot be used"))
            .because(&error)
            .hint("write url = \"https://chat.example/hooks/swarmboot\"")
    })?;
    let secret = match (secret_file, secret_credential) {
        (Some(file), None) => Secret::File(file),
        (None, Some(credential)) if is_file_name(&credential) => Secret::Credential(credential),
        (None, Some(credential)) => {
            return Err(Fault::usage(format!(
                "`secret_credential` of the webhook `{name}` is no name of a credential: `{}`",
                credential.escape_debug()
            ))
            .hint("the name that `LoadCredential=NAME:/path` gives it in the service"));
        }
        (None, None) => {
            return Err(Fault::usage(format!("the webhook `{name}` has no secret to sign with"))
                .hint("`openssl rand -base64 32` makes one; name its file: secret_file = \"/etc/swarmboot/chat.secret\""));
        }
        (Some(_), Some(_)) => {
            return Err(Fault::usage(format!("the webhook `{name}` has two secrets"))
                .hint("keep `secret_file` or `secret_credential`"));
        }
    };
    if ca_file.is_some() && !url.is_tls() {
        return Err(Fault::usage(format!(
            "the webhook `{name}` has a `ca_file`, and its `url` is plain http"
        ))
        .hint("write https:// in its `url`, or leave `ca_file` out"));
    }
    let wants = wants(&format!("the webhook `{name}`"), &levels, &steps, labels.as_deref())?;
    Ok(Webhook { name, url, secret, authority: ca_file, wants })
}

fn is_file_name(text: &str) -> bool {
    !text.is_empty()
        && text != "."
        && text != ".."
        && !text.contains('/')
        && !text.chars().any(char::is_control)
}

fn exports(table: ExportTable) -> Result<Vec<Export>, Fault> {
    let ExportTable { journald, syslog, file, levels, steps, labels } = table;
    let wants = wants("`[export]`", &levels, &steps, labels.as_deref())?;
    let mut places = vec![];
    if journald {
        places.push(Place::Journald);
    }
    if let Some(text) = syslog {
        let target = text.parse().map_err(|error| {
            Fault::usage(format!("`syslog = \"{}\"` cannot be used", text.escape_debug()))
                .because(&error)
                .hint("write udp://10.0.0.5, tcp://logs.example:6514 or unix:/dev/log")
        })?;
        places.push(Place::Syslog(target));
    }
    if let Some(path) = file {
        if path.is_relative() {
            return Err(Fault::usage(format!(
                "the file of `[export]`, {}, depends on where the server is started",
                path.display()
            ))
            .hint("name the whole path: file = \"/var/log/swarmboot/events.jsonl\""));
        }
        places.push(Place::File(path));
    }
    Ok(places.into_iter().map(|place| Export { place, wants: wants.clone() }).collect())
}

fn wants(whose: &str, levels: &[String], steps: &[String], labels: Option<&str>) -> Result<Wants, Fault> {
    Wants::new(levels, steps, labels).map_err(|error| {
        Fault::usage(format!("{whose} asks for events that there are not"))
            .because(&error)
            .hint("levels = [\"warning\", \"error\"], steps = [\"confirm\"], labels = \"role=web\"; leave out what does not matter")
    })
}

#[cfg(test)]
mod tests {
    use super::super::*;

    fn config(text: &str) -> Result<Config, Fault> {
        let mut flags = Flags::default();
        flags.link.interface = Some("eth1".to_owned());
        let file: File = toml::from_str(text).map_err(|error| Fault::usage(error.message().to_owned()))?;
        Config::merge(flags, file, PathBuf::new())
    }

    const CHAT: &str =
        "[[webhook]]\nname = 'chat'\nurl = 'https://chat.example/hush'\nsecret_file = '/etc/chat'\n";

    #[test]
    fn who_is_told_is_read() {
        use crate::subscribers::{Place, Secret, SyslogTarget};
        let all = config(&format!(
            "{CHAT}levels = ['error']\nsteps = ['confirm']\nlabels = 'role=web'\n[[webhook]]\nname = 'b'\n\
             url = 'http://10.0.0.1'\nsecret_credential = 'b'\n[export]\njournald = true\nsyslog = 'udp://10.0.0.5'\n\
             file = '/var/log/e'\n"
        ))
        .unwrap()
        .subscriptions;
        let secrets: Vec<&Secret> = all.webhooks.iter().map(|webhook| &webhook.secret).collect();
        assert_eq!(secrets, [&Secret::File("/etc/chat".into()), &Secret::Credential("b".to_owned())]);
        let places: Vec<&Place> = all.exports.iter().map(|export| &export.place).collect();
        let syslog = Place::Syslog(SyslogTarget::Udp("10.0.0.5".to_owned(), 514));
        assert_eq!(places, [&Place::Journald, &syslog, &Place::File("/var/log/e".into())]);
        assert_eq!(config("").unwrap().subscriptions, Subscriptions::default());
        assert!(!format!("{all:?}").contains("hush"));
    }

    #[test]
    fn each_mistake_is_said_without_what_is_secret() {
        let webhook = |rest: &str| format!("[[webhook]]\nname = 'a'\n{rest}");
        let table = [
            (webhook("url = 'https://a/hush'"), "has no secret"),
            (webhook("url = 'https://me:hush@a/'\nsecret_file = 's'"), "a user or a password"),
            (webhook("url = 'gopher://hush/'\nsecret_file = 's'"), "only http:// and https://"),
            (webhook("url = 'https://a'\nsecret_file = 's'\nsecret_credential = 's'"), "two secrets"),
            (webhook("url = 'https://a'\nsecret_credential = '../s'"), "no name of a credential"),
            (webhook("url = 'http://a'\nsecret_file = 's'\nca_file = 'c'"), "plain http"),
            (webhook("url = 'http://a'\nsecret_file = 's'\nlevels = ['loud']"), "`loud` is no level"),
            (webhook("url = 'http://a'\nsecret_file = 's'\nsteps = ['x']"), "`x` is no step"),
            (webhook("url = 'http://a'\nsecret_file = 's'\nlabels = 'a in ('"), "events that there are not"),
            (webhook("url = 'http://a'\nsecret = 'hush'"), "unknown field `secret`"),
            ("[[webhook]]\nname = 'a b'\nurl = 'http://a'".to_owned(), "no name for a webhook"),
            ("[[webhook]]\nurl = 'http://a'".to_owned(), "missing field `name`"),
            (format!("{CHAT}{CHAT}"), "two webhooks `chat`"),
            ((0..33).map(|n| CHAT.replace("chat'", &format!("c{n}'"))).collect(), "more than 32"),
            ("[export]\nsyslog = 'tls://a'".to_owned(), "neither udp://"),
            ("[export]\nfile = 'events'".to_owned(), "depends on where"),
            ("[export]\njournal = true".to_owned(), "unknown field `journal`"),
        ];
        for (text, part) in table {
            let said = config(&text).unwrap_err().text();
            assert!(said.contains(part), "{text}\n{said}");
            assert!(!said.contains("hush"), "{said}");
        }
    }
}
