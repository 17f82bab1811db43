//! Gives a state directory to another certname.

use trigger_core::identity::Certname;

use crate::host::Host;
use crate::state::{Runs, StateDir};

/// Gives a state directory to another certname. Its runs have to be over and their outcomes stored, because these are
/// the earlier certname's. The outbox, the groups and the notes about ended events stay: they are the machine's.
///
/// # Errors
/// A sentence.
pub fn rename<H: Host>(state: &StateDir<H>, runs: &Runs<H>, certname: &Certname) -> Result<(), String> {
    let open = runs.open_runs().map_err(|error| error.to_string())?;
    if !open.is_empty() {
        return Err(
            "a run is in progress here, or its outcome is not stored in the backend yet: repeat the command \
                    when 'trigger queue' shows no run and a connection"
                .to_owned(),
        );
    }
    state.set_certname(certname).map_err(|error| error.to_string())
}
