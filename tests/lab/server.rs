//! Owns the server under test: `swarmboot serve` in the rack's namespace, with a state folder and an admin socket of
//! its own, and the same program as its command line. Asks it only what an admin could ask.

use std::ffi::OsStr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::net::{Net, Segment};
use crate::process::{self, Beside};
use crate::wait;

/// The timeout until its admin socket answers.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The timeout of an orderly stop.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// The result of a command of the admin.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The exit code.
    pub code: i32,
    /// Standard output, which has the data.
    pub data: String,
    /// Standard error, which has messages for a person.
    pub talk: String,
}

/// A server, running or not. Dropping it kills it; its data stay in its state folder.
#[derive(Debug)]
pub struct Server<'n> {
    net: &'n Net,
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
    running: Option<Beside>,
}

impl<'n> Server<'n> {
    /// Starts a server that is the DHCP server of `segment`, giving out `.100` to `.199`.
    ///
    /// # Errors
    /// When the program has not been built, or does not start.
    pub fn start(net: &'n Net, segment: Segment, folder: &Path) -> Result<Self> {
        let range = segment.range(100, 199);
        Self::start_with(net, folder, &["--interface", &segment.interface(), "--dhcp-range", &range])
    }

    /// Starts a server that leaves addresses to another DHCP server on `segment`.
    ///
    /// # Errors
    /// When the program has not been built, or does not start.
    pub fn start_proxy(net: &'n Net, segment: Segment, folder: &Path) -> Result<Self> {
        Self::start_with(net, folder, &["--interface", &segment.interface(), "--proxy-dhcp"])
    }

    /// Starts a server with these arguments of `serve`. Its files go to `folder`: `state`, `admin.sock`, `server.log`.
    ///
    /// # Errors
    /// When the program has not been built, or does not start.
    pub fn start_with(net: &'n Net, folder: &Path, arguments: &[&str]) -> Result<Self> {
        let mut server = Self {
            net,
            program: process::program("swarmboot")?,
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            folder: folder.to_owned(),
            running: None,
        };
        server.start_again()?;
        Ok(server)
    }

    /// Starts it again, with the same state, after [`Server::stop`] or [`Server::kill`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = self.net.command(&self.program);
        command.arg("--socket").arg(self.socket()).arg("serve");
        command.arg("--state").arg(self.state()).args(&self.arguments);
        // Only these arguments count, and no configuration of the host.
        command.env_remove("SWARMBOOT_CONFIG").env("NO_COLOR", "1");
        let mut running = Beside::start("the server", &mut command, &self.folder.join("server.log"))?;
        let socket = self.socket();
        wait::until("the server's admin socket to answer", START_LIMIT, || {
            running.check_running()?;
            Ok(UnixStream::connect(&socket).ok())
        })?;
        self.running = Some(running);
        Ok(())
    }

    /// Sends it SIGTERM, and waits until it has stopped.
    ///
    /// # Errors
    /// When it does not stop before the timeout, or its exit status is not success.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        running.signal(Signal::SIGTERM)?;
        let status = running.wait(STOP_LIMIT)?;
        ensure!(status.success(), "the server stopped with {status}");
        Ok(())
    }

    /// Kills it, as a power loss would.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Fails if it has ended by itself, with the last lines of its output.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        self.running.as_mut().context("the server was stopped")?.check_running()
    }

    /// What it has used so far; none when it is not running.
    #[must_use]
    pub fn used(&self) -> Option<process::Used> {
        self.running.as_ref()?.used()
    }

    /// The path of its state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The path of its admin socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// Its whole log, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
    }

    /// A command of its command line, not started yet.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--socket").arg(self.socket()).args(arguments).stdin(Stdio::null()).env("NO_COLOR", "1");
        command
    }

    /// Runs a command of the admin, and returns its result even if it fails.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn ask<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Answer> {
        let result = self.command(arguments).output().context("cannot run swarmboot")?;
        Ok(Answer {
            code: result.status.code().unwrap_or(-1),
            data: String::from_utf8_lossy(&result.stdout).into_owned(),
            talk: String::from_utf8_lossy(&result.stderr).into_owned(),
        })
    }

    /// Runs a command of the admin that has to succeed, and returns its standard output.
    ///
    /// # Errors
    /// When it does not; the error has its standard error.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        process::output_of(&mut self.command(arguments))
    }

    /// Runs a command of the admin with `-o json` and parses its output.
    ///
    /// # Errors
    /// When it does not succeed, or its output is not JSON.
    pub fn json<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Value> {
        let data = self.json_text(arguments)?;
        serde_json::from_str(&data).with_context(|| format!("not JSON: {data}"))
    }

    /// Runs a command of the admin that prints one JSON object a line, such as `logs`.
    ///
    /// # Errors
    /// When it does not succeed, or a line is not JSON.
    pub fn json_lines<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Vec<Value>> {
        let data = self.json_text(arguments)?;
        data.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
            .collect()
    }

    fn json_text<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        process::output_of(self.command(["-o", "json"]).args(arguments))
    }

    /// Runs a command again and again, until `look` finds what it looks for in the command's JSON.
    ///
    /// # Errors
    /// When the command fails, or at the timeout.
    pub fn wait_json<T>(
        &self,
        what: &str,
        arguments: &[&str],
        limit: Duration,
        mut look: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T> {
        wait::until(what, limit, || {
            let found = look(&self.json(arguments)?);
            if found.is_none() {
                // At most one command a second, like an impatient admin.
                wait::pause(Duration::from_secs(1))?;
            }
            Ok(found)
        })
    }
}
