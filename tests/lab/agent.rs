//! Owns agents that run as ordinary processes in the rack's namespace, each with a file as its disk. They wait for an
//! order under a name of their own, and end when it is carried out.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::net::{Net, Segment};
use crate::process::{self, Beside};
use crate::server::Server;

/// The timeout of an agent's first report.
const REPORT_LIMIT: Duration = Duration::from_secs(60);

/// The command of an agent, not started yet: it is called `name`, may write `target`, asks the server at `address` for
/// its order, and ends when that is carried out.
///
/// # Errors
/// When the program has not been built.
pub fn command(net: &Net, address: &str, name: &str, target: &Path) -> Result<Command> {
    let url = format!("http://{address}:8069");
    let mut command = net.command(process::program("swarmboot-agent")?);
    command.args(["run", "--once", "--server", &url, "--name", name, "--target"]).arg(target);
    Ok(command)
}

/// Starts an agent that is called `name` and may write `target`, and waits until the server on `segment` lists it. Its
/// output goes to `NAME.log` in `folder`.
///
/// # Errors
/// When the program has not been built, or the agent does not report.
pub fn start(
    net: &Net,
    segment: Segment,
    server: &Server<'_>,
    folder: &Path,
    name: &str,
    target: &Path,
) -> Result<Beside> {
    let mut command = command(net, &segment.address(1), name, target)?;
    let mut agent = Beside::start(name, &mut command, &folder.join(format!("{name}.log")))?;
    server.wait_json(&format!("{name} to report"), &["machine", "list"], REPORT_LIMIT, |machines| {
        machines.as_array()?.iter().any(|machine| machine["name"] == name).then_some(())
    })?;
    agent.check_running()?;
    Ok(agent)
}
