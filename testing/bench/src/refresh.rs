//! The time that one refresh adds to a Puppet run: real `puppet apply` runs of one catalog in which an `exec` comes
//! before each trigger, once with `~>` and once with `->`. The difference of the times that Puppet itself reports for
//! applying the catalog, divided by the number of triggers, is the cost of a refresh: Puppet's own event handling,
//! its starting of the program, and the program.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::figures::{Figure, Figures, Goal, median};
use crate::process::output;
use crate::scratch::Scratch;
use crate::trigger::{Program, Site};

const TRIGGERS: usize = 20;

pub(crate) fn measure(
    scratch: &Scratch,
    sites: &[Site<'_>],
    runs: usize,
    program: &Program,
    figures: &mut Figures,
) -> Result<()> {
    let bench = Bench::new(scratch, program)?;
    for site in sites {
        for (which, state) in [("with", &site.firing.state), ("without", &site.agentless)] {
            let (mut declared, mut notified) = (Vec::new(), Vec::new());
            for _ in 0..runs {
                declared.push(bench.apply(site, state, "->")?);
                notified.push(bench.apply(site, state, "~>")?);
            }
            let base = median(&declared);
            let refreshes = notified.iter().map(|seconds| (seconds - base) * 1e3 / TRIGGERS as f64);
            figures.add(Figure {
                measure: "refresh in a Puppet run",
                setup: format!("{}, {which} agent on the firing node", site.backend),
                unit: "ms",
                samples: refreshes.collect(),
                peer: None,
                goal: Some(Goal::AtMost(30.0)),
            });
        }
    }
    figures.note(format!(
        "refresh: {TRIGGERS} triggers in one catalog, refreshed against only declared, as Puppet's report times \
         the catalog's application; each sample is a run's mean"
    ));
    Ok(())
}

struct Bench {
    directory: PathBuf,
    modules: PathBuf,
    path: std::ffi::OsString,
}

impl Bench {
    fn new(scratch: &Scratch, program: &Program) -> Result<Self> {
        let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../puppet");
        let modules = modules.canonicalize().context("the Puppet module is missing")?;
        let directories = std::env::var_os("PATH").unwrap_or_default();
        let directories =
            std::iter::once(program.directory().to_owned()).chain(std::env::split_paths(&directories));
        let path = std::env::join_paths(directories).context("PATH cannot be used")?;
        Ok(Self { directory: scratch.directory("puppet")?, modules, path })
    }

    /// Applies the catalog and returns the seconds that Puppet reports for it.
    fn apply(&self, site: &Site<'_>, state: &Path, arrow: &str) -> Result<f64> {
        let mut manifest = String::new();
        for number in 0..TRIGGERS {
            // No node has this name, so that no run disturbs the measurement.
            writeln!(
                manifest,
                "exec {{ 'change {number}': command => '/bin/true' }} {arrow} \
                 trigger {{ 'bench {number}': hosts => ['away.example.com'] }}"
            )?;
        }
        let (file, report) = (self.directory.join("site.pp"), self.directory.join("report.yaml"));
        std::fs::write(&file, manifest)?;
        let mut command = Command::new("puppet");
        command.args(["apply", "--certname", "origin.example.com", "--detailed-exitcodes", "--color=false"]);
        for (flag, path) in [
            ("--confdir", self.directory.join("conf")),
            ("--vardir", self.directory.join("var")),
            ("--modulepath", self.modules.clone()),
            ("--lastrunreport", report.clone()),
        ] {
            command.arg(flag).arg(path);
        }
        command.arg(&file).env("PATH", &self.path);
        command.env("TRIGGER_BACKEND", &site.url).env("TRIGGER_STATE_DIR", state);
        let output = output(&mut command)?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        // Exit code 2 means that something changed and nothing failed.
        ensure!(output.status.code() == Some(2), "puppet apply ended with {}: {said}", output.status);
        let fired = said.lines().filter(|line| line.contains("Fired ")).count();
        ensure!(fired == if arrow == "~>" { TRIGGERS } else { 0 }, "{fired} triggers fired: {said}");
        catalog_application(&std::fs::read_to_string(&report)?)
    }
}

/// Returns the metric of this name in a report: a YAML list of name, label and value.
fn catalog_application(report: &str) -> Result<f64> {
    let mut lines = report.lines().map(|line| line.trim().trim_start_matches("- ").trim());
    lines.find(|line| *line == "catalog_application").context("the report has no catalog_application")?;
    let value = lines.nth(1).context("catalog_application has no value")?;
    value.parse().with_context(|| format!("catalog_application is '{value}'"))
}
