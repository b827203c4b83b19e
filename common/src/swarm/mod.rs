//! What both ends of a swarm connection share: which keys are admitted and which streams are opened (`behaviour`), how
//! messages are framed (`frame`), and how a node serves those that pull from it (`serve`, `slots`). Touches libp2p;
//! decides nothing about chunks.

// Admission by key, and raw streams of connections.
pub mod behaviour;

// Framing of messages on a stream.
pub mod frame;

// Rate limit and bounds of the other end's messages.
pub mod manners;

// Bounds on connections before their key is known.
mod handshakes;

// The holder's side of a pull stream.
pub mod serve;

// How many chunks are sent at once.
pub mod slots;

// Repeatable random numbers, for the cores of server and agent.
pub mod splitmix;
