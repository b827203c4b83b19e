//! PID 1, in the order in which a machine lives it: what the kernel said, mounts and console, drivers,
//! network, the agent's bundle, the hand-over, and the loader's loop that goes through them.

// Core: the kernel command line.
pub mod cmdline;

// What a person at the machine's screen or serial line sees.
pub mod console;

// Mounts, time since the start, the end: what only PID 1 does.
pub mod init;

// Modules for what is plugged in.
pub mod drivers;

// Core: the DHCP client.
pub mod dhcp;

// Links, addresses, and the lease that is kept.
pub mod network;

// The agent bundle: unpacked, within bounds.
pub mod bundle;

// What the loader leaves for the agent.
pub mod handover;

// The loader's way, from drivers to the agent: all of the above.
pub mod loader;
