//! Retries in the admin's API: jobs that failed or were refused, ordered again. Touches `common`.

use common::id::{DeploymentId, JobId};
use common::plan::DiskIdentity;
use serde::{Deserialize, Serialize};

use super::{DeployLine, Selection};

/// Orders jobs again that failed or were refused.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Retry {
    /// The deployment whose jobs are retried; `None` for each machine's newest job.
    pub deployment: Option<DeploymentId>,
    /// Which machines; all of the deployment's when empty.
    pub selection: Selection,
    /// Only jobs that have failed, and none that were refused.
    pub failed: bool,
    /// The most jobs that are retried, where that is more than the server's ceiling; that when `None`.
    pub max_machines: Option<u32>,
    /// What a dry run showed: only these jobs are retried, each on its disk. `None` chooses them anew.
    pub shown: Option<Vec<RetryShown>>,
    /// Whether this is a dry run, which only shows what would be done.
    pub dry_run: bool,
}

/// One job, as a dry run showed it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RetryShown {
    /// The job that failed or was refused.
    pub job: JobId,
    /// The disk that would be written; `None` when the machine's hardware was not known.
    pub disk: Option<DiskIdentity>,
}

/// One job that is ordered again, or would be.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RetryLine {
    /// The job that failed or was refused.
    pub job: JobId,
    /// The deployment that it is part of.
    pub deployment: DeploymentId,
    /// The image's name.
    pub image: String,
    /// What the retry means for the machine.
    #[serde(flatten)]
    pub line: DeployLine,
}
