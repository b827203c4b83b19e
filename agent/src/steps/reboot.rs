//! Step `reboot`: leaves the swarm, and says what happens to the machine. The program itself restarts it, once the
//! server has the events. The firmware's boot order is left alone: the server answers "boot your disk" from now on, and
//! firmware that ignores or rewrites the boot order is common.

use common::plan::Finish;

use super::error::StepError;
use super::machine::Machine;

pub(super) async fn run(machine: &mut Machine) -> Result<String, StepError> {
    machine.leave().await;
    let text = match machine.plan.finish {
        Finish::Reboot => "restarting into the new OS",
        Finish::PowerOff => "switching off",
        Finish::Stay => "staying on until somebody restarts it",
        Finish::Exit => "done",
    };
    Ok(text.to_owned())
}
