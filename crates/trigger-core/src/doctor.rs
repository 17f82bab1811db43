//! What is wrong with a node and how to mend it: verdicts over facts that `trigger doctor` has gathered.
//!
//! Each area has its facts and one function from them to findings. An area whose facts could not be gathered, because an
//! earlier one is broken, is absent.

mod facts;
mod finding;
mod links;
#[cfg(test)]
mod tests;

pub use facts::{
    Agent, Answered, Backend, Certificate, Claim, Configuration, Directory, Facts, Module, Names, Outbox,
    Puppet, PuppetDb, Service,
};
pub use finding::{Finding, Severity};

use crate::count::count;
use crate::duration::format_short;
use crate::node::Presence;

/// Judges all facts, in the order in which they depend on each other: what stands first is to be mended first.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = configuration(&facts.configuration);
    let areas = [
        facts.names.as_ref().map(names),
        facts.directory.as_ref().map(directory),
        facts.certificate.as_ref().map(|certificate| links::certificate(certificate, facts.now)),
        facts.backend.as_ref().map(|backend| links::backend(backend, &facts.version)),
        facts.puppet.as_ref().map(puppet),
        facts.puppetdb.as_ref().map(puppetdb),
        facts.modules.as_ref().map(|modules| module(modules, &facts.version)),
        facts.service.as_ref().map(service),
        facts.agent.as_ref().map(agent),
        facts.outbox.as_ref().map(outbox),
        facts.claim.as_ref().map(|found| claim(found, facts)),
    ];
    findings.extend(areas.into_iter().flatten().flatten());
    findings
}

fn configuration(
    Configuration { path, is_there, problems, doubts, names_backend }: &Configuration,
) -> Vec<Finding> {
    const AREA: &str = "configuration";
    let problem = |problem: &String| {
        Finding::error(AREA, problem, format!("correct {path}: an agent does not start with this mistake"))
    };
    let mut findings: Vec<Finding> = problems.iter().map(problem).collect();
    let doubt =
        |doubt: &String| Finding::warning(AREA, doubt, format!("correct {path} if that is not meant"));
    findings.extend(doubts.iter().map(doubt));
    if !is_there && problems.is_empty() {
        let summary = format!("there is no {path}: every setting has its default");
        findings.push(Finding::warning(AREA, summary, "declare the class trigger::agent, or write the file"));
    }
    if !names_backend && problems.is_empty() {
        findings.push(Finding::warning(
            AREA,
            "no backend is configured: the hub on this machine is used, and events that are fired without one wait",
            format!("set backend in {path} (parameter backend of the class trigger::agent)"),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(AREA, format!("{path} has no mistakes")));
    }
    findings
}

fn names(Names { configured, owner, puppets, certificate }: &Names) -> Vec<Finding> {
    const AREA: &str = "certname";
    let by_puppet = puppets.as_ref().and_then(|puppets| puppets.as_ref().ok());
    let Some(own) = configured.as_ref().or(by_puppet).or(owner.as_ref()) else {
        let why = puppets.as_ref().and_then(|puppets| puppets.as_ref().err());
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        return vec![Finding::error(
            AREA,
            format!("this node has no certname, because Puppet does not report one{why}"),
            "mend Puppet, or set certname in the configuration",
        )];
    };
    let mut findings = Vec::new();
    if let Some(owner) = owner.as_ref().filter(|owner| *owner != own) {
        findings.push(Finding::error(
            AREA,
            format!("the state directory belongs to {owner}, and this node is {own} now: no run starts"),
            "if the node was renamed, run 'trigger rename'; if this machine is a copy of another one, give it a \
             certname of its own first (docs/operating/install.md)",
        ));
    }
    if let (Some(configured), Some(puppets)) = (configured, by_puppet)
        && configured != puppets
    {
        findings.push(Finding::warning(
            AREA,
            format!("the configuration says {configured}, and Puppet's own certname is {puppets}"),
            "remove certname from the configuration, unless the node is meant to have two names",
        ));
    }
    if let Some(certificate) = certificate.as_ref().filter(|certificate| *certificate != own) {
        findings.push(Finding::error(
            AREA,
            format!("the node's certificate is for {certificate}, so that it cannot sign or speak as {own}"),
            format!("set certname to {certificate}, or get a certificate for {own} (`puppet ssl bootstrap`)"),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(AREA, own.to_string()));
    }
    findings
}

/// Less room than this on the disk of the state directory is an error, since a fire needs some for its outbox.
const LEAST_FREE_BYTES: u64 = 4 << 20;
/// Less room than this is worth a warning.
const LOW_FREE_BYTES: u64 = 64 << 20;

fn directory(Directory { path, problem, free_bytes }: &Directory) -> Vec<Finding> {
    const AREA: &str = "state directory";
    if let Some(problem) = problem {
        let remedy = "run this as root; else make the directory writable for the agent's user";
        return vec![Finding::error(AREA, problem, remedy)];
    }
    let remedy = "free some: fired events that cannot be published, and the records of runs, are kept there";
    vec![match *free_bytes {
        Some(free) if free < LOW_FREE_BYTES => {
            let summary = format!("{path} has {} MiB of free space left", free >> 20);
            if free < LEAST_FREE_BYTES {
                Finding::error(AREA, summary, remedy)
            } else {
                Finding::warning(AREA, summary, remedy)
            }
        }
        _ => Finding::ok(AREA, path),
    }]
}

fn puppetdb(PuppetDb { url, problem, is_waited_for }: &PuppetDb) -> Vec<Finding> {
    const AREA: &str = "puppetdb";
    vec![match problem {
        Some(problem) if *is_waited_for => Finding::warning(
            AREA,
            format!("{problem}: runs do not wait until it has stored what other nodes export"),
            "let this node's certificate query PuppetDB, correct url in [puppetdb], or set settle = 0 in the configuration",
        ),
        None if *is_waited_for => Finding::ok(AREA, format!("{url} answers")),
        _ => Finding::ok(AREA, "runs do not wait for it (settle = 0)"),
    }]
}

fn puppet(puppet: &Puppet) -> Vec<Finding> {
    const AREA: &str = "puppet";
    let Puppet { is_needed, problem, disabled, running } = puppet;
    if !is_needed {
        return vec![Finding::ok(AREA, "the run command is not Puppet, and the certname is configured")];
    }
    if let Some(problem) = problem {
        return vec![Finding::error(
            AREA,
            format!("Puppet does not report its settings, so that no run starts: {problem}"),
            "run the command that is named there by hand, and mend what it says",
        )];
    }
    vec![match (disabled, running) {
        (Some(disabled), _) => {
            let remedy = "`puppet agent --enable`, once the reason is gone: deliveries are held until then";
            Finding::warning(AREA, disabled, remedy)
        }
        (None, Some(Ok(pid))) => Finding::ok(AREA, format!("it runs at this moment, pid {pid}")),
        (None, Some(Err(problem))) => Finding::warning(
            AREA,
            format!("Puppet's lock cannot be read: {problem}"),
            "run this as root, or mend the file",
        ),
        (None, None) => Finding::ok(AREA, "it reports its settings and is enabled"),
    }]
}

fn module(modules: &[Module], version: &str) -> Vec<Finding> {
    const AREA: &str = "module";
    let mut findings = Vec::new();
    for Module { path, version: theirs } in modules {
        findings.push(if theirs == version {
            Finding::ok(AREA, format!("{path} has version {theirs}, as this program"))
        } else {
            Finding::warning(
                AREA,
                format!("{path} has version {theirs}, and this program version {version}"),
                "install module and program of one version",
            )
        });
    }
    if findings.is_empty() {
        findings.push(Finding::ok(AREA, "it is not on this node: Puppet gets it from its server"));
    }
    findings
}

fn service(Service { unit, active, enabled }: &Service) -> Vec<Finding> {
    const AREA: &str = "service";
    match (active.as_str(), enabled.as_str()) {
        (_, "") => vec![Finding::warning(
            AREA,
            format!("systemd has no unit {unit}"),
            "install the package, or declare the class trigger::agent",
        )],
        ("active", "enabled" | "enabled-runtime" | "static" | "generated") => {
            vec![Finding::ok(AREA, format!("{unit} is active"))]
        }
        ("active", _) => vec![Finding::warning(
            AREA,
            format!("{unit} is active, and is {enabled}: it does not start when the machine does"),
            format!("systemctl enable {unit}"),
        )],
        _ => vec![Finding::error(
            AREA,
            format!("{unit} is {active}"),
            format!("systemctl enable --now {unit}; its log: journalctl -u {unit}"),
        )],
    }
}

fn agent(agent: &Agent) -> Vec<Finding> {
    const AREA: &str = "agent";
    let (disconnected, blocked, hold, held, unreadable) = match agent {
        Agent::Absent => {
            return vec![Finding::error(
                AREA,
                "no agent runs on this node: no delivery reaches it, and nothing empties its outbox",
                "systemctl enable --now trigger-agent",
            )];
        }
        Agent::Silent => {
            return vec![Finding::error(
                AREA,
                "an agent is there and does not answer: its process is stopped or overloaded",
                "let it go on (SIGCONT), or systemctl restart trigger-agent",
            )];
        }
        Agent::OtherVersion => {
            return vec![Finding::error(
                AREA,
                "the agent is of another version than this program",
                "systemctl restart trigger-agent: a run in progress goes on meanwhile",
            )];
        }
        Agent::Refuses(sentence) => return vec![Finding::warning(AREA, sentence, "run this as root")],
        Agent::Answers { disconnected, blocked, hold, held, unreadable } => {
            (disconnected, blocked, hold, *held, *unreadable)
        }
    };
    let mut findings = Vec::new();
    if let Some(why) = disconnected {
        let remedy = "mend the backend, or the way to it; the agent connects by itself";
        findings.push(Finding::error(AREA, format!("it receives no deliveries: {why}"), remedy));
    }
    if let Some(why) = blocked {
        findings.push(Finding::error(AREA, format!("no run may start: {why}"), "do what the reason says"));
    }
    if let Some(hold) = hold {
        let remedy = "'trigger release' with the certname of this node lets runs start before that";
        findings.push(Finding::warning(AREA, format!("no run starts on this node: it is {hold}"), remedy));
    }
    if held > 0 {
        findings.push(Finding::warning(
            AREA,
            format!("{} held", are(held, "delivery")),
            "'trigger queue' says what each of them waits for",
        ));
    }
    if unreadable > 0 {
        findings.push(Finding::warning(
            AREA,
            format!("{} not readable", are(unreadable, "value")),
            "'trigger queue' names their keys: something else than Trigger writes below its prefix",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(AREA, "it runs, and is connected"));
    }
    findings
}

/// `1 delivery is`, `2 deliveries are`.
fn are(number: usize, noun: &str) -> String {
    format!("{} {}", count(number, noun), if number == 1 { "is" } else { "are" })
}

fn outbox(Outbox { spooled, elsewhere, quarantined }: &Outbox) -> Vec<Finding> {
    const AREA: &str = "outbox";
    let mut findings = Vec::new();
    if *elsewhere > 0 {
        findings.push(Finding::warning(
            AREA,
            format!("{} for a backend that this node's configuration does not name", are(*elsewhere, "event")),
            "'trigger outbox list' shows them; 'trigger outbox readdress --all' sends them to the one it names",
        ));
    }
    if let waiting @ 1.. = spooled.saturating_sub(*elsewhere) {
        findings.push(Finding::warning(
            AREA,
            format!("{} not in the backend yet", are(waiting, "event")),
            "the agent publishes them once the backend answers; without an agent, the next 'trigger fire' does",
        ));
    }
    if *quarantined > 0 {
        findings.push(Finding::warning(
            AREA,
            format!("{} quarantined: nothing publishes them as they are", are(*quarantined, "file")),
            "'trigger outbox list' shows the reasons; then 'trigger outbox readdress EVENT' or 'trigger outbox drop EVENT'",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(AREA, "it is empty"));
    }
    findings
}

fn claim(Claim { certname, record }: &Claim, facts: &Facts) -> Vec<Finding> {
    const AREA: &str = "claim";
    let is_own = matches!(facts.agent, Some(Agent::Answers { .. }));
    let Some(record) = record else {
        let remedy = if is_own {
            "look at the agent's log: it registers as soon as it may write to the backend"
        } else {
            "start the agent: it registers then"
        };
        return vec![Finding::warning(AREA, format!("no agent has registered as {certname}"), remedy)];
    };
    if is_own {
        let same = record.version == facts.version;
        return vec![if same {
            Finding::ok(AREA, format!("{certname} is registered by {}", record.location))
        } else {
            Finding::warning(
                AREA,
                format!(
                    "the agent has version {}, and this program version {}",
                    record.version, facts.version
                ),
                "systemctl restart trigger-agent: a run in progress goes on meanwhile",
            )
        }];
    }
    match record.presence(facts.now) {
        Presence::Alive => vec![Finding::error(
            AREA,
            format!("another agent acts for {certname}: {}", record.location),
            "if it is this node's own that has just been killed, wait 90 s; else stop it, or give this node a certname \
             of its own",
        )],
        Presence::Stopped => vec![Finding::ok(AREA, format!("{certname} is free: its agent was stopped"))],
        Presence::Silent(silence) => {
            let since = format_short(silence);
            vec![Finding::ok(AREA, format!("{certname} is free: its agent has been silent for {since}"))]
        }
    }
}
