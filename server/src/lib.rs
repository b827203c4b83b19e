//! The server. The modules are in the order in which a machine meets them: what an admin runs first, then what machines
//! reach over the network, then what is decided about them, then what is stored.

// The command line: parses what an admin typed, and prints the answers.
pub mod cli;

// A branch's own server: answers, caches and seeds at a site, and keeps no records.
pub mod relay;

// Starts and stops the server: binds everything before anything runs.
pub mod serve;

// What is wrong on this host and its network, and what to do about it.
pub mod doctor;

// Mistakes in a configuration, each with its place.
pub mod mistakes;

// The configuration: flags and file, fully checked.
pub mod config;

// Provides what the fleet needs from the modules below.
pub mod provision;

// The admin's API: routes and client; its shapes, which `-o json` prints too, are used by all modules below.
pub mod api;

// Step 1, `power-on`: DHCP, for machines that ask for a network boot.
pub mod dhcp4;

// Step 2, `loader`: network boot programs, and the scripts that start the loader.
pub mod boot;

// Steps 2 to 6 and 15: what machines fetch and report over HTTP.
pub mod http;

// Steps 3, 4 and the life of a job: a machine's identity, and what is ordered for it.
pub mod fleet;

// Who is told of events: webhooks, the journal, syslog, a file.
pub mod subscribers;

// Step 5, `tailor`: the plan and the bundle for one machine.
pub mod tailor;

// Boot kits, which machines boot: kernels, modules, firmware, network boot programs.
pub mod kit;

// Images, which are written to disks: added, stored, exported.
pub mod image;

// Steps 7 to 13 on the server's side: the first seed, and which chunk is sent to which machine.
pub mod swarm;

// Boot files from machine to machine within a site, and who goes first.
pub mod peers;

// What Prometheus is told: counters, and what is read at a scrape.
pub mod metrics;

// What the server sends, by kind and site, and what lines may carry.
pub mod traffic;

// The page for admins: files that a browser loads, which then asks the API.
pub mod dashboard;

// Backups of the state folder, and what is made of them.
pub mod backup;

// Everything that must outlive the process, in SQLite.
pub mod records;

// The manual: the pages under `server/docs`, as a browser shows them.
pub mod docs;

// Mistakes in texts that people write, each with its place.
pub mod toml_text;

// Magic packets, which switch machines on.
pub mod magic;

// Writes files whole or not at all.
mod whole_file;

// Parses numbers with units.
pub mod units;

// Errors as a person reads them: sentence, cause, hint, exit code.
pub mod fault;

// Limits the rate of log lines.
mod noise;
