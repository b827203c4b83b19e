//! What was refused or has failed, ordered again, as it crosses the admin socket. Touches `common`.

use common::id::{DeploymentId, JobId};
use common::plan::DiskIdentity;
use serde::{Deserialize, Serialize};

use super::{DeployLine, Selection};

/// Orders again what was refused or has failed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// Of this deployment; of each machine's newest when none.
    pub deployment: Option<DeploymentId>,
    /// Which machines; all of the deployment when empty.
    pub selection: Selection,
    /// The jobs that were shown, each with its disk: these and no others. Chosen anew when none.
    pub shown: Option<Vec<RetryShown>>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// One job as it was shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RetryShown {
    /// The job that failed or was refused.
    pub job: JobId,
    /// The disk that would be written, when the machine's hardware was known.
    pub disk: Option<DiskIdentity>,
}

/// One job that would be, or is, ordered again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RetryLine {
    /// The job that failed or was refused.
    pub job: JobId,
    /// The deployment that it is part of.
    pub deployment: DeploymentId,
    /// The image's name.
    pub image: String,
    /// What it means for the machine.
    #[serde(flatten)]
    pub line: DeployLine,
}
