//! Waiting for what must come, without guessing how long it takes.

use std::mem::MaybeUninit;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::inotify;

/// How long anything may take before a test gives up. Generous: it bounds a failure, it measures nothing.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(40);
/// The same for what takes long: most looks start a program, and would slow down what they wait for.
const LOOK_SELDOM: Duration = Duration::from_millis(500);

/// Looks until `look` finds something, and returns it; panics with the latest complaint after [`TIMEOUT`].
pub fn eventually<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    eventually_within(TIMEOUT, what, look)
}

/// The same with another patience, for what is huge.
pub fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(complaint) if began.elapsed() > patience => {
                panic!("{what}: not within {patience:?}; at last: {complaint}")
            }
            Err(_) => sleep((began.elapsed() / 20).clamp(POLL_INTERVAL, LOOK_SELDOM)),
        }
    }
}

/// How often a file is opened in a while, by anybody.
pub fn opened_within(a_while: Duration, file: &Path) -> usize {
    let watched = inotify::init(inotify::CreateFlags::NONBLOCK).expect("a watch on files");
    inotify::add_watch(&watched, file, inotify::WatchFlags::OPEN).expect("a watch on a file");
    sleep(a_while);
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watched, &mut buffer);
    std::iter::from_fn(|| events.next().ok().map(drop)).count()
}

/// Looks again and again for a while, and panics if `look` ever finds what must not come.
pub fn never_for(a_while: Duration, what: &str, mut look: impl FnMut() -> Option<String>) {
    let began = Instant::now();
    while began.elapsed() < a_while {
        if let Some(found) = look() {
            panic!("{what}: {found}");
        }
        sleep(POLL_INTERVAL);
    }
}
