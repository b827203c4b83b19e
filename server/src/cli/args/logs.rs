//! `swarmboot logs` as it is typed. Touches `clap`'s types only.

use clap::Args as ClapArgs;
use common::id::DeploymentId;
use common::step::Step;

/// Flags of `logs`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  swarmboot logs m1 --step transfer\n  swarmboot logs --follow -o json")]
pub struct Logs {
    /// Only of these machines.
    #[arg(value_name = "MACHINE")]
    pub machines: Vec<String>,
    /// Only of machines that fit, as in `machine list -l`.
    #[arg(short, long = "label", value_name = "SELECTOR")]
    pub labels: Vec<String>,
    /// Go on with new events as they happen.
    #[arg(short, long)]
    pub follow: bool,
    /// Only events of the last while (90s, 15m, 2h, 3d), or since a time (2026-11-22T10:00:00Z).
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Only of this step.
    #[arg(long)]
    pub step: Option<Step>,
    /// Only of this deployment.
    #[arg(long)]
    pub deployment: Option<DeploymentId>,
    /// With progress, too.
    #[arg(long)]
    pub progress: bool,
}
