//! Events of the swarm, written into the log as notes of jobs. That a machine joined it reports itself; this adds what
//! only the server sees. Touches the fleet's handle.

use std::collections::HashSet;

use common::id::JobId;
use common::step::{Step, What};
use tokio::sync::mpsc;

use crate::fleet::FleetHandle;
use crate::metrics::Metrics;
use crate::swarm::{Party, SwarmFact};

/// Writes the swarm's events into the log until the swarm has ended.
pub(super) async fn log(mut facts: mpsc::Receiver<SwarmFact>, fleet: FleetHandle, metrics: Metrics) {
    // A machine that has sealed its disk leaves the swarm as the last step of its job: that is not logged.
    let mut sealed = HashSet::new();
    while let Some(fact) = facts.recv().await {
        match &fact {
            SwarmFact::Sealed { job } => drop(sealed.insert(*job)),
            SwarmFact::Left { job, .. } if sealed.remove(job) => continue,
            SwarmFact::Corrupt { by, .. } => metrics.hash_failure(&image_of(by, &fleet).await),
            _ => {}
        }
        for (job, step, text) in words(fact, &fleet).await {
            if let Err(error) = fleet.remark(job, step, What::Note { text }).await {
                tracing::warn!(error = &error as &dyn std::error::Error, %job, "an event of the swarm was not kept");
            }
        }
    }
}

async fn words(fact: SwarmFact, fleet: &FleetHandle) -> Vec<(JobId, Step, String)> {
    match fact {
        SwarmFact::Left { job, cause } => vec![(job, Step::Transfer, format!("left the swarm: {cause}"))],
        SwarmFact::Released { job } => {
            vec![(job, Step::Linger, "nobody needs it as a seed any more".to_owned())]
        }
        SwarmFact::Corrupt { by, from, chunk } => {
            let sender = name(from.as_ref(), fleet).await;
            let finder = name(Some(&by), fleet).await;
            let found = job_of(&by).map(|job| {
                let text = format!("chunk {} from {sender} failed its hash: thrown away", chunk.0);
                (job, Step::Transfer, text)
            });
            let sent = from.as_ref().and_then(job_of).map(|job| {
                let text =
                    format!("sent {finder} wrong bytes for chunk {}: look at its memory and disk", chunk.0);
                (job, Step::Linger, text)
            });
            found.into_iter().chain(sent).collect()
        }
        SwarmFact::Starving { job } => {
            let text =
                "gets nothing from its peers, so the server sends it everything: is something between them?";
            vec![(job, Step::Transfer, text.to_owned())]
        }
        SwarmFact::ChunkLost { image, chunk, cause } => {
            let jobs = fleet.jobs_of_image(image).await.unwrap_or_default();
            let text = format!(
                "the server cannot read chunk {} of the image: {cause}; it looks for it at its source and at machines \
                 that have it",
                chunk.0
            );
            jobs.into_iter().map(|job| (job, Step::Transfer, text.clone())).collect()
        }
        SwarmFact::ChunkMended { image, chunk, from } => {
            let jobs = fleet.jobs_of_image(image).await.unwrap_or_default();
            let whence = match from {
                Some(party) => format!("{} had it", name(Some(&party), fleet).await),
                None => "the image store has it".to_owned(),
            };
            let text = format!("chunk {} of the image can be read again: {whence}", chunk.0);
            jobs.into_iter().map(|job| (job, Step::Transfer, text.clone())).collect()
        }
        SwarmFact::GatherOpened { jobs } => {
            let text = format!("the gate is open: {} machines have arrived", jobs.len());
            jobs.into_iter().map(|job| (job, Step::Gather, text.clone())).collect()
        }
        SwarmFact::Joined { .. } | SwarmFact::Sealed { .. } => vec![],
    }
}

/// The image of whose chunk `finder` tells, by name; a relay holds all of them.
async fn image_of(finder: &Party, fleet: &FleetHandle) -> String {
    let image = match job_of(finder) {
        Some(job) => fleet.image_of_job(job).await.ok().flatten(),
        None => None,
    };
    image.unwrap_or_else(|| "unknown".to_owned())
}

fn job_of(party: &Party) -> Option<JobId> {
    match party {
        Party::Job(job) => Some(*job),
        Party::Relay(_) => None,
    }
}

async fn name(party: Option<&Party>, fleet: &FleetHandle) -> String {
    match party {
        Some(Party::Job(job)) => {
            fleet.name_of_job(*job).await.ok().flatten().unwrap_or_else(|| job.to_string())
        }
        Some(Party::Relay(name)) => format!("the relay {name}"),
        None => "a machine that has left".to_owned(),
    }
}
