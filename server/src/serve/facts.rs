//! Events of the swarm, written into the log as notes of jobs. That a machine joined it reports itself; this adds what
//! only the server sees. Touches the fleet's handle.

use std::collections::HashSet;

use common::id::JobId;
use common::step::{Step, What};
use tokio::sync::mpsc;

use crate::fleet::FleetHandle;
use crate::swarm::SwarmFact;

/// Writes the swarm's events into the log until the swarm has ended.
pub(super) async fn log(mut facts: mpsc::Receiver<SwarmFact>, fleet: FleetHandle) {
    // A machine that has sealed its disk leaves the swarm as the last step of its job: that is not logged.
    let mut sealed = HashSet::new();
    while let Some(fact) = facts.recv().await {
        match &fact {
            SwarmFact::Sealed { job } => drop(sealed.insert(*job)),
            SwarmFact::Left { job, .. } if sealed.remove(job) => continue,
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
            let sender = name(from, fleet).await;
            let finder = name(Some(by), fleet).await;
            let mut notes = vec![(
                by,
                Step::Transfer,
                format!("chunk {} from {sender} failed its hash: thrown away", chunk.0),
            )];
            notes.extend(from.map(|job| {
                (
                    job,
                    Step::Linger,
                    format!("sent {finder} wrong bytes for chunk {}: look at its memory and disk", chunk.0),
                )
            }));
            notes
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
                Some(job) => format!("{} had it", name(Some(job), fleet).await),
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

async fn name(job: Option<JobId>, fleet: &FleetHandle) -> String {
    let Some(job) = job else { return "a machine that has left".to_owned() };
    fleet.name_of_job(job).await.ok().flatten().unwrap_or_else(|| job.to_string())
}
