//! What must be true, checked as it happens. Knows what really was fired, committed and run; trusts nothing
//! that the programs under test say of themselves.

mod chains;
mod deliveries;
mod files;
mod fires;
mod outcomes;
mod registrations;
mod rest;
mod restores;
mod runs;
