//! `trigger.toml`.

use std::sync::OnceLock;

use crate::program::files::config::{ConfigFile, run_command, run_timeout, runs_per_minute, settle};
use crate::scratch::Scratch;

/// A configuration file, and the values in it as the commands read them.
pub(crate) fn file(data: &[u8]) {
    static SCRATCH: OnceLock<Scratch> = OnceLock::new();
    let scratch = SCRATCH.get_or_init(Scratch::new);
    let path = scratch.write(&format!("{:?}.toml", std::thread::current().id()), data);
    let Ok(file) = ConfigFile::read(Some(&path)) else { return };
    let _ = (file.certname(), file.prefix(), file.groups());
    let _ = run_command(file.run_cmd.as_deref());
    let _ = run_timeout(file.run_timeout.as_deref());
    let _ = runs_per_minute(None, file.runs_per_minute);
    let _ = (settle(file.settle.as_deref()), file.puppetdb_url());
    let _ = (file.policy(), file.tls.files(), file.audit_file());
}
