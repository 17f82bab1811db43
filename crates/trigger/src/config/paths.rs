//! Paths in the configuration.

use std::path::PathBuf;

use crate::failure::Failure;

/// Refuses a relative path, which would mean another file in every process that reads the setting.
pub(crate) fn absolute(name: &str, path: PathBuf) -> Result<PathBuf, Failure> {
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Failure::config(format!(
        "setting {name}: '{}' is not an absolute path, and every process of Trigger has a working directory of its own",
        path.display()
    )))
}
