//! What swarmboot's server and agent both say: the words, the formats and the wire.
//!
//! Nothing in here runs: no socket, no clock, no file (the `swarm` feature adds the libp2p behaviour, which
//! both ends of a swarm connection need in the same words). The modules stand in the order in which a
//! machine meets them.
//!
//! The words, each with one meaning everywhere: a **machine** is a computer that is or will be managed; an
//! **image** is what is written to its disk, named by the hash of its **manifest**, which lists its
//! **chunks**; the **loader** reports hardware and fetches the **agent**, which obeys a signed **plan**; a
//! **deployment** is one order over many machines and a **job** its part for one machine; a **step** is a
//! unit of a job, and its events are the log.

// Names for machines, images, orders.
pub mod id;

// Every bound, with its reason.
pub mod limits;

// Texts as people read them: those of strangers made harmless, bytes, shares, long lists.
pub mod text;

// An error and what stands behind it, as text.
pub mod causes;

// Lists that are too long are refused while they are read.
mod list;

// Its disks: what stands on them, whether they can be written, and which is which.
pub mod disks;

// What a machine says of itself.
pub mod hardware;

// Which kernel modules its devices want, and in which order.
pub mod modules;

// Pieces of an image, and sets of them.
pub mod chunk;

// The list of an image's pieces, whose hash is the image's name.
pub mod manifest;

// Partition tables: read, and changed for a disk.
pub mod table;

// File systems by their first bytes.
pub mod filesystem;

// What one machine is told to do.
pub mod plan;

// Keys, signatures, and what is signed.
pub mod trust;

// What happened on the way.
pub mod step;

// cloud-init's user-data, byte for byte.
pub mod user_data;

// What crosses the network: HTTP bodies, and the swarm's messages.
pub mod wire;

// What tests of every room begin with.
#[cfg(any(test, feature = "testing"))]
pub mod testing;

// Connections and streams of the swarm; in libp2p's hands, and off for the loader.
#[cfg(feature = "swarm")]
pub mod swarm;
