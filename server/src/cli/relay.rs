//! `swarmboot relay`: invites, lists and revokes relays; and `image stage`. Touches the admin socket.

use std::process::ExitCode;

use common::text::{bytes, percent};
use jiff::Timestamp;

use super::access::seconds;
use super::args::{Relay, Stage};
use super::client::{Client, url_part};
use super::show::words::{has, when};
use super::show::{Screen, talk};
use crate::api::shapes::{ImageStage, RelayHolds, RelayInvite, RelayInvited, RelayShown, RelayState, Staged};
use crate::fault::Fault;
use crate::traffic::Rate;

pub(super) async fn run(client: &Client, screen: &Screen, command: Relay) -> Result<ExitCode, Fault> {
    match command {
        Relay::Invite { site, name, expires } => {
            let expires_seconds = expires.as_deref().map(seconds).transpose()?;
            let invite = RelayInvite { site, name, expires_seconds };
            show_invited(screen, &client.post("/relays", &invite).await?)?;
        }
        Relay::Run(_) => return Err(Fault::usage("a relay asks nobody to be run")),
        Relay::List => show(screen, &client.get::<Vec<RelayShown>>("/relays").await?)?,
        Relay::Revoke { name } => {
            let path = format!("/relays/{}", url_part(&name));
            let revoked: RelayShown = client.delete_for(&path).await?;
            if screen.wants_json() {
                screen.json(&revoked)?;
            } else {
                show(screen, &[revoked])?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show_invited(screen: &Screen, invited: &RelayInvited) -> Result<(), Fault> {
    if screen.wants_json() {
        return screen.json(invited);
    }
    let RelayInvited { name, site, expires, word, url } = invited;
    talk(&format!("{name} is invited to {site}; the word lets in one relay, once, until {}", when(*expires)));
    talk("On the machine at the site, with the interface that its machines are on:");
    screen.line(&format!("swarmboot relay run --server {url} --interface eth0 --invite {word}"))
}

fn show(screen: &Screen, relays: &[RelayShown]) -> Result<(), Fault> {
    if screen.wants_json() {
        return screen.json(&relays);
    }
    if relays.is_empty() {
        return screen.line("no relay is invited");
    }
    let head = ["NAME", "SITE", "STATE", "VERSION", "ADDRESS", "FREE", "IMAGES", "LAST SEEN"];
    screen.rows(&head, relays.iter().map(row))?;
    for relay in relays {
        for warning in &relay.warnings {
            talk(&format!("warning: {}: {warning}", relay.name));
        }
        for image in &relay.images {
            if let Some(trouble) = &image.trouble {
                talk(&format!("warning: {}: {}: {trouble}", relay.name, image.name));
            }
        }
    }
    Ok(())
}

fn row(relay: &RelayShown) -> [String; 8] {
    let dash = || "-".to_owned();
    let state = match relay.state {
        RelayState::Invited => "invited",
        RelayState::Expired => "expired",
        RelayState::Here => "here",
        RelayState::Away => "away",
        RelayState::Revoked => "revoked",
    };
    let images: Vec<String> = relay.images.iter().map(held).collect();
    [
        relay.name.clone(),
        relay.site.clone(),
        state.to_owned(),
        relay.version.clone().unwrap_or_else(dash),
        relay.http.map_or_else(dash, |http| http.to_string()),
        relay.free_bytes.map_or_else(dash, bytes),
        if images.is_empty() { dash() } else { images.join(", ") },
        relay.last_seen.map_or_else(dash, when),
    ]
}

fn held(image: &RelayHolds) -> String {
    match image.total {
        0 => image.name.clone(),
        total => format!("{} {}%", image.name, percent(image.held.into(), total.into())),
    }
}

/// `swarmboot image stage`.
pub(super) async fn stage(client: &Client, screen: &Screen, stage: Stage) -> Result<(), Fault> {
    let Stage { name, site, not_before, limit, remove } = stage;
    let limit = limit.map(|limit| {
        limit.parse::<Rate>().map(u64::from).map_err(|error| {
            Fault::usage("the limit makes no sense").because(&error).hint("write 5M, in bits per second")
        })
    });
    let order = ImageStage {
        site,
        not_before: not_before.as_deref().map(|text| time(text, Timestamp::now())).transpose()?,
        limit: limit.transpose()?,
        remove,
    };
    let staged: Vec<Staged> = client.post(&format!("/images/{}/stage", url_part(&name)), &order).await?;
    if screen.wants_json() {
        return screen.json(&staged);
    }
    show_staged(screen, &name, &staged)
}

/// Prints where an image is staged.
pub(super) fn show_staged(screen: &Screen, name: &str, staged: &[Staged]) -> Result<(), Fault> {
    if staged.is_empty() {
        return screen.line(&format!("{name} is staged nowhere"));
    }
    let rows = staged.iter().flat_map(|staged| {
        staged.relays.iter().map(move |at| {
            [
                staged.site.clone(),
                at.relay.clone(),
                has(at),
                staged.not_before.map_or_else(|| "-".to_owned(), when),
                staged.limit.map_or_else(|| "-".to_owned(), rate),
            ]
        })
    });
    screen.rows(&["SITE", "RELAY", "HOLDS", "NOT BEFORE", "LIMIT"], rows)
}

fn rate(bits: u64) -> String {
    Rate::try_from(bits).map_or_else(|_| bits.to_string(), |rate| rate.to_string())
}

/// When an order begins: a time of day, the next that comes by this host's clock and time zone, or a whole time.
fn time(text: &str, now: Timestamp) -> Result<Timestamp, Fault> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let of_day: Option<jiff::civil::Time> =
        (text.len() <= 8 && text.contains(':')).then(|| text.parse().ok()).flatten();
    let zone = jiff::tz::TimeZone::system();
    let here = now.to_zoned(zone);
    let next = of_day.and_then(|time| {
        let today = here.with().time(time).build().ok()?;
        let next =
            if today > here { today } else { today.tomorrow().ok()?.with().time(time).build().ok()? };
        Some(next.timestamp())
    });
    next.ok_or_else(|| {
        Fault::usage(format!("`{text}` is no time to begin")).hint("write 22:00, or 2026-12-01T22:00:00Z")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_the_next_one() {
        let now: Timestamp = "2026-11-27T20:00:00Z".parse().unwrap();
        for text in ["22:00", "19:00", "20:00", "22:00:30"] {
            let at = time(text, now).unwrap();
            let ahead = at.duration_since(now);
            assert!(ahead.as_secs() > 0 && ahead.as_secs() <= 25 * 3600, "{text}: {at}");
        }
        assert_eq!(time("2026-12-01T22:00:00Z", now).unwrap().to_string(), "2026-12-01T22:00:00Z");
        for wrong in ["", "25:00", "ten", "22", "2026-12-01"] {
            assert!(time(wrong, now).is_err(), "{wrong}");
        }
    }
}
