//! Binding everything before starting anything; the order of stopping.

use crate::cli::fault::Fault;
use crate::config::Config;

/// Runs the server until it is told to stop.
///
/// # Errors
/// When something cannot be bound, or a task ends early.
#[allow(clippy::unused_async)]
pub async fn run(config: Config) -> Result<(), Fault> {
    Err(Fault::failed(format!("cannot serve {} yet", config.interface)))
}
