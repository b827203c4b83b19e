//! What both ends of a swarm connection need in the same words: who is let in and which streams are opened
//! (`behaviour`), how messages stand on a stream (`frame`), and how a node answers those that pull from it
//! (`serve`, `slots`). Touches libp2p; decides nothing about chunks.

// Admission by key, and raw streams out of connections.
pub mod behaviour;

// Messages on a stream.
pub mod frame;

// What the other end may still say.
pub mod manners;

// Connections before their key is known.
mod handshakes;

// The holder's side of a pull stream.
pub mod serve;

// How many chunks go out at once.
pub mod slots;

// Repeatable chance, for the cores of both sides.
pub mod splitmix;
