//! Relays in the admin's API, and which images are staged at them. Touches `common`.

use std::net::SocketAddr;

use common::id::ImageId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A request to invite a relay to a site.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RelayInvite {
    /// The site that it is to serve; its subnets are known from the configuration.
    pub site: String,
    /// The relay's name; `None` for one made of the site's.
    #[serde(default)]
    pub name: Option<String>,
    /// Seconds for which the invitation can be used; `None` for a day.
    #[serde(default)]
    pub expires_seconds: Option<u64>,
}

/// An invitation, shown once: the server keeps nothing that could enrol a relay.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RelayInvited {
    /// The relay's name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// Until when the word can be used.
    pub expires: Timestamp,
    /// The word for `swarmboot relay run --invite`.
    pub word: String,
    /// The server's URL as machines reach it.
    pub url: String,
}

/// What has become of an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RelayState {
    /// Its word was not used yet.
    Invited,
    /// Its word was not used in time.
    Expired,
    /// It is enrolled, and was heard of lately.
    Here,
    /// It is enrolled, and was not heard of lately.
    Away,
    /// It was revoked, or its invitation was withdrawn.
    Revoked,
}

/// A relay, as `relay list` prints it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RelayShown {
    /// Its name; that of a revoked one may be given again.
    pub name: String,
    /// Its site.
    pub site: String,
    /// What has become of it.
    pub state: RelayState,
    /// When it was invited.
    pub invited: Timestamp,
    /// When it was enrolled; `None` if its word was not used.
    pub enrolled: Option<Timestamp>,
    /// When it was last heard of; `None` if never.
    pub last_seen: Option<Timestamp>,
    /// The version that it last said.
    pub version: Option<String>,
    /// Where the site's machines reach it; `None` while it is away.
    #[schema(value_type = Option<String>)]
    pub http: Option<SocketAddr>,
    /// Bytes that its cache may still take; `None` where it does not say.
    pub free_bytes: Option<u64>,
    /// What it has of images; empty while it is away.
    pub images: Vec<RelayHolds>,
    /// What an admin should look at, each in one sentence.
    pub warnings: Vec<String>,
}

/// How much of an image a relay has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RelayHolds {
    /// The image.
    pub image: ImageId,
    /// Its name; its id where nothing is known of it any more.
    pub name: String,
    /// Chunks that the relay holds, of those that have to be fetched.
    pub held: u32,
    /// Chunks that have to be fetched; 0 while the relay does not know.
    pub total: u32,
    /// What keeps it from going on.
    pub trouble: Option<String>,
}

/// A request to stage an image at a site, to change when and how fast, or to end that.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageStage {
    /// The site, whose relays fetch the image.
    pub site: String,
    /// When they begin; `None` for at once.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
    /// How much of the line they take, in bits per second; `None` for all that its limit leaves.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Whether the image is not to be staged there any more.
    #[serde(default)]
    pub remove: bool,
}

/// An image that is staged at a site, as `image list` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Staged {
    /// The image.
    pub image: ImageId,
    /// The site.
    pub site: String,
    /// When its relays begin; `None` if at once.
    pub not_before: Option<Timestamp>,
    /// How much of the line they take, in bits per second; `None` for all that its limit leaves.
    pub limit: Option<u64>,
    /// How much of it each relay of the site has.
    pub relays: Vec<StagedAt>,
}

/// How much of a staged image one relay has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StagedAt {
    /// The relay's name.
    pub relay: String,
    /// Chunks that it holds, and chunks that have to be fetched; `None` while it is away or has not begun.
    pub chunks: Option<(u32, u32)>,
    /// What keeps it from going on.
    pub trouble: Option<String>,
}
