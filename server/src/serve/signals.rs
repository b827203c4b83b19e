//! The signals to stop. Touches the process's signals.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::fault::Fault;

/// The wish to stop. Heard from the very beginning: a service manager may stop a server that has hardly begun, and
/// that is no failure.
pub(super) struct StopSignals {
    term: Signal,
    int: Signal,
}

impl StopSignals {
    /// Hears them from now on.
    pub(super) fn listen() -> Result<Self, Fault> {
        let on = |kind| {
            signal(kind)
                .map_err(|error| Fault::failed("cannot listen for the signal to stop").because(&error))
        };
        Ok(Self { term: on(SignalKind::terminate())?, int: on(SignalKind::interrupt())? })
    }

    /// Returns at the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// Returns when the server is asked to stop; if it is asked again, it leaves at once.
    pub(super) async fn asked(mut self) {
        self.next().await;
        tracing::info!("stopping; a second signal leaves at once");
        tokio::spawn(async move {
            self.next().await;
            #[allow(clippy::exit)] // Asked for twice.
            std::process::exit(1);
        });
    }
}
