//! Step `gather`: waiting at the gate, where there is one. Nothing has been written yet: who cancels here
//! leaves every machine as it was.

use super::machine::Machine;
use super::run::{StepError, Teller};

pub(super) async fn run(machine: &mut Machine, teller: &Teller) -> Result<String, StepError> {
    machine.rejoin_if_broken().await?;
    let mut seen = None;
    machine
        .wait(
            |heard| heard.started.then_some(()),
            |heard| {
                if let Some((arrived, wanted, _)) = heard.gather
                    && heard.gather != seen
                {
                    teller.progress(u64::from(arrived), u64::from(wanted), None);
                    seen = heard.gather;
                }
            },
        )
        .await?;
    let gate = machine.session()?.heard.borrow().gather;
    Ok(gate.map_or_else(String::new, |(arrived, ..)| format!("{arrived} machines")))
}
