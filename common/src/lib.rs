//! What swarmboot's server and agent share: the formats of data, and the messages between them.
//!
//! Nothing in here runs: no socket, no clock, no file (except the `swarm` feature, which adds the libp2p behaviour that
//! both ends of a swarm connection share, and lines with a limit). The modules are in the order in which a machine meets them.
//!
//! The terms, each with one meaning everywhere: a **machine** is a computer that is or will be managed; an **image** is
//! what is written to its disk, named by the hash of its **manifest**, which lists its **chunks**; the **loader**
//! reports hardware and fetches the **agent**, which carries out a signed **plan**; a **deployment** is one order for
//! many machines and a **job** its part for one machine; a **step** is a unit of a job, and its events are the log.

// Names of machines, images, deployments and jobs.
pub mod id;

// Every bound on input, with its reason.
pub mod limits;

// Texts for people: those from outside made harmless, bytes, shares, long lists.
pub mod text;

// An error with its causes, as text.
pub mod causes;

// Lists that are refused while they are read when they are too long.
mod list;

// Disks: what is on them, whether they can be written, and which is which.
pub mod disks;

// The hardware report.
pub mod hardware;

// Which kernel modules a device needs, and in which order.
pub mod modules;

// Chunks of an image, and sets of them.
pub mod chunk;

// The list of an image's chunks, whose hash is the image's name.
pub mod manifest;

// A second wire form of chunks that are like an earlier image's.
pub mod deltas;

// Partition tables: read, and changed for a disk.
pub mod table;

// File systems, recognised by their first bytes.
pub mod filesystem;

// The server's answer to a report, and the plan for a job.
pub mod plan;

// Keys, signatures, and what is signed.
pub mod trust;

// The steps of a job and their events.
pub mod step;

// cloud-init's user-data, byte for byte.
pub mod user_data;

// Scripts that run in the new root, and which partition that is.
pub mod hooks;

// What crosses the network: HTTP bodies, and the swarm's messages.
pub mod wire;

// How names and texts appear in the document of the admin's API; the server only.
#[cfg(feature = "schema")]
mod schema;

// What the tests of all crates share.
#[cfg(any(test, feature = "testing"))]
pub mod testing;

// A line with a limit, which several kinds of bytes share; off for the loader.
#[cfg(feature = "swarm")]
pub mod line;

// Connections and streams of the swarm over libp2p; off for the loader.
#[cfg(feature = "swarm")]
pub mod swarm;
