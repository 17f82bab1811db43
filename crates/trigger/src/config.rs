//! Settings: flags, then `TRIGGER_*` variables, then the configuration file.

mod accept;
mod backends;
#[cfg(test)]
mod packaged;
mod paths;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use trigger_core::authorization::Operators;
use trigger_core::duration;
use trigger_core::identity::{Certname, GroupName, KeyPrefix};
use trigger_core::log_policy::LogPolicy;
use trigger_core::policy::Policy;
use trigger_core::queue::{DEFAULT_SETTLE, MAX_SETTLE};
use trigger_core::rate_limiter::RunsPerMinute;
use trigger_core::run::command::RunCommand;
use trigger_store::https::HttpsUrl;

use crate::failure::Failure;

use accept::AcceptTable;
pub(crate) use backends::{BACKEND_VARIABLE, BackendSource, ChosenBackend};
pub(crate) use paths::absolute;
use tls::TlsTable;

/// The default path of the configuration file.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/trigger/trigger.toml";
/// The default path of the state directory.
pub(crate) const DEFAULT_STATE_DIR: &str = "/var/lib/trigger";
/// The default path of the hub's data directory.
pub(crate) const DEFAULT_HUB_DATA_DIR: &str = "/var/lib/trigger/hub";
/// The default address that the hub listens on.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:8145";
/// The default time that a run may take.
const DEFAULT_RUN_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// The configuration file, as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    pub(crate) backend: Option<String>,
    pub(crate) certname: Option<String>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) prefix: Option<String>,
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    pub(crate) run_cmd: Option<String>,
    #[serde(default, deserialize_with = "number_or_text")]
    pub(crate) run_timeout: Option<String>,
    pub(crate) runs_per_minute: Option<i64>,
    #[serde(default, deserialize_with = "number_or_text")]
    pub(crate) settle: Option<String>,
    pub(crate) metrics_file: Option<PathBuf>,
    pub(crate) require_signature: Option<bool>,
    pub(crate) shared_key: Option<PathBuf>,
    #[serde(default)]
    pub(crate) hub: HubTable,
    #[serde(default)]
    pub(crate) backends: BTreeMap<String, BackendTable>,
    #[serde(default)]
    pub(crate) accept: Vec<AcceptTable>,
    #[serde(default)]
    pub(crate) tls: TlsTable,
    #[serde(default)]
    pub(crate) puppetdb: PuppetDbTable,
    #[serde(default)]
    pub(crate) socket: SocketTable,
    #[serde(default)]
    pub(crate) audit: AuditTable,
    #[serde(default)]
    pub(crate) log: LogTable,
    #[serde(default)]
    pub(crate) operators: OperatorsTable,
    /// Where the file is, or would be.
    #[serde(skip)]
    pub(crate) path: PathBuf,
    /// Warnings about the file, for the command to print.
    #[serde(skip)]
    pub(crate) warnings: Vec<String>,
}

/// Reads a duration, which is a text or a bare number of seconds.
fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct Duration;
    impl Visitor<'_> for Duration {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration such as \"1h\" or \"90s\", or a number of seconds")
        }

        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_i64<E>(self, seconds: i64) -> Result<String, E> {
            Ok(seconds.to_string())
        }
    }
    deserializer.deserialize_any(Duration).map(Some)
}

/// `[hub]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HubTable {
    pub(crate) listen: Option<String>,
    pub(crate) tls: Option<bool>,
    pub(crate) health_listen: Option<String>,
    pub(crate) crl_url: Option<String>,
    #[serde(default, deserialize_with = "number_or_text")]
    pub(crate) crl_refresh: Option<String>,
    #[serde(default)]
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) data_dir: Option<PathBuf>,
    #[serde(default)]
    pub(crate) operators: Vec<String>,
    #[serde(default)]
    pub(crate) operator_auth_roles: Vec<String>,
    #[serde(default)]
    pub(crate) operator_cli_auth: bool,
}

/// `[puppetdb]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PuppetDbTable {
    pub(crate) url: Option<String>,
}

/// `[socket]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SocketTable {
    #[serde(default)]
    pub(crate) groups: Vec<String>,
}

/// `[audit]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditTable {
    pub(crate) file: Option<PathBuf>,
}

/// `[log]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogTable {
    pub(crate) operators: Option<bool>,
    #[serde(default)]
    pub(crate) readers: Vec<String>,
}

/// `[operators]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperatorsTable {
    #[serde(default)]
    pub(crate) certnames: Vec<String>,
    #[serde(default)]
    pub(crate) auth_roles: Vec<String>,
    #[serde(default)]
    pub(crate) cli_auth: bool,
}

/// `[backends.KIND]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackendTable {
    pub(crate) url: Option<String>,
}

impl ConfigFile {
    /// Reads the file at `path`, or the default file, which may be missing.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let named = path.is_some();
        let path = path.unwrap_or(Path::new(DEFAULT_CONFIG));
        let empty = Self { path: path.to_owned(), ..Self::default() };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => return Ok(empty),
            // An ordinary user's Puppet run may fire although the file is for root only.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && !named => {
                let warning = format!("{} cannot be read and is ignored: {error}", path.display());
                return Ok(Self { warnings: vec![warning], ..empty });
            }
            Err(error) => return Err(Failure::config(format!("cannot read {}: {error}", path.display()))),
        };
        let parsed = Self::parse(&text);
        let parsed = parsed.map_err(|detail| Failure::config(format!("{}: {detail}", path.display())))?;
        Ok(Self { path: path.to_owned(), ..parsed })
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let place = error.span().map_or_else(String::new, |span| {
                format!("line {}: ", text[..span.start.min(text.len())].matches('\n').count() + 1)
            });
            let message = error.message();
            match message.strip_prefix("unknown field ").map(quoted_words) {
                Some(words) if !words.is_empty() => {
                    format!("{place}unknown key '{}'{}", words[0], suggestion(words[0], &words[1..]))
                }
                _ if message.starts_with("invalid type") => {
                    let line =
                        error.span().and_then(|span| text[..span.start.min(text.len())].lines().last());
                    let key = line.and_then(|line| line.split_once('=')).map_or("", |(key, _)| key.trim());
                    format!("{place}{key}{}{message}", if key.is_empty() { "" } else { ": " })
                }
                _ => format!("{place}{message}"),
            }
        })
    }

    /// Returns the file that a daemon writes its audit to; without one, the audit goes where the log goes.
    pub(crate) fn audit_file(&self) -> Result<Option<PathBuf>, Failure> {
        self.audit.file.clone().map(|path| absolute("audit.file", path)).transpose()
    }

    /// Returns the policy of this node.
    pub(crate) fn policy(&self) -> Result<Policy, Failure> {
        let LogTable { operators, readers } = self.log.clone();
        let logs = LogPolicy::new(operators.unwrap_or(true), readers)
            .map_err(|error| Failure::config(format!("setting log.readers: {error}")))?;
        Ok(accept::policy(&self.path, &self.accept)?.with_logs(logs).with_operators(self.operators()?))
    }

    /// Returns the configured address of PuppetDB.
    pub(crate) fn puppetdb_url(&self) -> Result<Option<HttpsUrl>, Failure> {
        self.puppetdb.url.as_deref().map(setting("puppetdb.url")).transpose()
    }

    /// Returns who may cancel other nodes' events here.
    fn operators(&self) -> Result<Operators, Failure> {
        let OperatorsTable { certnames, auth_roles, cli_auth } = self.operators.clone();
        let certname = |name: &String| {
            Certname::fold_case(name)
                .map_err(|error| Failure::config(format!("setting operators.certnames: {error}")))
        };
        let certnames = certnames.iter().map(certname).collect::<Result<_, _>>()?;
        Ok(Operators { certnames, auth_roles: auth_roles.into_iter().collect(), cli_auth })
    }

    pub(crate) fn certname(&self) -> Result<Option<Certname>, Failure> {
        self.certname.as_deref().map(certname_setting).transpose()
    }

    pub(crate) fn prefix(&self) -> Result<KeyPrefix, Failure> {
        self.prefix.as_deref().map(setting("prefix")).transpose().map(Option::unwrap_or_default)
    }

    pub(crate) fn groups(&self) -> Result<Vec<GroupName>, Failure> {
        self.groups.iter().map(|group| setting("groups")(group)).collect()
    }
}

/// Returns a parser whose error names the setting, for use with `map`.
pub(crate) fn setting<T: std::str::FromStr>(name: &str) -> impl Fn(&str) -> Result<T, Failure>
where
    T::Err: std::fmt::Display,
{
    move |text| text.parse().map_err(|error| Failure::config(format!("setting {name}: {error}")))
}

/// A certname as an operator writes it, in any case.
pub(crate) fn certname_setting(text: &str) -> Result<Certname, Failure> {
    Certname::fold_case(text).map_err(|error| Failure::config(format!("setting certname: {error}")))
}

/// The run command, split into words as a shell would; no shell interprets it.
pub(crate) fn run_command(text: Option<&str>) -> Result<RunCommand, Failure> {
    let Some(text) = text else { return Ok(RunCommand::default()) };
    let command = shlex::split(text)
        .and_then(RunCommand::from_words)
        .ok_or_else(|| Failure::config(format!("setting run_cmd: '{text}' cannot be split into words")))?;
    match command.option_without_a_run() {
        Some(option) => Err(Failure::config(format!(
            "setting run_cmd: with {option} Puppet does not run: remove it from '{text}'"
        ))),
        None => Ok(command),
    }
}

/// The run timeout, such as `1h` or `90s`; a bare number is seconds.
pub(crate) fn run_timeout(text: Option<&str>) -> Result<Duration, Failure> {
    let Some(text) = text else { return Ok(DEFAULT_RUN_TIMEOUT) };
    let timeout = duration::parse(text).map_err(|error| {
        Failure::config(format!("setting run_timeout: '{text}' is not a duration: {error}"))
    })?;
    if timeout < Duration::from_secs(1) {
        return Err(Failure::config(format!("setting run_timeout: '{text}' is less than a second")));
    }
    Ok(timeout)
}

/// How long a run waits for what other nodes export, such as `20s`; a bare number is seconds, and 0 is not at all.
pub(crate) fn settle(text: Option<&str>) -> Result<Duration, Failure> {
    let Some(text) = text else { return Ok(DEFAULT_SETTLE) };
    let settle = duration::parse(text)
        .map_err(|error| Failure::config(format!("setting settle: '{text}' is not a duration: {error}")))?;
    if settle > MAX_SETTLE {
        let most = duration::format_short(MAX_SETTLE);
        return Err(Failure::config(format!("setting settle: '{text}' is more than {most}")));
    }
    Ok(settle)
}

/// The most runs that may start in any minute: from the command line, else from the file, where it is a number.
pub(crate) fn runs_per_minute(argument: Option<&str>, file: Option<i64>) -> Result<RunsPerMinute, Failure> {
    let text = argument.map(str::to_owned).or_else(|| file.map(|number| number.to_string()));
    text.as_deref().map(setting("runs_per_minute")).transpose().map(Option::unwrap_or_default)
}

/// The file that the agent writes metrics to. It must be absolute, because a daemon's working directory is arbitrary, and
/// node_exporter reads no other files.
pub(crate) fn metrics_file(path: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    let Some(path) = path else { return Ok(None) };
    if path.file_name().is_none() {
        let shown = path.display();
        return Err(Failure::config(format!(
            "setting metrics_file: '{shown}' is not the absolute path of a file"
        )));
    }
    let path = absolute("metrics_file", path.to_owned())?;
    if !path.as_os_str().as_encoded_bytes().ends_with(b".prom") {
        let shown = path.display();
        return Err(Failure::config(format!(
            "setting metrics_file: '{shown}' does not end in .prom, and node_exporter reads no other files"
        )));
    }
    Ok(Some(path))
}

/// The words between backticks. serde's error names the unknown field first, then the known ones.
fn quoted_words(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The known key that is most like `key`, or all known keys.
fn suggestion(key: &str, known_keys: &[&str]) -> String {
    let closest = known_keys
        .iter()
        .map(|known| (strsim::jaro_winkler(key, known), known))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match closest {
        Some((_, known)) => format!("; did you mean '{known}'?"),
        None => format!("; there are {}", known_keys.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        ConfigFile::parse(text).unwrap_err()
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_known_one() {
        assert_eq!(
            error("backend = \"dummy:\"\nrun_comand = 'x'\n"),
            "line 2: unknown key 'run_comand'; did you mean 'run_cmd'?"
        );
        assert_eq!(
            error("[hub]\nlisten_on = 'x'\n"),
            "line 2: unknown key 'listen_on'; did you mean 'listen'?"
        );
        assert_eq!(error("[[accept]]\nform = 'a'\n"), "line 2: unknown key 'form'; did you mean 'from'?");
        // Only the keys of the same table are suggested.
        assert_eq!(error("[backends.hub]\nlisten = 'x'\n"), "line 2: unknown key 'listen'; there are url");
        assert!(error("zzz = 1").starts_with("line 1: unknown key 'zzz'; there are backend, "));
    }

    #[test]
    fn a_wrong_type_is_reported_with_its_line_and_key() {
        let error = error("certname = 7\n");
        assert!(error.starts_with("line 1: certname: invalid type"), "{error}");
    }

    #[test]
    fn a_limit_on_runs_is_a_number_within_bounds() {
        let limit = |text: &str| {
            let file = ConfigFile::parse(text).unwrap();
            runs_per_minute(None, file.runs_per_minute).map(|limit| limit.to_string()).map_err(|e| e.message)
        };
        assert_eq!(limit("").unwrap(), "10");
        assert_eq!(limit("runs_per_minute = 600").unwrap(), "600");
        for bad in ["0", "601", "-1"] {
            let expected = format!("setting runs_per_minute: '{bad}' is not from 1 to 600 runs");
            assert_eq!(limit(&format!("runs_per_minute = {bad}")).unwrap_err(), expected);
        }
        assert!(error("runs_per_minute = 'ten'").contains("invalid type"));
        assert_eq!(runs_per_minute(Some("7"), Some(8)).unwrap().to_string(), "7");
    }

    #[test]
    fn a_wait_for_puppetdb_is_a_duration_or_nothing() {
        let wait = |text: &str| {
            let file = ConfigFile::parse(text).map_err(Failure::config)?;
            settle(file.settle.as_deref()).map(|wait| wait.as_secs())
        };
        for (text, seconds) in
            [("", 20), ("settle = 0", 0), ("settle = '0s'", 0), ("settle = 5", 5), ("settle = '10m'", 600)]
        {
            assert_eq!(wait(text).unwrap(), seconds, "{text}");
        }
        assert_eq!(wait("settle = '601s'").unwrap_err().message, "setting settle: '601s' is more than 10m");
        assert!(
            wait("settle = 'soon'")
                .unwrap_err()
                .message
                .starts_with("setting settle: 'soon' is not a duration")
        );
        let url =
            |text: &str| ConfigFile::parse(&format!("[puppetdb]\nurl = '{text}'")).unwrap().puppetdb_url();
        assert_eq!(url("https://db:8081").unwrap().unwrap().to_string(), "https://db:8081");
        assert!(
            url("http://db:8080")
                .unwrap_err()
                .message
                .starts_with("setting puppetdb.url: 'http://db:8080' is not an HTTPS URL")
        );
    }

    #[test]
    fn metrics_go_to_an_absolute_path() {
        assert_eq!(metrics_file(None).unwrap(), None);
        let path = Path::new("/var/lib/prometheus/node-exporter/trigger.prom");
        assert_eq!(metrics_file(Some(path)).unwrap().as_deref(), Some(path));
        let error = |path: &str| metrics_file(Some(Path::new(path))).unwrap_err().message;
        for bad in ["trigger.prom", "", "/"] {
            assert!(error(bad).contains("absolute path"), "{bad}");
        }
        for bad in ["/a/trigger.txt", "/a/prom", "/a/x.prom.tmp", "/a/x.PROM"] {
            assert!(
                error(bad).ends_with("does not end in .prom, and node_exporter reads no other files"),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_timeout_is_a_duration_and_a_bare_number_is_seconds() {
        let timeout = |text: &str| {
            let file = ConfigFile::parse(text).map_err(Failure::config)?;
            run_timeout(file.run_timeout.as_deref()).map(|timeout| timeout.as_secs())
        };
        let check = |text: &str, seconds: u64| assert_eq!(timeout(text).unwrap(), seconds, "{text}");
        check("", 3600);
        check("run_timeout = 90", 90);
        check("run_timeout = '90'", 90);
        check("run_timeout = '1h 30m'", 5400);
        for bad in ["run_timeout = 0", "run_timeout = -1", "run_timeout = '1y'"] {
            assert!(timeout(bad).unwrap_err().message.contains("setting run_timeout: "), "{bad}");
        }
        let error = timeout("run_timeout = true").unwrap_err().message;
        assert!(
            error.contains("expected a duration such as \"1h\" or \"90s\", or a number of seconds"),
            "{error}"
        );
    }

    #[test]
    fn directories_are_absolute() {
        assert_eq!(absolute("state_dir", "/a".into()).unwrap(), Path::new("/a"));
        for bad in ["state", "./state", "../state", ""] {
            let error = absolute("state_dir", bad.into()).unwrap_err().message;
            assert!(
                error.starts_with(&format!("setting state_dir: '{bad}' is not an absolute path")),
                "{error}"
            );
        }
    }

    /// Proves C8.
    #[test]
    fn a_run_command_is_split_but_no_shell_interprets_it() {
        let command = run_command(Some("puppet apply '/etc/my site.pp' $(x)")).unwrap();
        let argv = command.argv(
            "019356b0-7c4a-7000-8000-000000000001".parse().unwrap(),
            &Default::default(),
            DEFAULT_RUN_TIMEOUT,
            "r",
            None,
        );
        assert!(argv.windows(2).any(|words| words == ["/etc/my site.pp", "$(x)"]), "{argv:?}");
        assert!(run_command(Some("a 'unclosed")).is_err());
        assert!(run_command(Some("  ")).is_err());
        assert!(run_command(Some("puppet agent --enable")).is_err());
    }
}
