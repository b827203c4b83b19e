//! Boot files before a machine asks for them: kernel and loaders are fetched as soon as the server names them, one at a
//! time, while no machine of the site takes anything; and when an image is staged, in its time. Touches the cache.
//!
//! The server counts them as it counts what machines fetch: under the site's limit, before chunks.

use std::sync::Arc;
use std::time::Duration;

use common::wire::relay::{BootFile, SiteBoot};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::cache::{FileCache, Wanted};
use super::programs::lacks;
use super::site::Site;

/// For how long no machine has asked for a file when the line counts as idle: one that boots asks for the next file
/// within that time.
pub(super) const IDLE: Duration = Duration::from_secs(10);

/// The pauses before files that could not be fetched are tried again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(600));

/// The task's parts.
pub(super) struct Ahead {
    pub(super) cache: FileCache,
    pub(super) site: watch::Receiver<Arc<Site>>,
    /// [`IDLE`], or less in a test.
    pub(super) idle: Duration,
}

/// When boot files are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// The time of a staged image has come: its machines may be switched on at any moment.
    Now,
    /// Whenever the line is idle.
    Idle,
    /// Not before the server tells something else: machines of the site take an image, and the line is theirs; or one is
    /// staged for a later time, and then what belongs to it comes at that time too.
    Later,
}

impl Ahead {
    /// Runs until `cancel`.
    pub(super) async fn run(self, cancel: CancellationToken) {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(self) {
        let Self { cache, mut site, idle } = self;
        let mut last = (When::Later, vec![]);
        let (mut done, mut next, mut pause) = (false, Instant::now(), AGAIN.0);
        loop {
            let now = {
                let site = site.borrow_and_update();
                let files = site.boot().map(|boot| fitting(boot, cache.bytes_max()));
                (when(&site), files.unwrap_or_default())
            };
            if now != last {
                (last, done, next, pause) = (now, false, Instant::now(), AGAIN.0);
            }
            let (when, files) = &last;
            let fetching = async {
                if done || *when == When::Later {
                    return std::future::pending().await;
                }
                sleep_until(next).await;
                fetch(&cache, files, Some(idle).filter(|_| *when == When::Idle)).await
            };
            tokio::select! {
                changed = site.changed() => if changed.is_err() { return },
                whole = fetching => {
                    (done, next) = (whole, Instant::now() + pause);
                    pause = (pause * 2).min(AGAIN.1);
                }
            }
        }
    }
}

/// Fetches the files that are not here; waits before each until no machine has asked for one for `idle`, if that is
/// given. False when one could not be had.
async fn fetch(cache: &FileCache, files: &[BootFile], idle: Option<Duration>) -> bool {
    let mut whole = true;
    for file in files {
        if let Some(idle) = idle {
            while let Some(asked) = cache.asked().filter(|asked| asked.elapsed() < idle) {
                sleep_until(Instant::from_std(asked + idle)).await;
            }
        }
        let wanted = Wanted::plain(file.hash, Some(file.bytes), file.path.clone());
        if let Err(error) = cache.fetched(&wanted).await {
            whole = lacks(file, &error);
        }
    }
    if whole && !files.is_empty() {
        tracing::info!(files = files.len(), "kernel and loaders are here, before a machine asks for them");
    }
    whole
}

fn when(site: &Site) -> When {
    // Nothing is known of staged images yet.
    let Some(work) = site.work() else { return When::Later };
    let mut stages = work.images.iter().filter_map(|image| image.stage.as_ref());
    match stages.any(|stage| stage.due) {
        true => When::Now,
        false if work.images.is_empty() => When::Idle,
        false => When::Later,
    }
}

/// The kernel and loaders that the cache has room for beside the boot programs, in the server's order: more of them would
/// push each other out, and be fetched again and again.
fn fitting(boot: &SiteBoot, bytes_max: u64) -> Vec<BootFile> {
    let programs = boot.programs.iter().fold(0, |sum: u64, program| sum.saturating_add(program.bytes));
    let mut room = bytes_max.saturating_sub(programs);
    let mut fits = |file: &&BootFile| {
        let rest = room.checked_sub(file.bytes);
        room = rest.unwrap_or(room);
        rest.is_some()
    };
    boot.files.iter().filter(|file| fits(file)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use common::id::{Hash, ImageId};
    use common::wire::relay::{SiteImage, SiteState, SiteWork, Stage};

    use super::*;

    fn image(stage: Option<bool>) -> SiteImage {
        SiteImage {
            image: ImageId(Hash::of(b"debian")),
            name: "debian".to_owned(),
            bytes: 7,
            stage: stage.map(|due| Stage { number: 1, due, limit: None }),
            keys: vec![],
        }
    }

    #[test]
    fn files_come_when_the_line_is_idle_or_an_images_time_has_come() {
        let table: [(&[Option<bool>], When); 5] = [
            (&[], When::Idle),
            (&[Some(false)], When::Later),
            (&[Some(true)], When::Now),
            // Machines take an image, which nobody staged.
            (&[None], When::Later),
            (&[None, Some(false), Some(true)], When::Now),
        ];
        for (images, wanted) in table {
            let work = SiteWork {
                images: images.iter().map(|stage| image(*stage)).collect(),
                ..SiteWork::default()
            };
            let site = Site::default().with(SiteState { work: Some(work), ..SiteState::default() });
            assert_eq!(when(&site), wanted, "{images:?}");
        }
        assert_eq!(when(&Site::default()), When::Later, "nothing was told yet");
    }

    #[test]
    fn no_more_than_the_cache_has_room_for() {
        let file = |name: &str, bytes| BootFile {
            name: name.to_owned(),
            hash: Hash::of(name.as_bytes()),
            bytes,
            path: format!("/{name}"),
        };
        let boot = SiteBoot {
            files: vec![
                file("vmlinuz", 8),
                file("loader-a.img", 4),
                file("loader.img", 11),
                file("loader-b.img", 3),
            ],
            programs: vec![file("snponly.efi", 1)],
            ..SiteBoot::default()
        };
        let names = |bytes_max| -> Vec<String> {
            fitting(&boot, bytes_max).into_iter().map(|file| file.name).collect()
        };
        assert_eq!(names(27).len(), 4);
        assert_eq!(names(26), ["vmlinuz", "loader-a.img", "loader.img"]);
        assert_eq!(names(16), ["vmlinuz", "loader-a.img", "loader-b.img"]);
        assert!(names(3).is_empty());
    }
}
