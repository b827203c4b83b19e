//! Step `gather`: waits at the gate, where there is one. Touches the swarm alone: nothing has been written yet, so a
//! cancelled job leaves every machine as it was.

use super::error::StepError;
use super::machine::Machine;
use super::run::StepReporter;

pub(super) async fn run(machine: &mut Machine, reporter: &StepReporter) -> Result<String, StepError> {
    machine.rejoin_if_broken().await?;
    let mut seen = None;
    machine
        .wait(
            |heard| heard.started.then_some(()),
            |heard| {
                if let Some((arrived, wanted, _)) = heard.gather
                    && heard.gather != seen
                {
                    reporter.progress(u64::from(arrived), u64::from(wanted), None);
                    seen = heard.gather;
                }
            },
        )
        .await?;
    // The server knows how many have arrived; the last count received is from before the one that opened the gate.
    Ok(String::new())
}
