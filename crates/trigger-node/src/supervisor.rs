//! The process that owns one run (C10): `trigger supervise RECORD`, with the locked record as its
//! standard input. It outlives the agent that started it, so it must not need the agent for anything.
//!
//! It holds the lock on the record until it exits, writes the run's output to a bounded file, enforces the
//! timeout, finds Puppet's report and syncs the result. It decides nothing about deliveries.
//!
//! If it is killed, its run goes on: `puppet agent` under Puppet's own `runtimeout`, anything else until
//! the agent that waits for it loses patience and calls [`process_tree::end_orphan`](crate::process_tree::end_orphan).

mod artifacts;
mod asking;
mod run_process;
mod stop_request;
mod supervise;
mod time_limit;
mod turn;

pub use self::run_process::{SupervisorError, run};
pub use self::supervise::{RunProcess, supervise};
