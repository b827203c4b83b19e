//! Blocking work of a request handler, off the async threads. Touches tokio's blocking threads only.

use axum::http::StatusCode;

use super::refusal::Refusal;

/// Runs `work` on a blocking thread and waits for its result; the error is a panic in `work`.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a worker thread failed");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "a worker thread failed")
            .hint("the server's own log has more")
    })
}
