//! A node: its agent, its state on disk, firing, and the supervision of runs.
//!
//! The code is written over [`host::Host`], so that the simulation runs it too. What works on the operating system
//! alone (sockets, signals, processes, Puppet's files) is in modules that the simulation does not start.

pub mod agent;
pub mod agent_socket;
pub mod clock;
pub mod file_error;
mod fire_advice;
pub mod fire_chain;
pub mod fire_error;
pub mod fire_report;
pub mod firing;
pub mod host;
mod metrics;
pub mod node_backends;
pub mod os;
mod output_limit;
mod process_table;
mod process_tree;
pub mod puppet_locks;
pub mod puppet_settings;
#[cfg(feature = "clients")]
pub mod puppetdb;
pub mod queue_view;
pub mod run_output;
mod start_error;
pub mod state;
pub mod submit;
pub mod supervisor;
