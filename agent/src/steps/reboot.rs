//! Step `reboot`: out of the swarm, and the last word. The restart itself is the program's, once the server
//! has the events; the firmware's boot order is left alone, because the server says "boot your disk" from now
//! on and firmware that ignores or rewrites it is common.

use common::plan::Finish;

use super::error::StepError;
use super::machine::Machine;

pub(super) async fn run(machine: &mut Machine) -> Result<String, StepError> {
    machine.leave().await;
    let text = match machine.plan.finish {
        Finish::Reboot => "restarting into the new OS",
        Finish::PowerOff => "switching off",
        Finish::Exit => "done",
    };
    Ok(text.to_owned())
}
