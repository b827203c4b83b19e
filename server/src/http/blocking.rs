//! Work that reads or writes a disk, off the async threads. Touches nothing but the runtime's threads.

use axum::http::StatusCode;

use super::refusal::Refusal;

/// Does `work` on a thread that may block, and gives what came of it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a worker thread failed");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "a worker thread failed")
            .hint("the server's own log has more")
    })
}
