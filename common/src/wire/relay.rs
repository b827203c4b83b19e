//! What a relay and the server say to each other. Owns the routes, the bodies and the header that a relay passes
//! machines' requests on with. Touches `id`, `limits`, `trust`.
//!
//! | route | body | answer |
//! | --- | --- | --- |
//! | `POST /v1/relay/enrol` | `Signed<Enrol>` by the relay's own key | `Signed<Enrolled>` by the server |
//! | `POST /v1/relay/state` | `Signed<StateRequest>` by the relay's key | `Signed<StateAnswer>`, held open for news |
//! | machines' routes | as a machine sends them, with [`VIA_HEADER`] | as a machine gets them |
//!
//! **Trust.** An invitation's word ([`InviteWord`]) has the server's public key and the seed of a key pair, which is
//! used once: it signs which relay it lets in. The server keeps the public half only, so who reads its records or the
//! wire learns nothing that enrols. From then on relay and server know each other by their keys; every answer is signed
//! and names the request that it answers. No clock is compared: what is fresh is told by the server's nonces
//! (`GET /v1/identity`, and one in each answer), of which the server takes each at most once from one relay.
//!
//! **State.** It comes in three parts, each sent only when the relay does not have it yet: a change of one machine does
//! not send the list of boot files again.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{Hash, ImageId, Mac, MachineId};
use crate::trust::{KeyPair, PublicKey, Signable, Signed};

/// Where a relay shows its key and its invitation, once.
pub const ENROL: &str = "/v1/relay/enrol";
/// Where an enrolled relay says how it is, and hears what has changed.
pub const STATE: &str = "/v1/relay/state";

/// The header of a request that a relay passes on for a machine: a `Signed<Via>` as JSON.
pub const VIA_HEADER: &str = "swarmboot-via";

/// The version of these messages. A relay of another one is told so ([`News::Version`]) and given no state.
pub const RELAY_WIRE: u32 = 1;

/// What an admin carries to a new relay: whom to trust, and what lets it in. Written as 104 hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteWord {
    /// The server's public key.
    pub server: PublicKey,
    seed: [u8; 16],
}

/// Why a text is no invitation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadWord {
    /// It has another length, or other characters.
    #[error("an invitation has 104 hexadecimal digits, this one has {0} characters")]
    Form(usize),
    /// It was changed or cut on the way.
    #[error("the invitation was mistyped: its check digits do not fit")]
    Check,
}

impl InviteWord {
    /// A new invitation to the server with this key.
    ///
    /// # Errors
    /// When the operating system has no random source.
    pub fn generate(server: PublicKey) -> Result<Self, getrandom::Error> {
        let mut seed = [0; 16];
        getrandom::fill(&mut seed)?;
        Ok(Self { server, seed })
    }

    /// The key pair of the invitation: its public half is all that the server keeps.
    #[must_use]
    pub fn key(&self) -> KeyPair {
        KeyPair::from_secret(blake3::derive_key("swarmboot 2026 relay invitation 1", &self.seed))
    }

    /// The body of [`ENROL`] for a relay with the key pair `relay`.
    #[must_use]
    pub fn enrol(&self, relay: &KeyPair, version: &str) -> Signed<Enrol> {
        let introduction = Introduction { server: self.server, relay: relay.public() };
        relay.sign(&Enrol {
            relay: relay.public(),
            invitation: self.key().public(),
            introduction: self.key().sign(&introduction),
            version: version.to_owned(),
            wire: RELAY_WIRE,
        })
    }

    fn check(bytes: &[u8]) -> [u8; 4] {
        let hash = blake3::derive_key("swarmboot 2026 relay invitation's check digits 1", bytes);
        [hash[0], hash[1], hash[2], hash[3]]
    }
}

impl fmt::Display for InviteWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.server.bytes()[..], &self.seed[..]].concat();
        write!(f, "{}{}", hex::encode(&bytes), hex::encode(Self::check(&bytes)))
    }
}

impl fmt::Debug for InviteWord {
    // The seed is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InviteWord({:?})", self.server)
    }
}

impl FromStr for InviteWord {
    type Err = BadWord;
    fn from_str(text: &str) -> Result<Self, BadWord> {
        let text = text.trim();
        let mut bytes = [0; 52];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| BadWord::Form(text.chars().count()))?;
        let (content, check) = bytes.split_at(48);
        if Self::check(content) != check {
            return Err(BadWord::Check);
        }
        let (mut key, mut seed) = ([0; 32], [0; 16]);
        key.copy_from_slice(&content[..32]);
        seed.copy_from_slice(&content[32..]);
        Ok(Self { server: PublicKey::from_bytes(key).map_err(|_| BadWord::Check)?, seed })
    }
}

/// What an invitation's key signs: the relay that it lets in, and at which server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The server that gave out the invitation.
    pub server: PublicKey,
    /// The relay's own key.
    pub relay: PublicKey,
}

impl Signable for Introduction {
    const DOMAIN: &'static str = "swarmboot relay introduction 1";
}

/// A relay asks to be let in. Sent again by the same relay, it gets the same answer: the first one may have been lost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enrol {
    /// The relay's own key, which signs this.
    pub relay: PublicKey,
    /// The public half of the invitation's key.
    pub invitation: PublicKey,
    /// Signed by the invitation's key.
    pub introduction: Signed<Introduction>,
    /// The relay's version, for people.
    pub version: String,
    /// Its [`RELAY_WIRE`].
    pub wire: u32,
}

impl Signable for Enrol {
    const DOMAIN: &'static str = "swarmboot relay enrol 1";
}

/// The relay is let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The request that this answers, by [`Signed::digest`].
    pub request: Hash,
    /// The relay's name, by which an admin revokes it.
    pub name: String,
    /// The site that it is at.
    pub site: String,
}

impl Signable for Enrolled {
    const DOMAIN: &'static str = "swarmboot relay enrolled 1";
}

/// A relay says how it is, and what it knows. The server holds the answer until a part of the state has changed, and
/// for [`crate::limits::RELAY_HOLD`] at the longest. A new request of the same relay ends the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRequest {
    /// The relay's key, which signs this.
    pub relay: PublicKey,
    /// A nonce of the server: of its last answer, or of `GET /v1/identity`. Each is taken once.
    pub nonce: String,
    /// The relay's version, for people.
    pub version: String,
    /// Its [`RELAY_WIRE`].
    pub wire: u32,
    /// What its clock shows, in seconds since 1970: only to tell the admin when that is wrong.
    pub clock: i64,
    /// Where the site's machines reach its HTTP.
    pub http: SocketAddr,
    /// Bytes that its cache may still take; none when the disk cannot be asked.
    pub free: Option<u64>,
    /// The images that it has, fetches, or was told to stage.
    pub images: Vec<RelayImage>,
    /// The parts of the state that it has.
    pub known: Known,
}

impl Signable for StateRequest {
    const DOMAIN: &'static str = "swarmboot relay state request 1";
}

/// An image at a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayImage {
    /// The image.
    pub image: ImageId,
    /// Its key in this image's swarm, from which its libp2p peer id there follows.
    pub key: PublicKey,
    /// Chunks that it holds and has checked, of those that are not only zeros.
    pub held: u32,
    /// Chunks that are not only zeros; 0 until it has the manifest.
    pub total: u32,
    /// What keeps it from going on.
    pub trouble: Option<Trouble>,
}

/// Why a relay does not go on with an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// No room is left for it.
    DiskFull {
        /// Bytes that it still needs.
        needed: u64,
    },
    /// Another reason, for a person.
    Other {
        /// The reason.
        text: String,
    },
}

/// The parts of the state that a relay has, by their [`SiteState`] marks; none for what it does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Of [`SiteBoot`].
    pub boot: Option<Hash>,
    /// Of [`SiteMachines`].
    pub machines: Option<Hash>,
    /// Of [`SiteWork`].
    pub work: Option<Hash>,
}

/// The server's answer to a [`StateRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateAnswer {
    /// The request that this answers, by [`Signed::digest`].
    pub request: Hash,
    /// A nonce for the next request, and for the [`Via`] headers from now on.
    pub nonce: String,
    /// What is new.
    pub news: News,
}

impl Signable for StateAnswer {
    const DOMAIN: &'static str = "swarmboot relay state answer 1";
}

/// What is new for a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum News {
    /// The parts that it does not have yet; all none when nothing has changed.
    State(Box<SiteState>),
    /// The relay was revoked: it ends, and its machines go to the server.
    Revoked,
    /// The relay is of another version, and is given no state.
    Version {
        /// The server's version, for people.
        server: String,
        /// The server's [`RELAY_WIRE`].
        wire: u32,
    },
}

/// What a relay is told of its site. A part's mark is a hash over its JSON form, from [`mark`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteState {
    /// What machines boot with.
    pub boot: Option<SiteBoot>,
    /// How the site's machines are answered.
    pub machines: Option<SiteMachines>,
    /// Images, keys and machines to wake.
    pub work: Option<SiteWork>,
}

/// The mark of a part of the state, by which [`Known`] names it.
#[must_use]
pub fn mark<T: Serialize>(part: &T) -> Hash {
    // Our parts always have a JSON form: no maps with keys that are not strings, no failing impl.
    Hash::of(&serde_json::to_vec(part).unwrap_or_default())
}

/// What machines of the site boot with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteBoot {
    /// The relay's name.
    pub name: String,
    /// The site's name.
    pub site: String,
    /// Whether machines that no admin has named, approved or ordered anything for are sent a loader.
    pub discover: bool,
    /// The kernel of the kit that machines are booted with, the small loaders for the NICs of the site's machines, and
    /// the general loader: in the order in which it is worth while to have them before a machine asks. Empty when there
    /// is no kit.
    pub files: Vec<BootFile>,
    /// The network boot programs.
    pub programs: Vec<BootFile>,
    /// The boot program that the admin prefers where firmware can run it.
    pub prefer: Option<String>,
}

/// A file that machines boot with, known by its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFile {
    /// Its name: `vmlinuz`, or what DHCP names a boot program.
    pub name: String,
    /// The BLAKE3 hash of its bytes.
    pub hash: Hash,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its path on the server's HTTP, such as `/boot/debian-12/vmlinuz`.
    pub path: String,
}

/// How the site's machines are answered without asking the server: DHCP and TFTP cannot wait for a thin line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteMachines {
    /// The machines on record at this site; any other is unknown.
    pub machines: Vec<SiteMachine>,
}

/// A machine on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteMachine {
    /// Its id, for log lines.
    pub machine: MachineId,
    /// The SMBIOS UUIDs that it has shown.
    pub uuids: Vec<String>,
    /// The system's serial number.
    pub serial: Option<String>,
    /// Its Ethernet addresses that identify it alone.
    pub own: Vec<Mac>,
    /// Its other Ethernet addresses.
    pub weak: Vec<Mac>,
    /// What it gets when it network-boots.
    pub policy: SitePolicy,
}

/// What a machine on record gets when it network-boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SitePolicy {
    /// The loader, and a job is open for it: without the server it waits, and must not boot its old disk.
    Job,
    /// The loader; without the server it may boot its own disk.
    Load,
    /// Its own disk.
    BootDisk,
    /// No answer at all: it was rejected.
    Ignore,
}

/// What a relay is to do beside answering machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteWork {
    /// The images that are staged here, or that jobs of this site's machines are for. An image that is not in the list
    /// any more need not be kept.
    pub images: Vec<SiteImage>,
    /// Where the server listens as the swarm's first seed, as multiaddrs.
    pub seeds: Vec<String>,
    /// Machines to wake; an order stays in the list for some minutes.
    pub wake: Vec<Wake>,
}

/// An image that a relay has to do with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteImage {
    /// The image; its manifest is at `/v1/manifest/{image}`.
    pub image: ImageId,
    /// Its name, for log lines.
    pub name: String,
    /// Bytes of all of its chunks as they are sent: what it needs of a cache.
    pub bytes: u64,
    /// Set when it is to be fetched ahead; else it is fetched when there is room, with the machines that take it.
    pub stage: Option<Stage>,
    /// The keys in this image's swarm of machines and relays of the site, whom its chunks may be sent to.
    pub keys: Vec<PublicKey>,
}

/// An order to fetch an image ahead of its day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// The number of the order, for log lines.
    pub number: u64,
    /// Whether it is to be fetched by now: the time that the admin gave has come by the server's clock, or machines of
    /// the site take the image. This part is sent again then.
    pub due: bool,
    /// The most bytes per second that fetching it may take; none for no bound but the line's, also while machines of the
    /// site take the image.
    pub limit: Option<u64>,
}

/// A machine to wake with a magic packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wake {
    /// Grows with each order, over restarts of the server too: a relay obeys each number once.
    pub number: u64,
    /// The machine, for log lines.
    pub machine: MachineId,
    /// The Ethernet address to wake.
    pub mac: Mac,
}

/// Whom a relay passes a request on for. The server then sees the machine at its own address, and names the relay in
/// what it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Via {
    /// The relay's key, which signs this.
    pub relay: PublicKey,
    /// The machine's address.
    pub machine: IpAddr,
    /// The relay's address and port as the machine reached it.
    pub local: SocketAddr,
    /// The nonce of a [`StateAnswer`], of the last quarter of an hour.
    pub nonce: String,
    /// Counts up from 1 with each request that the relay's process passes on; they may arrive in another order.
    pub count: u64,
    /// The request line, by [`Via::request`]: the header of one request cannot be put on another.
    pub request: Hash,
}

impl Signable for Via {
    const DOMAIN: &'static str = "swarmboot via 1";
}

impl Via {
    /// The hash of a request line: `target` is path and query, as they are sent.
    #[must_use]
    pub fn request(method: &str, target: &str) -> Hash {
        Hash::of(format!("{method} {target}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word() -> InviteWord {
        InviteWord::generate(KeyPair::from_secret([7; 32]).public()).unwrap()
    }

    #[test]
    fn a_word_is_read_as_it_is_written_and_no_other_way() {
        let (word, other) = (word(), word());
        let text = word.to_string();
        assert_eq!(text.parse(), Ok(word.clone()));
        assert_eq!(format!(" {text}\n").parse(), Ok(word.clone()), "as it is pasted");
        assert_ne!(text, other.to_string(), "each has a seed of its own");
        assert_eq!(text[..103].parse::<InviteWord>(), Err(BadWord::Form(103)));
        assert_eq!("letmein".parse::<InviteWord>(), Err(BadWord::Form(7)));
        for at in [0, 63, 64, 95, 96, 103] {
            let digit = if &text[at..=at] == "0" { "1" } else { "0" };
            let mut typo = text.clone();
            typo.replace_range(at..=at, digit);
            assert_eq!(typo.parse::<InviteWord>(), Err(BadWord::Check), "digit {at}");
        }
        assert!(!format!("{word:?}").contains(&text[64..96]), "the seed is not shown");
    }

    #[test]
    fn an_invitation_lets_in_the_relay_that_it_names_and_no_other() {
        let word = word();
        let relay = KeyPair::from_secret([9; 32]);
        let enrol = word.enrol(&relay, "1.0").open_self_signed(|enrol| enrol.relay).unwrap();
        let introduced = enrol.introduction.open(&word.key().public()).unwrap();
        assert_eq!((introduced.server, introduced.relay), (word.server, relay.public()));
        assert!(enrol.introduction.open(&self::word().key().public()).is_err(), "another invitation's");
        let stolen = KeyPair::from_secret([1; 32]).sign(&enrol);
        assert!(stolen.open_self_signed(|enrol| enrol.relay).is_err(), "the relay's own key signs it");
    }

    #[test]
    fn a_header_is_of_one_request() {
        assert_ne!(Via::request("GET", "/boot.ipxe?mac=a"), Via::request("GET", "/boot.ipxe?mac=b"));
        assert_ne!(Via::request("GET", "/v1/report"), Via::request("POST", "/v1/report"));
    }

    #[test]
    fn a_part_has_the_mark_of_its_content() {
        let machines = SiteMachines::default();
        assert_eq!(mark(&machines), mark(&machines.clone()));
        let (work, other) =
            (SiteWork::default(), Wake { number: 1, machine: MachineId(1), mac: Mac([2; 6]) });
        assert_ne!(mark(&work), mark(&SiteWork { wake: vec![other], ..work.clone() }));
    }
}
