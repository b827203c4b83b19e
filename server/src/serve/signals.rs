//! The signals to stop, SIGTERM and SIGINT. Touches the process's signal handlers.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::fault::Fault;

/// Receives the signals to stop. Registered before anything is opened: a service manager may stop a server that is still
/// starting, and that is no failure.
pub(crate) struct StopSignals {
    term: Signal,
    int: Signal,
}

impl StopSignals {
    /// Registers both handlers; from now on the signals no longer end the process by themselves.
    pub(crate) fn listen() -> Result<Self, Fault> {
        let on = |kind| {
            signal(kind)
                .map_err(|error| Fault::failed("cannot listen for the signal to stop").because(&error))
        };
        Ok(Self { term: on(SignalKind::terminate())?, int: on(SignalKind::interrupt())? })
    }

    /// Returns at the next signal.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// Returns at the next signal; the one after that exits the process at once.
    pub(crate) async fn asked(mut self) {
        self.next().await;
        tracing::info!("stopping; a second signal leaves at once");
        tokio::spawn(async move {
            self.next().await;
            #[allow(clippy::exit)] // Asked for twice.
            std::process::exit(1);
        });
    }
}
