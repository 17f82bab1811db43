//! The result of a command of the program under test.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;

/// A command's exit code and output.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The exit code.
    pub code: i32,
    /// The one JSON document on standard output; null if there is none.
    pub json: Value,
    /// Standard output, unchanged.
    pub stdout: String,
    /// Standard error, unchanged.
    pub stderr: String,
    /// The time from its start to its end.
    pub took: Duration,
}

impl Answer {
    pub(crate) fn of(output: &Output, took: Duration) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            json: serde_json::from_str(&stdout).unwrap_or_default(),
            stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took,
        }
    }

    /// Returns the id of the event that a `fire` answered for; panics unless it succeeded.
    pub fn event(&self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.json["event_id"].as_str().unwrap_or_else(|| panic!("no event id: {self:?}")).to_owned()
    }

    /// Returns the id of an event that reached the backend; panics for any other answer.
    pub fn committed(&self) -> String {
        assert_eq!(self.json["state"], "committed", "{self:?}");
        self.event()
    }

    /// Returns the id of an event that was spooled; panics for any other answer.
    pub fn spooled(&self) -> String {
        assert_eq!(self.json["state"], "spooled", "{self:?}");
        self.event()
    }

    /// Returns all warnings, one on each line.
    pub fn warnings(&self) -> String {
        let warnings = self.json["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
        warnings.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Returns the error message of a failure with this exit code; panics for any other result, including success.
    pub fn error(&self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.json["error"].as_str().unwrap_or_else(|| panic!("no error: {self:?}")).to_owned()
    }
}
