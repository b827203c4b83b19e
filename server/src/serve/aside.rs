//! Work that reads a lot of the disk, off the task that waits for the signals to stop. Touches tokio's blocking
//! threads.

use crate::fault::Fault;

/// Runs `work` on a blocking thread and waits for its result.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Fault::failed("a step of starting ended by itself").because(&error))?
}
