//! The way of one event through a fleet, on the store in memory: fired at a node, delivered, run for, and shown.
//!
//! `cargo run -p trigger-fleet --example one_event` prints
//!
//! ```text
//! 'refresh load balancers' waits at lb01.example.com
//! lb01.example.com: done
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use trigger_core::delivery::{Completion, DeliveryOutcome};
use trigger_core::event::{DEFAULT_LIFETIME, Event, RunOptions, Targets};
use trigger_core::identity::{Certname, EventId};
use trigger_core::keyspace::Keyspace;
use trigger_core::lineage::{Lineage, Loops};
use trigger_core::publication::Publication;
use trigger_core::run::{CompletedRun, RunOutcome, RunResult};
use trigger_core::time::Timestamp;
use trigger_fleet::Fleet;
use trigger_fleet::deliveries::Arrival;
use trigger_store::memory::MemoryStore;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Any store will do: the hub's client and etcd's implement the same trait.
    let fleet = Fleet::new(Arc::new(MemoryStore::default()), Keyspace::default());
    let target: Certname = "lb01.example.com".parse()?;
    let now = Timestamp::from_unix_ms(1_763_812_800_000);

    // The origin fires. Publishing again, after a lost answer for instance, would change nothing.
    let event = event("019aab6f-7600-7000-8000-000000000001".parse()?, &target, now)?;
    let publication = Publication {
        backend: "memory:".to_owned(),
        prefix: fleet.prefix().clone(),
        event: event.clone(),
        suppressed: BTreeMap::new(),
        suppressed_groups: BTreeMap::new(),
    };
    fleet.publish(&publication, false).await?;

    // The target reads its deliveries. An agent watches these ranges; see `DeliveryWatcher`.
    let node = fleet.clone().acting_as(target);
    let entries = node.store().read(&node.delivery_ranges([])).await?;
    for arrival in node.read_deliveries(&BTreeMap::new(), &entries).await? {
        let Arrival::Pending(cause) = arrival else { continue };
        println!("'{}' waits at lb01.example.com", cause.event.trigger);
        // Here Puppet would run. Then the outcome is stored, and after it the delivery is deleted.
        let result = RunResult {
            outcome: RunOutcome::Changed,
            reason: None,
            reported_noop: false,
            drift: Default::default(),
            started_at: now,
            finished_at: now,
        };
        let run = CompletedRun::new("019aab6f-7600-7000-8000-000000000002".parse()?, false, result);
        let completion = Completion {
            event: cause.event.id,
            addressed_as: cause.addressed_as,
            outcome: DeliveryOutcome::Done(run),
        };
        node.finish(&[completion]).await?;
    }

    // Any reader sees the state of each delivery.
    let status = fleet.event_status(event.id).await?.ok_or("the event is known")?;
    for (certname, delivery) in &status.targets {
        println!("{certname}: {}", delivery.state);
    }
    Ok(())
}

fn event(id: EventId, target: &Certname, fired_at: Timestamp) -> Result<Event, Box<dyn Error>> {
    Ok(Event {
        id,
        trigger: "refresh load balancers".parse()?,
        origin: "web01.example.com".parse()?,
        targets: Targets { hosts: [target.clone()].into(), groups: Default::default() },
        options: RunOptions::default(),
        lineage: Lineage::root(id),
        fired_in: None,
        fired_by: None,
        catalog: None,
        loops: Loops::Avoid,
        fired_at,
        expires_in: DEFAULT_LIFETIME,
    })
}
