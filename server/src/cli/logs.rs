//! `swarmboot logs`: prints the events of machines. Touches the admin socket and the clock.

use std::process::ExitCode;

use jiff::{SignedDuration, Timestamp};

use super::args::Logs;
use super::client::{Client, url_part};
use super::show::Screen;
use crate::api::shapes::LogEvent;
use crate::fault::Fault;
use crate::units::seconds;

pub(super) async fn run(client: &Client, screen: &Screen, logs: Logs) -> Result<ExitCode, Fault> {
    let path = query(&logs, Timestamp::now())?;
    client.lines::<LogEvent>(&path, |event| screen.event(&event).map(|()| true)).await?;
    Ok(ExitCode::SUCCESS)
}

fn query(logs: &Logs, now: Timestamp) -> Result<String, Fault> {
    let mut words = vec![format!("machines={}", url_part(&logs.machines.join(",")))];
    if !logs.labels.is_empty() {
        words.push(format!("labels={}", url_part(&logs.labels.join(","))));
    }
    if let Some(deployment) = logs.deployment {
        words.push(format!("deployment={deployment}"));
    }
    if let Some(step) = &logs.step {
        words.push(format!("step={step}"));
    }
    if let Some(since) = &logs.since {
        words.push(format!("since={}", url_part(&moment(since, now)?.to_string())));
    }
    words.push(format!("progress={}&follow={}", logs.progress, logs.follow));
    Ok(format!("/logs?{}", words.join("&")))
}

/// A time, or a duration before `now`: `90s`, `15m`, `2h`, `3d`.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, Fault> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let wrong = || {
        Fault::usage(format!("`{text}` is no time")).hint("write 90s, 15m, 2h, 3d, or 2026-11-22T10:00:00Z")
    };
    let back = seconds(text).ok_or_else(wrong)?;
    now.checked_sub(SignedDuration::from_secs(back)).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_while_or_a_time() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        assert_eq!(moment("15m", now).unwrap().to_string(), "2026-11-22T09:45:00Z");
        assert_eq!(moment("2026-11-21T00:00:00Z", now).unwrap().to_string(), "2026-11-21T00:00:00Z");
        for wrong in ["", "m", "-1s", "5x", "yesterday", "99999999999999999d"] {
            assert!(moment(wrong, now).is_err(), "{wrong}");
        }
    }
}
