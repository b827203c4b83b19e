//! The boot server's routes and the bodies they carry. Owns the paths, so that server and machine cannot
//! disagree. Touches `id`, `trust`.
//!
//! | route | body | answer |
//! | --- | --- | --- |
//! | `GET /boot.ipxe`, `/autoexec.ipxe` | | iPXE script for the machine in the query |
//! | `GET /boot/{kit}/{file}` | | kernel, loader; ranges and HEAD |
//! | `GET /nbp/{file}` | | network boot program, for UEFI HTTP boot |
//! | `GET /v1/identity` | | [`Identity`] |
//! | `POST /v1/report` | `Signed<SentReport>` by its own key, with the nonce of [`Identity`] | `Signed<Verdict>` |
//! | `GET /v1/bundle/{hash}` | | agent bundle: a zstd-compressed cpio archive |
//! | `GET /v1/driver/{hash}` | | the module or firmware file of this hash, as a zstd frame |
//! | `GET /v1/manifest/{image}` | | the manifest's bytes |
//! | `POST /v1/wait` | `Signed<WaitRequest>` by the machine's key | `Signed<WaitAnswer>`, when there is news or after a while |
//! | `GET /v1/deltas/{image}` | | the table of the image's deltas |
//! | `POST /v1/events` | `Signed<EventBatch>` by the machine's key | `Signed<EventsTaken>` |
//! | `POST /v1/confirm/{token}` | [`super::call_home::CallHome`] as JSON, or anything else | the installed OS is up |

use serde::{Deserialize, Serialize};

use crate::id::Hash;
use crate::trust::{PublicKey, Signable};

/// Where a machine sends its hardware report.
pub const REPORT: &str = "/v1/report";
/// Where a machine waits until its report would be answered otherwise.
pub const WAIT: &str = "/v1/wait";
/// Where an agent sends its step events.
pub const EVENTS: &str = "/v1/events";
/// Where the server says who it is, unsigned.
pub const IDENTITY: &str = "/v1/identity";
/// Agent bundles, each under its hash.
pub const BUNDLE: &str = "/v1/bundle";
/// Modules and firmware that a small loader lacks, each under the hash of the uncompressed file.
pub const DRIVER: &str = "/v1/driver";
/// Manifests, each under its image.
pub const MANIFEST: &str = "/v1/manifest";
/// Tables of deltas, each under its image.
pub const DELTAS: &str = "/v1/deltas";
/// Where an installed OS calls home, each under its token.
pub const CONFIRM: &str = "/v1/confirm";

/// The kernel parameter with the server's address: `swarmboot.server=http://10.0.0.1:8069`.
pub const CMDLINE_SERVER: &str = "swarmboot.server";
/// The kernel parameter with the server's public key.
pub const CMDLINE_KEY: &str = "swarmboot.key";
/// The kernel parameter with the Ethernet address that the machine booted from.
pub const CMDLINE_MAC: &str = "swarmboot.mac";

/// Who the server is. Not trusted by a machine, which has the key on its kernel command line; for people and the nonce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The server's public key.
    pub key: PublicKey,
    /// The server's version, for people.
    pub version: String,
    /// A nonce to be signed with a report that is sent now; empty when the server sent none.
    #[serde(default)]
    pub nonce: String,
}

/// How far the server has taken a machine's events. Signed by the server, because an agent obeys it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsTaken {
    /// The batch that this answers, by [`crate::trust::Signed::digest`]: so the answer to another batch, boot or
    /// machine cannot be passed off as the answer to this one.
    pub batch: Hash,
    /// The highest event number that is safely stored; the agent need not send it or lower ones again.
    pub through: u64,
    /// Set when the job was cancelled: the agent stops where that is safe, with this reason.
    #[serde(default)]
    pub cancelled: Option<String>,
}

impl Signable for EventsTaken {
    const DOMAIN: &'static str = "swarmboot events taken 1";
}

/// The request of a machine that was told to wait. The server leaves it unanswered until a report would be answered
/// otherwise, or for a while: so an order reaches the machine at once, and waiting costs some hundred bytes a minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitRequest {
    /// The key of the machine's boot, which signs the request.
    pub key: PublicKey,
    /// The machine's last report, by [`crate::trust::Signed::digest`].
    pub report: Hash,
    /// The number of this request among those after that report, counted from one: a recorded one bears a number that
    /// the server has seen.
    pub number: u64,
}

impl Signable for WaitRequest {
    const DOMAIN: &'static str = "swarmboot wait 1";
}

/// The answer to a [`WaitRequest`]. Signed, because a machine that believed a forged one would report for ever or wait
/// for ever; what the machine is to do then still comes from the verdict on its next report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitAnswer {
    /// The request that this answers, by [`crate::trust::Signed::digest`].
    pub request: Hash,
    /// What has come of it.
    pub news: News,
    /// Milliseconds before the machine does what follows, so that many machines do not do it in the same moment.
    #[serde(default)]
    pub pause_ms: u32,
}

impl Signable for WaitAnswer {
    const DOMAIN: &'static str = "swarmboot news 1";
}

/// What has come of a [`WaitRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum News {
    /// Nothing has changed: wait on.
    None,
    /// A report would be answered otherwise than the last one: report.
    Report,
    /// The server does not know that report, because it was restarted or the machine was forgotten: report.
    Unknown,
}

/// An error body: what, why and what to do, for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Refused {
    /// What was refused, in one sentence.
    pub error: String,
    /// Why, when there is more to say.
    #[serde(default)]
    pub cause: Option<String>,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
}
