//! One event to ten thousand targets: the time that the firing process takes.

use std::time::Instant;

use anyhow::Result;

use crate::figures::{Figure, Figures, Goal, Peer, median};
use crate::original::Original;
use crate::process::run;
use crate::samples::Samples;
use crate::scratch::Scratch;
use crate::trigger::{Site, committed};

const TARGETS: usize = 10_000;

pub(crate) fn measure(
    scratch: &Scratch,
    sites: &[Site<'_>],
    original: &Original<'_>,
    samples: &Samples,
    figures: &mut Figures,
) -> Result<()> {
    let hosts: String = (0..TARGETS).map(|number| format!("node{number:05}.example.com\n")).collect();
    let hosts = scratch.write("hosts", &hosts)?;

    let mut each = Vec::new();
    for number in 0..samples.original_sets {
        let certname = format!("node{number:05}.example.com");
        let started = Instant::now();
        run(original.set(&certname).args(["--ttl", "180"]))?;
        each.push(started.elapsed().as_secs_f64());
    }
    let extrapolated = median(&each) * TARGETS as f64;
    figures.note(format!(
        "publish: the original is extrapolated from the median of {} `etcdctl set`, {:.1} ms each, one after another",
        each.len(),
        median(&each) * 1e3
    ));

    for site in sites {
        let goal = if site.is_hub() { 0.5 } else { 1.0 };
        for (which, state) in [("with", &site.firing.state), ("without", &site.agentless)] {
            let mut times = Vec::new();
            for _ in 0..samples.publish {
                let started = Instant::now();
                let output = run(site.fire(state).arg("--hosts-from").arg(&hosts))?;
                times.push(started.elapsed().as_secs_f64());
                committed(&output.stdout)?;
            }
            figures.add(Figure {
                measure: "publish to 10,000",
                setup: format!("{}, {which} agent on the firing node", site.backend),
                unit: "s",
                samples: times,
                peer: Some(Peer::original(&[extrapolated])),
                goal: Some(Goal::AtMost(goal)),
            });
        }
    }
    Ok(())
}
