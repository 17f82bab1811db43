//! The program's own files, because the modules of a program cannot be used from outside.

#[path = "../../../crates/trigger/src"]
#[allow(dead_code, unused_imports, missing_docs, unreachable_pub, reason = "the program uses the rest")]
pub(crate) mod files {
    pub(crate) mod config;
    pub(crate) mod failure;
}
