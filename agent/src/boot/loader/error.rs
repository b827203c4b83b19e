//! Why a try of the loader ended without reaching the agent, with what a person can do, and how long the next one may
//! wait. Touches the errors of the rest of `boot`.

use std::time::Duration;

use crate::boot::bundle::BundleError;
use crate::boot::cmdline::BadCmdline;
use crate::boot::handover::HandoverError;
use crate::boot::memory::{SHORT_OF_MEMORY, memory_is_short};
use crate::boot::network::NetworkError;
use crate::fetch::FetchError;
use crate::fetch::again::UNSENT_MAX;

/// The back-off after the first try or report that fails.
pub(super) const PAUSE: Duration = Duration::from_secs(2);

/// The longest back-off: a try may take bundle and drivers over a thin line again, and a report 60 KiB.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Why one try ended without reaching the agent; the next one begins after a back-off.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoaderError {
    #[error("cannot read the kernel command line")]
    Cmdline(#[source] std::io::Error),
    #[error(transparent)]
    BadCmdline(#[from] BadCmdline),
    #[error("the kernel has no random numbers to make a key from")]
    Key(#[source] getrandom::Error),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("cannot keep the lease")]
    Lease(#[source] std::io::Error),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("the plan names no agent bundle: it is for an agent as an ordinary process")]
    NoBundle,
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error("cannot start the agent")]
    Start(#[source] std::io::Error),
}

impl LoaderError {
    /// What a person can do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Cmdline(_) | Self::Key(_) | Self::Lease(_) => "this kernel lacks something usual",
            Self::BadCmdline(_) => {
                "the loader is started by swarmboot's own boot script, which gives these words"
            }
            Self::Network(NetworkError::NoInterface) if memory_is_short() => SHORT_OF_MEMORY,
            Self::Network(NetworkError::NoInterface) => {
                "the boot kit may lack this card's driver: import a kit of the full kernel"
            }
            Self::Network(_) => "the boot kit may lack firmware for this card",
            Self::Fetch(error) => error.hint(),
            Self::Bundle(_) | Self::Handover(_) if memory_is_short() => SHORT_OF_MEMORY,
            Self::Bundle(_) | Self::Handover(_) => "does this machine have at least 512 MiB of memory?",
            Self::NoBundle | Self::Start(_) => "the server's log says more",
        }
    }

    /// The longest back-off after it: short where nothing went over the line but questions for an address, and the
    /// server only has to be found.
    pub(super) fn pause_max(&self) -> Duration {
        match self {
            Self::Network(_) => UNSENT_MAX,
            Self::Fetch(error) if error.is_unsent() => UNSENT_MAX,
            _ => PAUSE_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use common::id::Hash;
    use common::trust::KeyPair;

    use super::*;
    use crate::fetch::Server;

    #[test]
    fn a_server_that_is_away_is_looked_for_and_what_is_wrong_with_it_is_not_fetched_on_and_on() {
        let key = KeyPair::from_secret([1; 32]).public();
        let away = Server::new("http://127.0.0.1:1", key).unwrap().identity().unwrap_err();
        let wrong = FetchError::WrongHash { got: Hash::of(b"a"), wanted: Hash::of(b"b") };
        let table = [
            (LoaderError::Network(NetworkError::NoInterface), UNSENT_MAX),
            (LoaderError::Fetch(away), UNSENT_MAX),
            (LoaderError::Fetch(wrong), PAUSE_MAX),
            (LoaderError::NoBundle, PAUSE_MAX),
        ];
        for (error, most) in table {
            assert_eq!(error.pause_max(), most, "{error}");
        }
    }
}
