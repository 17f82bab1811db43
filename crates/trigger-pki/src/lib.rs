//! Puppet's certificates: the identity of a node, and whom it trusts.
