//! The details of a failed request to a backend.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A sentence for people, and the error that it was made from, where there is one: for logs, which show the whole chain.
/// Clones share the error, since one failed request may concern many keys.
#[derive(Debug, Clone)]
pub struct Detail {
    text: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Detail {
    /// A sentence about `source`.
    pub fn new(text: String, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { text, source: Some(Arc::from(source.into())) }
    }

    /// The innermost cause of `error` as the sentence: it says what happened ("transport error" does not).
    pub fn root_cause(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let error = error.into();
        Self::new(causes(&*error).last().map_or_else(|| error.to_string(), ToString::to_string), error)
    }

    /// The same error after a prefix, which names what it arose from.
    #[must_use]
    pub fn of(self, prefix: &str) -> Self {
        Self { text: format!("{prefix}: {}", self.text), source: self.source }
    }

    /// Several sentences as one, with the source of the first that has one.
    pub fn join(details: Vec<Self>) -> Self {
        let text = details.iter().map(|detail| detail.text.as_str()).collect::<Vec<_>>().join("; ");
        Self { text, source: details.into_iter().find_map(|detail| detail.source) }
    }
}

/// The error and its sources, outermost first.
pub(crate) fn causes<'e>(
    error: &'e (dyn Error + 'static),
) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| (*error).source())
}

impl From<String> for Detail {
    fn from(text: String) -> Self {
        Self { text, source: None }
    }
}

impl From<&str> for Detail {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<Detail> for String {
    fn from(detail: Detail) -> Self {
        detail.text
    }
}

impl Deref for Detail {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Detail {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use crate::store::StoreError;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("transport error")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_error_says_its_root_cause_and_keeps_the_chain() {
        let detail = Detail::root_cause(Outer(std::io::Error::other("connection refused"))).of("m:1");
        let error = StoreError::Unreachable { backend: "etcd://m:1".to_owned(), detail };
        let chain: Vec<String> = causes(&error).map(ToString::to_string).collect();
        assert_eq!(
            chain,
            [
                "backend etcd://m:1 is unreachable: m:1: connection refused",
                "m:1: connection refused",
                "transport error",
                "connection refused"
            ]
        );
    }
}
