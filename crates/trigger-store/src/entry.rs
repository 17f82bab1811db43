//! What a store holds under a key.

use trigger_core::identity::Revision;

/// A key and its latest value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The whole key.
    pub key: String,
    /// Bytes that are not UTF-8 are returned in their lossy form, which no decoder accepts.
    pub value: String,
    /// The position of its latest write, in the backend's own order.
    pub revision: Revision,
}
