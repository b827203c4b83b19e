//! The seed server. The modules stand in the order in which a machine meets them: what an admin runs first, then what
//! machines reach over the network, then what is decided about them, then what is kept.

// The command line: what an admin typed, and how the answers look.
pub mod cli;

// Binding everything before starting anything; the order of stopping.
pub mod serve;

// Flags and file, fully checked.
pub mod config;

// What the fleet asks for, out of the rooms that have it.
pub mod provision;

// The admin's interface: routes and client; its shapes, which `-o json` prints too, are used by all rooms below.
pub mod api;

// Step 1, `power-on`: who asks to network-boot, and what they get.
pub mod dhcp4;

// Step 2, `loader`: network boot programs and the script that leads to the loader.
pub mod boot;

// Steps 2 to 6 and 15: what machines fetch and report over HTTP.
pub mod http;

// Steps 3, 4 and the life of a job: who a machine is, what is ordered for it.
pub mod fleet;

// Step 5, `tailor`: the plan and the bundle for one machine.
pub mod tailor;

// What machines are booted with: kernels, modules, firmware, network boot programs.
pub mod kit;

// What is written to disks: import, store, export.
pub mod image;

// Steps 7 to 13 as the server sees them: the first seed, and who is given which chunk.
pub mod swarm;

// Everything that must outlive the process, in SQLite.
pub mod records;

// Numbers with units, as an admin writes them.
pub mod units;

// How a failure looks to a person: sentence, cause, hint, exit code.
pub mod fault;

// A few log lines where a flood of them would come.
mod noise;
