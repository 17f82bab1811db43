//! Why stored text cannot be read, and up to which version it can.

/// The version this program writes, and the newest it reads.
pub const VERSION: u32 = 1;

/// Why stored text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The text was damaged, or no version of Trigger wrote it.
    #[error("not the JSON of {what}: {detail}")]
    Unreadable {
        /// The form that was expected.
        what: &'static str,
        /// What is wrong with the text.
        detail: String,
    },
    /// A newer version of Trigger wrote the text.
    #[error(
        "{what} of version {version}; this program reads up to version {VERSION}: update trigger on this node"
    )]
    TooNew {
        /// The form that was expected.
        what: &'static str,
        /// The version of the text.
        version: u32,
    },
}
