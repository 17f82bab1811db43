//! The run command of the bench, on both sides: it appends the time of its start, in nanoseconds of the monotonic
//! clock, to a file, then sleeps for the time that a run would take.
//!
//! `trigger-bench-stamp FILE [MILLISECONDS]`

use std::fs::File;
use std::io::{Error, Write};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

fn main() -> Result<(), Error> {
    let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).map_err(Error::other)?;
    let mut arguments = std::env::args_os().skip(1);
    let path = arguments.next().ok_or_else(|| Error::other("no file is given"))?;
    // The stamp is one write, so that two stamps cannot mix.
    File::options()
        .create(true)
        .append(true)
        .open(path)?
        .write_all(format!("{}\n", now.as_nanos()).as_bytes())?;
    let milliseconds = arguments.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or_default();
    std::thread::sleep(Duration::from_millis(milliseconds));
    Ok(())
}
