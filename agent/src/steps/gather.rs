//! Step `gather`: waiting at the gate, where there is one. Nothing has been written yet: who cancels here
//! leaves every machine as it was.

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
    // How many have arrived is the server's to say: the last count heard here is from before the one that opened the gate.
    Ok(String::new())
}
