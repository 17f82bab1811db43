//! Under construction in this very series of commits.
