//! Asks Puppet for settings that only Puppet itself knows: its certname, its paths and its limits. Each question costs
//! about a second of Ruby, so the answers are cached in the state directory.
//!
//! Puppet logs to standard output, too: with `log_level = debug`, and each deprecation. So the settings are asked with
//! their names, and every line that is not `name = value` of a setting that was asked for is ignored.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::process::Command;
use trigger_core::identity::{Certname, InvalidName};
use trigger_core::run::command::{CommandKind, RunCommand, TagSettings};
use trigger_pki::TlsFiles;

use crate::os::Os;
use crate::start_error;
use crate::state::{read_if_present, write_durably};

/// How long Puppet may take to print its settings at the first attempt.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take at most. A machine that is too slow for one attempt gets twice the time at the next.
const MAX_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// How long it may take where there is only one attempt, of which an operator or a service manager can see that it waits.
const ONLY_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// The pause after the first failed attempt, and the longest one.
const PAUSE: Duration = Duration::from_secs(2);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The most characters of Puppet's output in an error.
const MAX_QUOTE_CHARS: usize = 300;

/// How patient an attempt to ask Puppet is. Puppet may be slow for as long as the machine is busy, so each attempt
/// has more time than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// How long Puppet may take to answer.
    pub timeout: Duration,
    /// How long to wait before the next attempt.
    pub pause: Duration,
}

impl Attempt {
    /// The first attempt.
    pub const FIRST: Self = Self { timeout: TIMEOUT, pause: PAUSE };

    /// The one attempt of a command, or of a hub's start. A Puppet that still works on its answer is waited for, because a
    /// repetition on a slow machine would begin with the same work.
    pub const ONLY: Self = Self { timeout: ONLY_TIMEOUT, pause: PAUSE };

    /// The attempt after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self { timeout: MAX_TIMEOUT.min(self.timeout * 2), pause: MAX_PAUSE.min(self.pause * 2) }
    }
}

/// Puppet did not report its settings.
#[derive(Debug, thiserror::Error)]
pub enum PuppetSettingsError {
    /// Puppet cannot be started.
    #[error("cannot run '{command}': {reason}")]
    Run {
        /// The command, without the names of the settings.
        command: String,
        /// What is missing, a sentence.
        reason: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Puppet takes too long.
    #[error("'{command}' did not answer within {} s", timeout.as_secs())]
    NoAnswer {
        /// The command, without the names of the settings.
        command: String,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// Puppet failed.
    #[error("'{command}' failed ({status}): {stderr}")]
    Failed {
        /// The command, without the names of the settings.
        command: String,
        /// How Puppet ended.
        status: ExitStatus,
        /// What Puppet wrote to standard error.
        stderr: String,
    },
    /// Puppet's answer lacks a setting.
    #[error("'{command}' did not print the setting '{setting}': {answer}")]
    Unclear {
        /// The command, without the names of the settings.
        command: String,
        /// The first setting that is missing.
        setting: String,
        /// The end of what Puppet wrote to standard output.
        answer: String,
    },
    /// Puppet's certname is not one that Trigger can use.
    #[error("Puppet's certname '{certname}' cannot be used: {source}")]
    Certname {
        /// The name.
        certname: String,
        /// What is wrong with it.
        source: InvalidName,
    },
}

impl PuppetSettingsError {
    /// Whether there is no such program on this node.
    pub fn is_not_installed(&self) -> bool {
        matches!(self, Self::Run { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Asks Puppet for its own certname for this node. The answer is not cached.
///
/// # Errors
/// Those of starting Puppet and of its answer, or [`PuppetSettingsError::Certname`] if Trigger cannot use the name.
pub async fn certname(command: &RunCommand, attempt: Attempt) -> Result<Certname, PuppetSettingsError> {
    let question = Question::new(command, &["certname", "config"].map(Setting::plain), "agent");
    let answer = question.ask(&BTreeMap::new(), attempt.timeout).await?;
    parse_certname(answer.get("certname").map_or("", String::as_str))
}

/// The settings of Puppet with the files of its certificates. Only a node that uses them needs them.
const TLS_SETTINGS: [&str; 5] =
    ["certificate_revocation", "hostcert", "hostcrl", "hostprivkey", "localcacert"];

/// Asks Puppet where the certificates of this node are. The answer is not cached.
///
/// # Errors
/// Those of starting Puppet and of its answer.
pub async fn tls_files(command: &RunCommand, attempt: Attempt) -> Result<TlsFiles, PuppetSettingsError> {
    let question = Question::new(command, &TLS_SETTINGS.map(Setting::plain), "agent");
    let answer = question.ask(&BTreeMap::new(), attempt.timeout).await?;
    tls_files_of(&answer).ok_or_else(|| without_hostcert(&question))
}

/// The files of this node's certificates, for a command that runs once: as Puppet said before, or as it says now. The
/// answer depends on the user, so it is kept in a state directory of this user's own only. It counts as long as
/// `puppet.conf` stays as it was; beyond that, only where Puppet does not answer in the time of a first attempt.
///
/// # Errors
/// Those of [`ask`].
pub async fn known_tls_files(
    command: &RunCommand,
    state_dir: &Path,
    attempt: Attempt,
) -> Result<TlsFiles, PuppetSettingsError> {
    if !is_own(state_dir) {
        return tls_files(command, attempt).await;
    }
    let known = cached(command, state_dir);
    let is_current =
        known.as_ref().is_some_and(|settings| settings.config_time() == settings.config_changed_at);
    let files = match known.and_then(|settings| settings.tls) {
        Some(files) if is_current => return Ok(files),
        files => files,
    };
    let attempt = if files.is_some() { Attempt::FIRST } else { attempt };
    let answer = ask(command, &BTreeMap::new(), state_dir, attempt).await;
    match (answer, files) {
        (Err(_), Some(files)) => Ok(files),
        (answer, _) => answer?.tls.ok_or_else(|| without_hostcert(&Question::all(command)[0])),
    }
}

/// Whether a directory is there and belongs to the user of this process.
fn is_own(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|metadata| metadata.uid() == rustix::process::geteuid().as_raw())
}

fn without_hostcert(question: &Question) -> PuppetSettingsError {
    PuppetSettingsError::Unclear {
        command: question.name(),
        setting: "hostcert".to_owned(),
        answer: "it is empty".to_owned(),
    }
}

/// Asks Puppet for the directories in which it looks for modules. The answer is not cached.
///
/// # Errors
/// Those of starting Puppet and of its answer.
pub async fn module_path(
    command: &RunCommand,
    attempt: Attempt,
) -> Result<Vec<PathBuf>, PuppetSettingsError> {
    let question = Question::new(command, &["config", "modulepath"].map(Setting::plain), "agent");
    let answer = question.ask(&BTreeMap::new(), attempt.timeout).await?;
    let path = answer.get("modulepath").map_or("", String::as_str);
    Ok(path.split(':').filter(|directory| !directory.is_empty()).map(PathBuf::from).collect())
}

/// The files of the certificates. Where Puppet does not check revocations, it does not fetch the lists either.
fn tls_files_of(answer: &Answer) -> Option<TlsFiles> {
    let path = |setting: &str| answer.get(setting).filter(|path| !path.is_empty()).map(PathBuf::from);
    let checks_revocation = answer.get("certificate_revocation").is_none_or(|checks| checks != "false");
    Some(TlsFiles {
        certificate: path("hostcert")?,
        key: path("hostprivkey")?,
        ca: path("localcacert")?,
        crl: path("hostcrl").filter(|_| checks_revocation),
    })
}

fn parse_certname(certname: &str) -> Result<Certname, PuppetSettingsError> {
    certname.parse().map_err(|source| PuppetSettingsError::Certname { certname: certname.to_owned(), source })
}

/// Puppet's settings that matter to Trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PuppetSettings {
    /// Puppet's name for this node, whether Trigger can use it or not.
    pub certname: String,
    /// The report of the last run of `puppet agent`.
    pub last_run_report: PathBuf,
    /// Where the run command itself would leave its report: for `puppet apply` another section decides.
    pub own_report: PathBuf,
    /// Present while an operator has disabled Puppet on this node.
    pub disabled_lock: PathBuf,
    /// Holds the process id of the `puppet agent` whose run is in progress.
    pub run_lock: PathBuf,
    /// Puppet's `puppet.conf`, which may change all of these.
    pub config: PathBuf,
    /// When `puppet.conf` was last changed before Puppet was asked; absent where there was no such file.
    pub config_changed_at: Option<SystemTime>,
    /// The log destinations that `puppet.conf` sets, if it sets any.
    pub logdest: Option<String>,
    /// What limits every run of this Puppet.
    pub limits: TagSettings,
    /// The certificates of this node, whether they are there or not.
    pub tls: Option<TlsFiles>,
}

impl PuppetSettings {
    /// When `puppet.conf` was last changed as of now. If it is not [`Self::config_changed_at`], the other settings may
    /// have changed, too.
    pub fn config_time(&self) -> Option<SystemTime> {
        changed_at(&self.config)
    }

    fn of(answer: &Answer, config_changed_at: Option<SystemTime>) -> Option<Self> {
        let value = |setting: &str| answer.get(setting).map(String::as_str);
        let path = |setting| value(setting).filter(|path| !path.is_empty()).map(PathBuf::from);
        let optional = |setting: &str| value(setting).filter(|value| !value.is_empty()).map(str::to_owned);
        Some(Self {
            certname: value("certname")?.to_owned(),
            last_run_report: path("lastrunreport")?,
            own_report: path(OWN_REPORT).or_else(|| path("lastrunreport"))?,
            disabled_lock: path("agent_disabled_lockfile")?,
            run_lock: path("agent_catalog_run_lockfile")?,
            config: path("config")?,
            config_changed_at,
            logdest: optional("logdest"),
            limits: TagSettings { tags: optional("tags"), skip_tags: optional("skip_tags") },
            tls: tls_files_of(answer),
        })
    }
}

/// Returns when a file was last changed, or `None` if it does not exist.
fn changed_at(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}

/// The settings by name.
type Answer = BTreeMap<String, String>;

/// A setting of Puppet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Setting {
    name: &'static str,
    /// The name under which the answer is kept: one setting may be asked for in two sections.
    key: &'static str,
}

/// The report of `puppet apply`, where the run command is one.
const OWN_REPORT: &str = "lastrunreport of apply";

impl Setting {
    fn plain(name: &'static str) -> Self {
        Self { name, key: name }
    }
}

/// A command that prints settings with their names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    settings: Vec<Setting>,
    argv: Vec<String>,
}

impl Question {
    /// A question for more than one setting, because Puppet prints a single one without its name.
    fn new(command: &RunCommand, settings: &[Setting], section: &str) -> Self {
        let names: Vec<&str> = settings.iter().map(|setting| setting.name).collect();
        Self { settings: settings.to_vec(), argv: command.config_print(&names, section) }
    }

    /// The questions for all settings. The certname, the locks and the report are those of `puppet agent`, whatever the
    /// run command is, whereas the log destination and the tags of `puppet apply` are in another section. Where the run
    /// command is not Puppet, only the certname matters.
    fn all(command: &RunCommand) -> Vec<Self> {
        let agents = ["agent_catalog_run_lockfile", "agent_disabled_lockfile", "certname", "lastrunreport"];
        let agents = [agents.as_slice(), &TLS_SETTINGS].concat().into_iter().map(Setting::plain);
        let agents: Vec<Setting> = agents.collect();
        let own = ["config", "logdest", "skip_tags", "tags"].map(Setting::plain);
        match command.kind() {
            CommandKind::PuppetApply => {
                let own = [own.as_slice(), &[Setting { name: "lastrunreport", key: OWN_REPORT }]].concat();
                vec![Self::new(command, &agents, "agent"), Self::new(command, &own, "user")]
            }
            _ => vec![Self::new(command, &[agents.as_slice(), &own].concat(), "agent")],
        }
    }

    /// The command without the names of the settings, which would bury the reason in a sentence.
    fn name(&self) -> String {
        self.argv[..self.argv.len().min(3)].join(" ")
    }

    /// Reads the settings from what Puppet printed. Its answer comes after all that it logs before, so the last line
    /// with a name counts.
    fn read(&self, printed: &str) -> Result<Answer, PuppetSettingsError> {
        self.read_by(|setting| setting.name, printed)
    }

    /// Reads the settings from the cache, where they have the names under which they are kept.
    fn recall(&self, cached: &str) -> Result<Answer, PuppetSettingsError> {
        self.read_by(|setting| setting.key, cached)
    }

    fn read_by(
        &self,
        label: impl Fn(&Setting) -> &'static str,
        printed: &str,
    ) -> Result<Answer, PuppetSettingsError> {
        let mut answer = Answer::new();
        for line in printed.lines() {
            let line = without_colours(line);
            let Some((name, value)) = line.split_once(" =") else { continue };
            if let Some(setting) = self.settings.iter().find(|setting| label(setting) == name)
                && (value.is_empty() || value.starts_with(' '))
            {
                answer.insert(setting.key.to_owned(), value.trim().to_owned());
            }
        }
        let needed = self.settings.iter().filter(|setting| !TLS_SETTINGS.contains(&setting.name));
        match needed.into_iter().find(|setting| !answer.contains_key(setting.key)) {
            None => Ok(answer),
            Some(setting) => Err(PuppetSettingsError::Unclear {
                command: self.name(),
                setting: setting.name.to_owned(),
                answer: last_line(printed),
            }),
        }
    }

    async fn ask(
        &self,
        environment: &BTreeMap<String, String>,
        timeout: Duration,
    ) -> Result<Answer, PuppetSettingsError> {
        let command = self.name();
        let output = Command::new(&self.argv[0])
            .args(&self.argv[1..])
            .envs(environment)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(timeout, output).await {
            Ok(Ok(output)) => output,
            Ok(Err(source)) => {
                let reason = start_error::describe(&self.argv[0], &source, Path::new("."), environment);
                return Err(PuppetSettingsError::Run { command, reason, source });
            }
            Err(_) => return Err(PuppetSettingsError::NoAnswer { command, timeout }),
        };
        if !output.status.success() {
            let stderr = last_line(&String::from_utf8_lossy(&output.stderr));
            return Err(PuppetSettingsError::Failed { command, status: output.status, stderr });
        }
        self.read(&String::from_utf8_lossy(&output.stdout))
    }
}

/// Removes the escape sequences by which a terminal changes colours.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(
            part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').get(1..).unwrap_or_default(),
        );
    }
    text
}

/// The last line of a program's output, which says most, and not more of it than an error can quote.
fn last_line(output: &str) -> String {
    let line = output.lines().rev().map(without_colours).find(|line| !line.trim().is_empty());
    line.map_or_else(
        || "it printed nothing".to_owned(),
        |line| line.trim().chars().take(MAX_QUOTE_CHARS).collect(),
    )
}

/// Returns the first line of the cache, which identifies the commands: another run command may start another Puppet.
fn asked(questions: &[Question]) -> String {
    let questions: Vec<String> = questions.iter().map(|question| question.argv.join("\u{1f}")).collect();
    format!("{}\n", questions.join("\u{1e}"))
}

fn cache(state_dir: &Path) -> PathBuf {
    state_dir.join("puppet-settings")
}

/// The line of the cache that has [`PuppetSettings::config_changed_at`], in nanoseconds since 1970.
const CHANGED_AT: &str = "puppet.conf changed at ";

/// Returns the cached settings of this run command's Puppet, or `None` if that Puppet has not been asked yet.
pub fn cached(command: &RunCommand, state_dir: &Path) -> Option<PuppetSettings> {
    let text = read_if_present(&Os::start(), &cache(state_dir)).ok().flatten()?;
    let questions = Question::all(command);
    let lines = text.strip_prefix(&asked(&questions))?;
    let mut answer = Answer::new();
    for question in &questions {
        answer.extend(question.recall(lines).ok()?);
    }
    let changed_at = lines.lines().find_map(|line| line.strip_prefix(CHANGED_AT)?.parse().ok());
    PuppetSettings::of(&answer, changed_at.map(|nanos| UNIX_EPOCH + Duration::from_nanos(nanos)))
}

/// Asks Puppet for its settings and caches the answer. They change when an operator edits `puppet.conf` or installs
/// another vendor's packages. A cache that cannot be written is logged and is no error.
///
/// # Errors
/// Those of starting Puppet, or [`PuppetSettingsError::Unclear`] if the answer lacks a setting.
pub async fn ask(
    command: &RunCommand,
    environment: &BTreeMap<String, String>,
    state_dir: &Path,
    attempt: Attempt,
) -> Result<PuppetSettings, PuppetSettingsError> {
    // Read before the question, so that a change during it counts as another change.
    let before = cached(command, state_dir).map(|known| (changed_at(&known.config), known.config));
    let questions = Question::all(command);
    let mut answer = Answer::new();
    for question in &questions {
        answer.extend(question.ask(environment, attempt.timeout).await?);
    }
    let config = PathBuf::from(answer.get("config").map_or("", String::as_str));
    let changed_at = match before {
        Some((at, known)) if known == config => at,
        _ => changed_at(&config),
    };
    let settings = PuppetSettings::of(&answer, changed_at).ok_or_else(|| {
        let empty = answer.iter().find(|(_, value)| value.is_empty());
        PuppetSettingsError::Unclear {
            command: questions[0].name(),
            setting: empty.map(|(name, _)| name.clone()).unwrap_or_default(),
            answer: "it is empty".to_owned(),
        }
    })?;
    let mut text = asked(&questions);
    for (name, value) in &answer {
        let _ = writeln!(text, "{name} = {value}");
    }
    if let Some(since) = changed_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()) {
        let _ = writeln!(text, "{CHANGED_AT}{}", since.as_nanos());
    }
    if let Err(error) = write_durably(&Os::start(), &cache(state_dir), text.as_bytes()) {
        tracing::warn!(%error, "cannot cache Puppet's settings");
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &str) -> RunCommand {
        RunCommand::from_words(words.split(' ').map(str::to_owned).collect()).unwrap()
    }

    const ANSWER: &str = "agent_catalog_run_lockfile = /s/run.lock\nagent_disabled_lockfile = /s/disabled.lock\n\
                          certificate_revocation = chain\n\
                          certname = lb01.example.com\nconfig = /etc/puppet/puppet.conf\n\
                          hostcert = /ssl/cert.pem\nhostcrl = /ssl/crl.pem\nhostprivkey = /ssl/key.pem\n\
                          localcacert = /ssl/ca.pem\n\
                          lastrunreport = /s/report.yaml\nlogdest =\nskip_tags = \ntags = web, db\n";

    /// Reads what Puppet prints, whatever it logs before and after its answer.
    fn read(printed: &str) -> Result<PuppetSettings, String> {
        let questions = Question::all(&command("puppet agent"));
        let answer = questions[0].read(printed).map_err(|error| error.to_string())?;
        PuppetSettings::of(&answer, None).ok_or_else(|| "empty".to_owned())
    }

    #[test]
    fn settings_are_read_by_name_and_an_empty_one_is_none() {
        let settings = read(ANSWER).unwrap();
        assert_eq!(settings.certname, "lb01.example.com");
        assert_eq!(settings.run_lock, Path::new("/s/run.lock"));
        assert_eq!(settings.config, Path::new("/etc/puppet/puppet.conf"));
        assert_eq!(settings.logdest, None);
        let tls = TlsFiles {
            certificate: "/ssl/cert.pem".into(),
            key: "/ssl/key.pem".into(),
            ca: "/ssl/ca.pem".into(),
            crl: Some("/ssl/crl.pem".into()),
        };
        assert_eq!(settings.tls, Some(tls.clone()));
        let unchecked = ANSWER.replace("revocation = chain", "revocation = false");
        assert_eq!(read(&unchecked).unwrap().tls, Some(TlsFiles { crl: None, ..tls }));
        let limits = TagSettings { tags: Some("web, db".to_owned()), skip_tags: None };
        assert_eq!(settings.limits, limits);
        let logged = ANSWER.replace("logdest =", "logdest = /var/log/a = b.log,console");
        assert_eq!(read(&logged).unwrap().logdest.as_deref(), Some("/var/log/a = b.log,console"));
    }

    #[test]
    fn what_puppet_logs_around_its_answer_is_ignored() {
        let expected = read(ANSWER).unwrap();
        let log = "Debug: Runtime environment: puppet_version=7.23.0, run_mode=user\n\
                   \u{1b}[0;36mDebug: Evicting cache entry for environment :production\u{1b}[0m\n\
                   Warning: Setting certname = x is deprecated.\n   (location: settings.rb:1194:in `each')\n\
                   certname = first\ncertname=second\n certname = third\ncertnames = fourth\n";
        assert_eq!(read(&format!("{log}{ANSWER}")), Ok(expected.clone()));
        assert_eq!(read(&format!("{log}{ANSWER}Debug: certname = x\nWarning: bye\n")), Ok(expected.clone()));
        let coloured: String = ANSWER.lines().map(|line| format!("\u{1b}[1;33m{line}\u{1b}[0m\n")).collect();
        assert_eq!(read(&coloured), Ok(expected));
    }

    #[test]
    fn an_answer_without_a_setting_is_an_error_that_names_it() {
        let error = read("Debug: x\nlogdest = y\n").unwrap_err();
        assert!(
            error.contains("did not print the setting 'agent_catalog_run_lockfile': logdest = y"),
            "{error}"
        );
        assert!(read("").unwrap_err().ends_with("it printed nothing"));
        let long = read(&"ä".repeat(5000)).unwrap_err();
        assert!(long.chars().count() < 700, "{long}");
    }

    #[test]
    fn an_apply_logs_where_another_section_says() {
        let questions =
            |words: &str| Question::all(&command(words)).iter().map(|q| q.argv.join(" ")).collect::<Vec<_>>();
        assert_eq!(questions("puppet agent").len(), 1);
        let [locks, log] = &questions("puppet apply x.pp")[..] else { panic!("two questions") };
        assert_eq!(
            locks,
            "puppet config print agent_catalog_run_lockfile agent_disabled_lockfile certname lastrunreport \
             certificate_revocation hostcert hostcrl hostprivkey localcacert --section agent --color=false"
        );
        assert!(log.contains("config logdest skip_tags tags lastrunreport --section user"), "{log}");
    }

    #[test]
    fn each_attempt_is_more_patient_up_to_a_bound() {
        let attempts: Vec<Attempt> =
            std::iter::successors(Some(Attempt::FIRST), |attempt| Some(attempt.next())).take(8).collect();
        let seconds =
            |of: fn(&Attempt) -> Duration| attempts.iter().map(|a| of(a).as_secs()).collect::<Vec<_>>();
        assert_eq!(seconds(|attempt| attempt.timeout), [30, 60, 120, 240, 480, 600, 600, 600]);
        assert_eq!(seconds(|attempt| attempt.pause), [2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
