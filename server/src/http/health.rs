//! What monitoring fetches: `/metrics`, `/healthz` and `/readyz`, for the API's listeners and for one of its own. Who may
//! is decided by the listener: `/healthz` and `/readyz` say one word and need nobody's leave; `/metrics` and
//! `/readyz/checks` name sites and tell what is missing. Touches what is behind [`Watch`].

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::future::BoxFuture;
use serde::Serialize;

use crate::metrics::OPENMETRICS;

/// One thing that a server needs to do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, one word.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ready: bool,
    /// What is wrong with it, in one sentence; empty when nothing is.
    pub problem: String,
}

impl Check {
    /// A check that passes when `problem` is `None`.
    #[must_use]
    pub fn of(name: &'static str, problem: Option<String>) -> Self {
        Self { name, ready: problem.is_none(), problem: problem.unwrap_or_default() }
    }
}

/// Looks at the running server.
pub trait Watch: Send + Sync + 'static {
    /// All metrics, in the OpenMetrics text format.
    fn scrape(&self) -> BoxFuture<'_, String>;

    /// Whether the fleet answers in time: what does not is stuck, and helped by a restart only.
    fn alive(&self) -> BoxFuture<'_, bool>;

    /// Everything that machines need, each with what is wrong.
    fn checks(&self) -> BoxFuture<'_, Vec<Check>>;
}

/// The routes that say one word and need nobody's leave. `/readyz` fails while any check does, `/healthz` only when a
/// restart would help.
pub fn words<S: Clone + Send + Sync + 'static>(watch: &Arc<dyn Watch>) -> Router<S> {
    let (health, ready) = (Arc::clone(watch), Arc::clone(watch));
    Router::new().route("/healthz", get(async move || word(health.alive().await, "ok", "stuck"))).route(
        "/readyz",
        get(async move || word(ready.checks().await.iter().all(|check| check.ready), "ready", "not ready")),
    )
}

/// The routes that tell what the server does, and what is missing.
pub fn details<S: Clone + Send + Sync + 'static>(watch: &Arc<dyn Watch>) -> Router<S> {
    let (metrics, checks) = (Arc::clone(watch), Arc::clone(watch));
    Router::new().route("/metrics", get(async move || text(metrics.scrape().await))).route(
        "/readyz/checks",
        get(async move || {
            let checks = checks.checks().await;
            (status(checks.iter().all(|check| check.ready)), Json(checks))
        }),
    )
}

fn text(metrics: String) -> Response {
    let mut response = metrics.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS));
    response
}

fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn word(good: bool, yes: &'static str, no: &'static str) -> (StatusCode, String) {
    (status(good), format!("{}\n", if good { yes } else { no }))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    struct Broken(bool);

    impl Watch for Broken {
        fn scrape(&self) -> BoxFuture<'_, String> {
            Box::pin(async { "# EOF\n".to_owned() })
        }

        fn alive(&self) -> BoxFuture<'_, bool> {
            Box::pin(async { self.0 })
        }

        fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
            let kit = Check::of("kit", (!self.0).then(|| "there is no boot kit".to_owned()));
            Box::pin(async { vec![Check::of("fleet", None), kit] })
        }
    }

    async fn get(good: bool, path: &str) -> (u16, String, String) {
        use hyper::service::Service as _;
        let watch: Arc<dyn Watch> = Arc::new(Broken(good));
        let request = hyper::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let service =
            hyper_util::service::TowerToHyperService::new(words::<()>(&watch).merge(details(&watch)));
        let Ok(response) = service.call(request).await;
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, kind.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn one_word_for_anybody_and_the_reasons_for_who_may_know() {
        let plain = |status, word: &str| (status, "text/plain; charset=utf-8".to_owned(), word.to_owned());
        assert_eq!(get(true, "/healthz").await, plain(200, "ok\n"));
        assert_eq!(get(false, "/healthz").await, plain(503, "stuck\n"));
        assert_eq!(get(true, "/readyz").await, plain(200, "ready\n"));
        assert_eq!(get(false, "/readyz").await, plain(503, "not ready\n"));
        let (status, _, body) = get(false, "/readyz/checks").await;
        assert_eq!(status, 503);
        assert!(body.contains(r#"{"name":"kit","ready":false,"problem":"there is no boot kit"}"#), "{body}");
        let (status, kind, body) = get(true, "/metrics").await;
        assert_eq!((status, kind.as_str(), body.as_str()), (200, OPENMETRICS, "# EOF\n"));
    }
}
