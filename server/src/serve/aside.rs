//! Work that reads a lot of the disk, off the task that hears the signals. Touches tokio's threads for such work.

use crate::fault::Fault;

/// Does `work` on a thread of its own.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Fault::failed("a step of starting ended by itself").because(&error))?
}
