//! Dispatch: maps each step of the agent to the file that carries it out; the only file that knows all of them. A new
//! step of the agent is its file and a line here. Touches the job's state through the steps alone.

use common::step::{Sources, Step};

use super::error::StepError;
use super::machine::Machine;
use super::run::{StepReporter, Work};
use super::{gather, hooks, join, linger, personalise, reboot, seal, transfer, verify};

impl Work for Machine {
    async fn carry_out(&mut self, step: &Step, reporter: &StepReporter) -> Result<String, StepError> {
        self.begin(step)?;
        match step {
            Step::Join => join::run(self, reporter).await,
            Step::Gather => gather::run(self, reporter).await,
            Step::Transfer => transfer::run(self, reporter).await,
            Step::Verify => verify::run(self, reporter).await,
            Step::Personalise => personalise::run(self),
            Step::Hooks => hooks::run(self, reporter).await,
            Step::Seal => seal::run(self).await,
            Step::Linger => linger::run(self, reporter).await,
            Step::Reboot => reboot::run(self).await,
            other => Err(StepError::Unknown(other.clone())),
        }
    }

    fn sources(&self) -> Option<Sources> {
        Some(self.counted())
    }
}
