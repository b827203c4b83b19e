//! Where the loader and the agent are: in the folder of this program. Touches that folder.

use std::path::PathBuf;

use crate::fault::Fault;

/// The programs that machines run. They are built with the server and installed beside it.
pub(super) struct Programs {
    pub(super) loader: PathBuf,
    pub(super) agent: PathBuf,
}

impl Programs {
    pub(super) fn beside_us() -> Result<Self, Fault> {
        let us = std::env::current_exe()
            .map_err(|error| Fault::failed("cannot find this program's own folder").because(&error))?;
        let beside = |name: &str| {
            let path = us.with_file_name(name);
            if path.is_file() {
                return Ok(path);
            }
            Err(Fault::failed(format!("{} is not there", path.display()))
                .hint("swarmboot, swarmboot-loader and swarmboot-agent belong into one folder"))
        };
        Ok(Self { loader: beside("swarmboot-loader")?, agent: beside("swarmboot-agent")? })
    }
}
