//! When a certificate or a CRL is valid, in the form that `openssl ca` takes.

/// When a certificate or a CRL is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Since some years ago, for many years more.
    Now,
    /// Until some years ago.
    Expired,
    /// Many years from now on.
    NotYet,
}

impl Validity {
    pub(super) fn bounds(self) -> (&'static str, &'static str) {
        match self {
            Self::Now => ("200101000000Z", "490101000000Z"),
            Self::Expired => ("200101000000Z", "210101000000Z"),
            Self::NotYet => ("480101000000Z", "490101000000Z"),
        }
    }
}
