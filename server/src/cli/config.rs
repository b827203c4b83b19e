//! `swarmboot config`: looks for mistakes in the configuration, and shows what holds. Touches the configuration file, the
//! interfaces and the command line.

use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _};
use common::causes::with_causes;

use super::args::{Args, Config};
use super::show::words::mistake_line;
use super::show::{Screen, talk};
use crate::config::{self, Flags, Held, Source};
use crate::dhcp4;
use crate::fault::Fault;
use crate::mistakes::{Mistake, Severity, check as look_through};
use crate::subscribers::{self, SubscriberError};

pub(super) fn run(screen: &Screen, command: Config) -> Result<ExitCode, Fault> {
    match command {
        Config::Check(flags) => check(screen, *flags),
        Config::Show(flags) => show(screen, &flags).map(|()| ExitCode::SUCCESS),
    }
}

fn check(screen: &Screen, flags: Flags) -> Result<ExitCode, Fault> {
    let path = config::file_of(&flags);
    let text = path.as_deref().map(config::text_of).transpose()?.unwrap_or_default();
    let place = |name: &str| dhcp4::interface_address(name).ok().map(|interface| interface.place());
    let (config, mut mistakes) = look_through(&text, flags, place);
    mistakes.extend(config.iter().flat_map(unopened));
    let is_wrong = mistakes.iter().any(|mistake| mistake.severity == Severity::Error);
    let name = path.map_or_else(|| "flags and environment".to_owned(), |path| path.display().to_string());
    if screen.wants_json() {
        screen.json(&mistakes)?;
    } else {
        for mistake in &mistakes {
            screen.line(&mistake_line(&name, mistake))?;
        }
        if !is_wrong {
            talk(&format!("{name}: `swarmboot serve` takes it"));
        }
    }
    Ok(ExitCode::from(if is_wrong { 2 } else { 0 }))
}

/// Secrets and authorities of webhooks that cannot be used. Where only the rights of whoever checks are missing, the
/// service may have them.
fn unopened(config: &crate::config::Config) -> Vec<Mistake> {
    let as_mistake = |error: SubscriberError| Mistake {
        severity: if error.is_of_this_user() { Severity::Warning } else { Severity::Error },
        line: None,
        column: None,
        text: with_causes(&error),
        hint: Some(error.hint().to_owned()),
    };
    subscribers::refused(&config.subscriptions).into_iter().map(as_mistake).collect()
}

fn show(screen: &Screen, flags: &Flags) -> Result<(), Fault> {
    let path = config::file_of(flags);
    let text = path.as_deref().map(config::text_of).transpose()?.unwrap_or_default();
    let file = toml::from_str(&text).map_err(|error| {
        Fault::usage("the configuration file cannot be understood")
            .because(&error)
            .hint("`swarmboot config check` finds every mistake in it")
    })?;
    let matches = Args::command().get_matches_from(std::env::args_os());
    let typed = matches.subcommand_matches("config").and_then(|config| config.subcommand_matches("show"));
    let all = config::held(&file, |key| typed.and_then(|typed| given(typed, key)));
    if screen.wants_json() {
        return screen.json(&all);
    }
    screen.rows(&["SETTING", "VALUE", "FROM"], all.iter().map(row))
}

fn row(held: &Held) -> [String; 3] {
    let source = match held.source {
        Source::Flag => "flag",
        Source::Environment => "environment",
        Source::File => "file",
        Source::Default => "default",
    };
    [held.key.clone(), held.value.clone().unwrap_or_else(|| "-".to_owned()), source.to_owned()]
}

/// The value of a setting from the command line or the environment.
fn given(typed: &ArgMatches, key: &str) -> Option<(String, Source)> {
    let command = Args::command();
    let show = command.find_subcommand("config")?.find_subcommand("show")?;
    let of = |long: &str| {
        let id = show.get_arguments().find(|arg| arg.get_long() == Some(long))?.get_id().as_str();
        let source = match typed.value_source(id)? {
            ValueSource::CommandLine => Source::Flag,
            ValueSource::EnvVariable => Source::Environment,
            _ => return None,
        };
        let values: Vec<String> = typed
            .get_raw(id)
            .into_iter()
            .flatten()
            .map(|value| value.to_string_lossy().into_owned())
            .collect();
        Some((if values.is_empty() { "true".to_owned() } else { values.join(",") }, source))
    };
    match key {
        // Flags that say the opposite.
        "discovery" => of("no-discovery").map(|(_, source)| ("false".to_owned(), source)),
        "dhcp_range" => of("dhcp-range")
            .or_else(|| of("proxy-dhcp").map(|(_, source)| ("(none: proxyDHCP)".to_owned(), source))),
        key => of(&key.replace('_', "-")),
    }
}
