//! The loader and PID 1, in the order in which a machine runs it: kernel command line, console and mounts, drivers,
//! network, the agent's bundle, the hand-over, and the loader's main loop that uses them all.

// Core: the kernel command line.
pub mod cmdline;

// Lines of text on the machine's screen and serial line.
pub mod console;

// Duties of PID 1: mounts, uptime, restart and power off.
pub mod init;

// Kernel modules for the machine's devices.
pub mod drivers;

// Core: the DHCP client.
pub mod dhcp;

// Links, addresses, and the lease that is kept.
pub mod network;

// Whether there is enough memory.
mod memory;

// Restarts a machine whose small loader does not reach the server.
pub mod watchdog;

// The agent bundle, unpacked within bounds.
pub mod bundle;

// The files that the loader leaves for the agent.
pub mod handover;

// The loader's main loop, from drivers to the agent.
pub mod loader;
