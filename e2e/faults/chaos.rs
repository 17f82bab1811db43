//! Performs a schedule of faults, one lane after another side by side, and notes what really happened when.

use std::path::Path;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use trigger_e2e::BackendKind;

use crate::evidence::Window;
use crate::fleet::{NODES, certname};
use crate::journal::{Hit, append, now};
use crate::link::Mode;
use crate::plan::{Fault, Lane, Planned};
use crate::processes::{self, Found};
use crate::site::Site;

/// Between two looks for a run to kill.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a compaction may wait for a majority.
const COMPACT_WITHIN: Duration = Duration::from_secs(30);

/// Does things to a site.
pub(crate) struct Chaos<'a> {
    site: &'a Site,
    kind: BackendKind,
    began: Instant,
    windows: Mutex<Vec<Window>>,
}

impl<'a> Chaos<'a> {
    /// Times of a schedule count from now.
    pub(crate) fn new(site: &'a Site, kind: BackendKind) -> Self {
        Self { site, kind, began: Instant::now(), windows: Mutex::default() }
    }

    /// Performs one lane to its end.
    #[expect(clippy::print_stdout, reason = "progress of a command for people")]
    pub(crate) fn perform(&self, lane: &Lane) {
        for (number, planned) in lane.iter().enumerate() {
            self.wait_until(planned.from);
            let from = now();
            let done = self.strike(number, planned);
            let to = now();
            let at = self.began.elapsed().as_secs_f64();
            match done {
                Ok(struck) => {
                    println!("  {at:6.1} s  healed: {}{struck}", planned.fault.kind());
                    let node = planned.fault.node().map(certname);
                    let kind = planned.fault.kind();
                    let rewinds = planned.fault == Fault::Restore;
                    self.note(Window { kind, node, from, to, rewinds });
                }
                Err(why) => println!("  {at:6.1} s  nothing to do: {}: {why}", planned.fault.kind()),
            }
        }
    }

    /// What happened.
    pub(crate) fn into_windows(self) -> Vec<Window> {
        self.windows.into_inner().unwrap_or_default()
    }

    fn note(&self, window: Window) {
        if let Ok(mut windows) = self.windows.lock() {
            windows.push(window);
        }
    }

    fn wait_until(&self, moment: Duration) {
        sleep(moment.saturating_sub(self.began.elapsed()));
    }

    /// Does it, waits, heals it; what it struck besides what its name says.
    fn strike(&self, number: usize, planned: &Planned) -> Result<String, String> {
        let site = self.site;
        let (node_name, until) =
            (planned.fault.node().map(|node| format!(" ({})", certname(node))), planned.to);
        let struck = node_name.unwrap_or_default();
        match planned.fault {
            Fault::KillBackend(victims) => {
                let members = site.backend().members(victims);
                site.backend().kill(&members);
                self.wait_until(until);
                site.backend().restart(&members);
                return Ok(format!(" {members:?}"));
            }
            Fault::PauseBackend(victims) => {
                let members = site.backend().members(victims);
                site.backend().pause(&members);
                self.wait_until(until);
                site.backend().go_on(&members);
                return Ok(format!(" {members:?}"));
            }
            Fault::Restore => {
                let backup = site.backend().back_up(number)?.ok_or("only the hub has backups")?;
                self.wait_until(until);
                site.backend().restore(&backup).map_err(|error| error.to_string())?;
            }
            Fault::Cut(node, mode) => self.cut(node, None, mode, until),
            Fault::CutMember(node, member, mode) => self.cut(node, Some(member), mode, until),
            Fault::KillAgent(node) => {
                site.node(node).kill_agent();
                self.wait_until(until);
                site.node(node).launch_agent();
            }
            Fault::RestartAgent(node) => {
                site.node(node).agent().terminate();
                let code = site.node(node).agent().wait();
                site.node(node).launch_agent();
                self.wait_until(until);
                assert_eq!(code, 0, "an agent that is told to stop ends with 0");
            }
            Fault::PauseAgent(node) => {
                site.node(node).agent().pause();
                self.wait_until(until);
                site.node(node).agent().go_on();
            }
            Fault::CompactUnderPaused(node) => {
                site.node(node).agent().pause();
                let compacted = self.compact(until);
                self.wait_until(until);
                site.node(node).agent().go_on();
                compacted?;
            }
            Fault::CompactUnderSilent(node) => {
                site.wire(node, None, Mode::Silent);
                let compacted = self.compact(until);
                self.wait_until(until);
                site.wire(node, None, Mode::Open);
                compacted?;
            }
            Fault::KillSupervisor(node) => return self.kill_a_run(node, until, false),
            Fault::KillRun(node) => return self.kill_a_run(node, until, true),
            Fault::Crash(node) => {
                site.node(node).kill_agent();
                self.kill_all_of(node);
                self.wait_until(until);
                site.node(node).launch_agent();
            }
        }
        Ok(struck)
    }

    fn cut(&self, node: usize, member: Option<usize>, mode: Mode, until: Duration) {
        self.site.wire(node, member, mode);
        self.wait_until(until);
        self.site.wire(node, member, Mode::Open);
    }

    /// In the middle of what is left of the fault, so that there is history to forget; later where there is
    /// no majority to take it then.
    fn compact(&self, until: Duration) -> Result<(), String> {
        assert_eq!(self.kind, BackendKind::Etcd, "only etcd keeps a history");
        sleep(until.saturating_sub(self.began.elapsed()) / 2);
        let began = Instant::now();
        loop {
            let compacted = self.site.backend().compact();
            if compacted.is_ok() || began.elapsed() > COMPACT_WITHIN {
                return compacted;
            }
            sleep(LOOK_EVERY);
        }
    }

    /// Kills the next run that is seen, on this node or on one after it.
    fn kill_a_run(&self, node: usize, until: Duration, process: bool) -> Result<String, String> {
        while self.began.elapsed() < until {
            for node in (node..NODES).chain(0..node) {
                let home = self.site.folder_of(node);
                let Some(found) = processes::live_run(&home) else { continue };
                let pid = if process { found.pid } else { found.supervisor };
                self.hit(&home, &found.run, process);
                trigger_e2e::kill(pid);
                return Ok(format!(" ({})", certname(node)));
            }
            sleep(LOOK_EVERY);
        }
        Err("no run was in progress".to_owned())
    }

    /// Kills whatever belongs to a node whose agent is dead already.
    fn kill_all_of(&self, node: usize) {
        let home = self.site.folder_of(node);
        loop {
            let found = processes::all_of(&home);
            if found.is_empty() {
                return;
            }
            for Found { pid, run } in found {
                run.iter().for_each(|run| self.hit(&home, run, true));
                trigger_e2e::kill(pid);
            }
            sleep(LOOK_EVERY);
        }
    }

    fn hit(&self, home: &Path, run: &str, process: bool) {
        let hit = Hit { run: run.to_owned(), at: now(), process };
        append(&home.join("hits.log"), &hit).expect("a hit to be noted");
    }
}
