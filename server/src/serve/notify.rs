//! What systemd is told of a service: that it starts, serves, stops, and still lives. Touches the socket that systemd
//! names in the environment; where there is none, as in a shell, nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::fleet::FleetHandle;

/// How often the fleet is asked within the time that systemd allows between two signs of life: one that comes late does
/// not end the server yet.
const SIGNS: u32 = 3;

/// Says what is being done, as one line that `systemctl status` shows.
pub(crate) fn status(line: &str) {
    tell(&[NotifyState::Status(line)]);
}

/// Says that every port is bound and every task runs; `line` is shown by `systemctl status`.
pub(crate) fn ready(line: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(line)]);
}

/// Says that the service is about to end.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd was not told");
    }
}

/// Passes on signs of life of the fleet until `cancel`, if systemd waits for some. A fleet that does not answer is no
/// sign: systemd then ends the server and starts it again, and jobs go on where they were.
pub(super) async fn watchdog(fleet: FleetHandle, cancel: CancellationToken) {
    match sd_notify::watchdog_enabled() {
        Some(allowed) => watch(&fleet, allowed / SIGNS, || tell(&[NotifyState::Watchdog]), cancel).await,
        None => cancel.cancelled().await,
    }
}

/// Calls `alive` about every `every`, each time after the fleet's own thread has answered.
async fn watch(fleet: &FleetHandle, every: Duration, alive: impl Fn(), cancel: CancellationToken) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // Whether it is frozen does not matter: the answer comes from the thread that decides about machines, after
        // what it does now is written to the disk.
        tokio::select! {
            () = cancel.cancelled() => return,
            answer = tokio::time::timeout(every, fleet.frozen()) => match answer {
                Ok(Ok(_)) => alive(),
                Ok(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "the fleet gives no sign of life"),
                Err(_) => tracing::warn!(seconds = every.as_secs(), "the fleet gave no sign of life in time"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::tests::start_again;
    use super::*;

    /// Set in the process that speaks to the socket of the test.
    const INSIDE: &str = "SWARMBOOT_TEST_NOTIFY";

    #[test]
    fn systemd_hears_when_it_serves_and_when_it_stops() {
        if std::env::var_os(INSIDE).is_some() {
            status("opening");
            ready("serves");
            stopping();
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let name = "serve::notify::tests::systemd_hears_when_it_serves_and_when_it_stops";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name]).env(INSIDE, "1").env("NOTIFY_SOCKET", &path);
        assert!(command.output().unwrap().status.success());
        let said = || {
            let mut bytes = [0; 200];
            let length = socket.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        assert_eq!(said(), "STATUS=opening\n");
        assert_eq!(said(), "READY=1\nSTATUS=serves\n");
        assert_eq!(said(), "STOPPING=1\nSTATUS=stopping\n");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_fleet_that_hangs_gives_no_sign_of_life() {
        let again = start_again(0).await;
        let signs = Arc::new(AtomicU32::new(0));
        let (counted, cancel) = (Arc::clone(&signs), CancellationToken::new());
        let fleet = again.fleet.clone();
        let (every, stop) = (Duration::from_millis(50), cancel.clone());
        let task = tokio::spawn(async move {
            watch(&fleet, every, || _ = counted.fetch_add(1, Ordering::Relaxed), stop).await;
        });
        let until = async {
            while signs.load(Ordering::Relaxed) < 3 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), until).await.expect("a fleet that lives gives signs");
        let (held, gate) = std::sync::mpsc::channel::<()>();
        let hang = again.fleet.hang(gate);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let before = signs.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(signs.load(Ordering::Relaxed), before, "its thread hangs");
        drop(held);
        hang.await;
        cancel.cancel();
        task.await.unwrap();
    }
}
