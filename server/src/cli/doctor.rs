//! `swarmboot doctor`: finds out what is wrong on this host and its network. Touches the admin socket, the configuration
//! file, and what `doctor` reads.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::args::Doctor;
use super::args::SOCKET;
use super::client::{Client, Target};
use super::saved;
use super::show::Screen;
use crate::api::shapes::ServerStatus;
use crate::config::{self, Flags};
use crate::doctor::{self, Finding, Severity, Wanted};
use crate::fault::Fault;
use crate::{dhcp4, mistakes, units};

/// The longest that answers are waited for.
const WAIT_MAX: i64 = 60;

pub(super) async fn run(
    screen: &Screen,
    asked: Doctor,
    server: Option<String>,
    socket: Option<PathBuf>,
) -> Result<ExitCode, Fault> {
    if server.is_some() {
        let client = Client::new(saved::target(server, socket, SOCKET)?);
        let status: ServerStatus = client.get("/status").await?;
        return told(screen, &doctor::from_afar(&status.warnings));
    }
    let wait = units::seconds(&asked.wait).filter(|seconds| *seconds <= WAIT_MAX);
    let wait = wait.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let wait = wait.ok_or_else(|| {
        Fault::usage(format!("`{}` is no time to wait", asked.wait.escape_debug()))
            .hint("write 4s, at most 60s")
    })?;
    let mut flags = Flags { config: asked.config, ..Flags::default() };
    flags.link.interface = asked.interface.clone();
    let path = config::file_of(&flags);
    let text = path.as_deref().map(config::text_of).transpose()?.unwrap_or_default();
    // Which interface is meant is looked at by the doctor itself.
    flags.link.interface =
        flags.link.interface.or_else(|| (!text.contains("interface")).then(|| "lo".to_owned()));
    let place = |name: &str| dhcp4::interface_address(name).ok().map(|interface| interface.place());
    let (config, mut found) = mistakes::check(&text, flags, place);
    found.retain(|mistake| !mistake.text.starts_with("there is no interface"));
    let named = config.as_ref().map(|config| config.interface.clone()).filter(|name| name != "lo");
    let state = config.as_ref().map_or_else(|| config::STATE.into(), |config| config.state.clone());
    // Only a server on this host: one that `login` keeps has another network.
    let client = Client::new(Target::Socket(socket.unwrap_or_else(|| SOCKET.into())));
    let server = client.get::<ServerStatus>("/status").await.ok().map(|status| status.warnings);
    let interface = asked.interface.or(named);
    let config = config.filter(|_| interface.is_some());
    let facts = doctor::gather(Wanted { interface, config, mistakes: found, state, wait, server }).await;
    told(screen, &doctor::judge(&facts))
}

/// Prints the findings.
fn told(screen: &Screen, findings: &[Finding]) -> Result<ExitCode, Fault> {
    if screen.wants_json() {
        screen.json(&findings)?;
    } else {
        findings.iter().try_for_each(|finding| show(screen, finding))?;
    }
    let is_wrong = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(ExitCode::from(u8::from(is_wrong)))
}

fn show(screen: &Screen, finding: &Finding) -> Result<(), Fault> {
    let severity = match finding.severity {
        Severity::Ok => "ok",
        Severity::Unknown => "unknown",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    screen.line(&format!("{severity:<8} {:<14} {}", finding.topic, finding.text))?;
    match &finding.cure {
        Some(cure) => screen.line(&format!("{:<8} {:<14} cure: {cure}", "", "")),
        None => Ok(()),
    }
}
