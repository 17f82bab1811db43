//! The invariants, checked at each step. They know what was really fired, committed and run, and trust nothing that
//! the programs under test report about themselves.

mod chains;
mod deliveries;
mod files;
mod fires;
mod holds;
mod outcomes;
mod registrations;
mod rest;
mod restores;
mod runs;
