//! What the lines carried while a deployment ran, by site and kind, as one event when its last job is over. Touches the
//! fleet's handle and the counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::id::DeploymentId;
use common::text::bytes;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::fleet::FleetHandle;
use crate::traffic::{SentByKind, SiteTraffic, Traffic};

/// The interval at which it is looked at whether a deployment of which something was heard is over.
const LOOK: Duration = Duration::from_secs(5);

/// How many sites the event names; the counts of the others are in `swarm status`.
const SITES_NAMED: usize = 5;

/// Writes the events until `cancel`.
pub(super) async fn log(fleet: FleetHandle, traffic: Traffic, cancel: CancellationToken) {
    let mut events = fleet.follow();
    let mut before: BTreeMap<DeploymentId, Vec<SiteTraffic>> = BTreeMap::new();
    let mut heard: BTreeSet<DeploymentId> = BTreeSet::new();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            event = events.recv() => match event {
                // What is said of a deployment as a whole, as by this task, is no news of its jobs.
                Ok(event) => if let Some(id) = event.deployment.filter(|_| event.job.is_some()) {
                    heard.insert(id);
                    if !before.contains_key(&id) && is_over(&fleet, id).await == Some(false) {
                        before.insert(id, traffic.shown());
                    }
                },
                Err(RecvError::Lagged(_)) => heard.extend(before.keys()),
                Err(RecvError::Closed) => return,
            },
            _ = look.tick() => for id in std::mem::take(&mut heard) {
                if before.contains_key(&id) && is_over(&fleet, id).await != Some(false) {
                    let text = before.remove(&id).and_then(|before| words(&before, &traffic.shown()));
                    if let Some(text) = text && let Err(error) = fleet.remark_order(id, text).await {
                        tracing::warn!(error = &error as &dyn std::error::Error, %id, "what lines carried was not kept");
                    }
                }
            },
        }
    }
}

/// Whether all its jobs are over and no more machines are taken; `None` when it cannot be found.
async fn is_over(fleet: &FleetHandle, id: DeploymentId) -> Option<bool> {
    let shown = fleet.deployment(id).await.ok().flatten()?;
    Some(!shown.open && shown.jobs.iter().all(|job| job.state.is_over()))
}

/// The event's text: the sites that were sent the most first; `None` when nothing was sent.
fn words(before: &[SiteTraffic], now: &[SiteTraffic]) -> Option<String> {
    let earlier = |name: &str| before.iter().find(|site| site.site == name).map(|site| site.sent);
    let mut sites: Vec<(&str, SentByKind)> = now
        .iter()
        .map(|site| (site.site.as_str(), site.sent.since(&earlier(&site.site).unwrap_or_default())))
        .filter(|(_, sent)| sent.all() > 0)
        .collect();
    sites.sort_by_key(|(_, sent)| std::cmp::Reverse(sent.all()));
    let named = sites.iter().take(SITES_NAMED).map(|(name, sent)| {
        format!(
            "into {name} {} (boot files {}, bundles {}, chunks {}, the rest {})",
            bytes(sent.all()),
            bytes(sent.tftp + sent.boot_files),
            bytes(sent.bundle),
            bytes(sent.chunks),
            bytes(sent.dhcp + sent.manifest + sent.answers + sent.control)
        )
    });
    let mut parts: Vec<String> = named.collect();
    if sites.len() > SITES_NAMED {
        let rest = sites.iter().skip(SITES_NAMED).map(|(_, sent)| sent.all()).sum();
        parts.push(format!("into {} more sites {}", sites.len() - SITES_NAMED, bytes(rest)));
    }
    (!parts.is_empty()).then(|| format!("the server sent while it ran: {}", parts.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Kind;

    #[test]
    fn what_was_sent_meanwhile_is_told_by_site_and_kind() {
        let traffic = Traffic::default();
        traffic.sent("branch", Kind::BootFiles, 5 << 20);
        let before = traffic.shown();
        assert_eq!(words(&before, &traffic.shown()), None);
        traffic.sent("branch", Kind::BootFiles, 20 << 20);
        traffic.sent("branch", Kind::Chunks, 108 << 20);
        traffic.sent("branch", Kind::Control, 1 << 20);
        traffic.sent("lab", Kind::Bundle, 3 << 20);
        let told = words(&before, &traffic.shown()).unwrap();
        assert_eq!(
            told,
            "the server sent while it ran: into branch 129.0 MiB (boot files 20.0 MiB, bundles 0 B, chunks 108.0 MiB, \
             the rest 1.0 MiB); into lab 3.0 MiB (boot files 0 B, bundles 3.0 MiB, chunks 0 B, the rest 0 B)"
        );
        for site in 0..7_u64 {
            traffic.sent(&site.to_string(), Kind::Answers, 1024 + site);
        }
        let told = words(&before, &traffic.shown()).unwrap();
        assert!(told.ends_with("; into 4 more sites 4.1 KiB"), "{told}");
    }
}
