//! Delivers events to a webhook: one at a time, signed, in order. Only an answer of 2xx counts. Touches the connection
//! and the clock.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::StatusCode;
use jiff::Timestamp;
use rustls::ClientConfig;

use super::connection::{Answer, Connection};
use super::follower::Failure;
use super::form::{Item, cloud_event};
use super::outlet::{Outcome, Outlet, PATIENCE};
use super::settings::WebhookUrl;
use super::signing::Secrets;

/// One webhook.
pub(super) struct ToWebhook {
    connection: Connection,
    secrets: Secrets,
    /// What its events name as their source.
    source: Arc<str>,
}

impl ToWebhook {
    /// A webhook at `url`; `tls` is for `https`.
    pub(super) fn new(
        url: WebhookUrl,
        tls: Option<Arc<ClientConfig>>,
        secrets: Secrets,
        source: Arc<str>,
    ) -> Self {
        Self { connection: Connection::new(url, tls), secrets, source }
    }

    async fn post(&mut self, item: &Item) -> Outcome {
        let (id, body) = (item.id(), Bytes::from(cloud_event(item, &self.source)));
        // The time of this try: a receiver refuses old ones, which somebody may have recorded.
        let seconds = Timestamp::now().as_second();
        let headers = [
            ("content-type", "application/cloudevents+json; charset=utf-8".to_owned()),
            ("webhook-signature", self.secrets.sign(&id, seconds, &body)),
            ("webhook-timestamp", seconds.to_string()),
            ("webhook-id", id),
        ];
        match tokio::time::timeout(PATIENCE, self.connection.post(&headers, &body)).await {
            Ok(Ok(answer)) => judged(answer),
            Ok(Err(error)) => Outcome::until(0, error.to_string()),
            Err(_) => Outcome::until(0, format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }
}

/// What an answer means.
fn judged(Answer { status, retry_after }: Answer) -> Outcome {
    let cause = match status {
        _ if status.is_success() => return Outcome::all(1),
        StatusCode::GONE => {
            let cause = "it answers 410 Gone: it wants no more events".to_owned();
            return Outcome { delivered: 0, failure: Some(Failure::Gone { cause }) };
        }
        _ if status.is_redirection() => {
            format!(
                "it answers {status}: a webhook follows no redirects, so its `url` must name the new place"
            )
        }
        _ => format!("it answers {status}"),
    };
    Outcome { delivered: 0, failure: Some(Failure::Again { cause, after: retry_after }) }
}

impl Outlet for ToWebhook {
    fn deliver<'a>(&'a mut self, items: &'a [Item]) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match items.first() {
                Some(item) => self.post(item).await,
                None => Outcome::all(0),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_2xx_counts() {
        let judge =
            |status: u16| judged(Answer { status: StatusCode::from_u16(status).unwrap(), retry_after: None });
        for good in [200, 201, 202, 204, 299] {
            assert_eq!(judge(good), Outcome::all(1), "{good}");
        }
        for bad in [301, 302, 304, 307, 308, 400, 401, 404, 413, 429, 500, 503] {
            assert!(matches!(judge(bad).failure, Some(Failure::Again { .. })), "{bad}");
        }
        assert!(matches!(judge(410).failure, Some(Failure::Gone { .. })));
    }
}
