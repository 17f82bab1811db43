//! Waits for expected events without guessing how long they take.

use std::mem::MaybeUninit;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::inotify;

/// The time after which a test gives up. It is generous, since it bounds a failure and measures nothing.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// The interval between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(40);
/// The interval for slow cases: most polls start a program, which would slow down the awaited work.
const LOOK_SELDOM: Duration = Duration::from_millis(500);

/// Polls until `look` returns a value, and returns it; panics with the latest error after [`TIMEOUT`].
pub fn eventually<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    eventually_within(TIMEOUT, what, look)
}

/// Polls in the same way with another timeout, for huge cases.
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

/// Returns how often any process opens a file within a period.
pub fn opened_within(a_while: Duration, file: &Path) -> usize {
    let watched = inotify::init(inotify::CreateFlags::NONBLOCK).expect("a watch on files");
    inotify::add_watch(&watched, file, inotify::WatchFlags::OPEN).expect("a watch on a file");
    sleep(a_while);
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watched, &mut buffer);
    std::iter::from_fn(|| events.next().ok().map(drop)).count()
}

/// Polls for a period, and panics if `look` ever finds something.
pub fn never_for(a_while: Duration, what: &str, mut look: impl FnMut() -> Option<String>) {
    let began = Instant::now();
    while began.elapsed() < a_while {
        if let Some(found) = look() {
            panic!("{what}: {found}");
        }
        sleep(POLL_INTERVAL);
    }
}
