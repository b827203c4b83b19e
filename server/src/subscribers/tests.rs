//! Tests of subscribers against real receivers: over HTTP, TLS, sockets and files. Each world has a fleet over a store in
//! memory, which outlives a restart.

// A receiver of webhooks that does what a test tells it.
pub(super) mod receiver;

// Webhooks.
mod webhooks;

// Exports.
mod exports;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::step::{Step, What};
use common::trust::KeyPair;
use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::settings::Subscriptions;
use super::{Handle, Stopped, open};
use crate::api::shapes::{LogEvent, SubscriberShown};
use crate::fleet::store::LogFilter;
use crate::fleet::testing::memory::Memory;
use crate::fleet::testing::nothing::Nothing;
use crate::fleet::testing::settings;
use crate::fleet::{FleetHandle, FleetTask, start};

/// An event of the transfer of `web1`.
pub(super) fn event(id: u64, what: What) -> LogEvent {
    LogEvent {
        id,
        at: Timestamp::from_second(i64::try_from(id).unwrap()).unwrap(),
        machine: None,
        name: "web1".to_owned(),
        deployment: None,
        job: None,
        attempt: None,
        step: Step::Transfer,
        what,
        sources: None,
        by: None,
        by_machine: false,
    }
}

/// Names that a machine may give itself, to forge a line or to steer a terminal.
pub(super) fn hostile() -> Vec<String> {
    let short = [
        "",
        " ",
        "\n<0>1 - - - - - - forged",
        "a\r\nwebhook-id: 1\r\n\r\n{}",
        "{\"id\":1}\n{\"id\":2}",
        "\"] [x@1 y=\"z\"] forged",
        "MESSAGE=forged\nPRIORITY=0\n",
        "\u{1b}[31mred\u{1b}]0;title\u{7}",
        "\0\u{7f}\u{80}\u{85}\u{9b}31m",
        "\u{2028}\u{2029}\u{202e}\u{feff}\u{e0041}",
        "a\\",
        "\u{1f600}\u{fc}",
    ];
    let long =
        ["x".repeat(64 << 10), "\n".repeat(64 << 10), "\u{1f600}".repeat(16 << 10), "]\"".repeat(32 << 10)];
    short.into_iter().map(str::to_owned).chain(long).collect()
}

/// A fleet with its records, and those who are told of its events.
struct World {
    fleet: FleetHandle,
    handle: Handle,
    running: JoinHandle<Result<(), Stopped>>,
    cancel: CancellationToken,
    _task: FleetTask,
}

impl World {
    /// Starts over what `memory` has.
    async fn start(memory: &Memory, subscriptions: &Subscriptions) -> Self {
        let key = KeyPair::from_secret([1; 32]);
        let (fleet, task) = start(Box::new(memory.clone()), Arc::new(Nothing), key, settings()).unwrap();
        let opened = open(subscriptions, "/swarmboot/test", "seed").unwrap();
        let (handle, cancel) = (opened.handle(), CancellationToken::new());
        let running = tokio::spawn(opened.run(fleet.clone(), cancel.clone()));
        let world = Self { fleet, handle, running, cancel, _task: task };
        // Whoever is new begins with what happens once it is known.
        world
            .until(|world| world.handle.shown().iter().all(|shown| shown.cursor > 0 || shown.behind == 0))
            .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        world
    }

    async fn note(&self, text: &str) {
        self.fleet.note(text.to_owned()).await;
    }

    /// Waits until `holds`, and no longer than half a minute.
    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        for _ in 0..1500 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it never came to that: {:?}", self.handle.shown());
    }

    fn shown(&self) -> SubscriberShown {
        self.handle.shown().remove(0)
    }

    /// What the log says of subscribers.
    async fn said(&self) -> Vec<String> {
        let log = self.fleet.log_page(LogFilter::default(), 0, 1000).await.unwrap();
        let said = log.into_iter().filter(|event| event.name.starts_with("webhook "));
        said.map(|event| format!("{} {}", event.name, event.what.in_log())).collect()
    }

    /// Stops as the server does, and waits for it.
    async fn stop(self) {
        self.cancel.cancel();
        self.running.await.unwrap().unwrap();
    }

    /// Ends as if the server were killed: nothing more is kept.
    async fn kill(self) {
        self.running.abort();
        drop(self.running.await);
    }
}

/// A file with a secret in `dir`.
fn secret(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("secret");
    std::fs::write(&path, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    path
}
