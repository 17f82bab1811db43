//! The number of samples: few for a quick look, or enough for a comparison.

use crate::fleet::Load;

/// The number of samples of each measurement.
pub(crate) struct Samples {
    pub(crate) latency: usize,
    pub(crate) publish: usize,
    pub(crate) original_sets: usize,
    pub(crate) refresh_runs: usize,
    pub(crate) cut_off: usize,
    pub(crate) fleet: Load,
    pub(crate) handshakes: usize,
    pub(crate) tls_fleet: Load,
    pub(crate) day: usize,
}

impl Samples {
    pub(crate) fn few() -> Self {
        let fleet = Load { agents: 100, idle_windows: 3, events: 3, restarts: 3 };
        let tls_fleet = Load { agents: 200, idle_windows: 2, events: 3, restarts: 2 };
        Self {
            latency: 8,
            publish: 2,
            original_sets: 50,
            refresh_runs: 2,
            cut_off: 5,
            fleet,
            handshakes: 50,
            tls_fleet,
            day: 1_000,
        }
    }

    pub(crate) fn many() -> Self {
        let fleet = Load { agents: 1000, idle_windows: 7, events: 5, restarts: 5 };
        let tls_fleet = Load { agents: 5000, idle_windows: 3, events: 3, restarts: 3 };
        Self {
            latency: 40,
            publish: 5,
            original_sets: 200,
            refresh_runs: 7,
            cut_off: 50,
            fleet,
            handshakes: 400,
            tls_fleet,
            day: 10_000,
        }
    }
}
