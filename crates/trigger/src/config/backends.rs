//! Which backend a command uses.
//!
//! The sources are, from the most specific one to the least: the flag `--backend`, the variable `TRIGGER_BACKEND`, the
//! configuration file, and the default of the program. The first one that is present chooses the backend. It gives a
//! URL, or the bare name of a kind; then the URL is that of the most specific source that names a URL of this kind.

use trigger_node::node_backends::NodeBackends;
use trigger_store::kinds::{self, BackendKind};
use trigger_store::url::BackendUrl;

use super::{BackendTable, ConfigFile, setting};
use crate::failure::Failure;

/// The variable that names the backend. The agent sets it for its runs.
pub(crate) const BACKEND_VARIABLE: &str = "TRIGGER_BACKEND";

/// The source of a backend's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackendSource {
    Flag,
    Environment,
    File,
    /// Nothing is configured: the URL is the one that the program has for the kind.
    Default,
}

/// A backend, and where its URL comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChosenBackend {
    pub(crate) url: BackendUrl,
    pub(crate) source: BackendSource,
    /// The kind, if it was chosen by its bare name.
    pub(crate) named_kind: Option<&'static BackendKind>,
}

/// A URL as its source has it.
struct Candidate<'a> {
    source: BackendSource,
    /// What an error calls the source; empty for the flag, which the operator has just typed.
    name: String,
    text: &'a str,
}

impl Candidate<'_> {
    fn parse(&self) -> Result<BackendUrl, Failure> {
        match self.name.as_str() {
            "" => self.text.parse().map_err(|error| Failure::config(format!("{error}"))),
            name => setting(name)(self.text),
        }
    }
}

impl ConfigFile {
    /// Chooses the backend from `flag` (the value of `--backend`), `environment` (that of `TRIGGER_BACKEND`), this file
    /// and the default, which is the hub on this machine.
    ///
    /// Every URL of the file is checked, not only the one that is chosen: the others are for `trigger` resources that
    /// name a provider, and such a resource finds out too late, at its refresh.
    pub(crate) fn backend(
        &self,
        flag: Option<&str>,
        environment: Option<&str>,
    ) -> Result<ChosenBackend, Failure> {
        self.check_urls()?;
        let candidates = self.candidates(flag, environment);
        let default =
            Candidate { source: BackendSource::Default, name: String::new(), text: kinds::DEFAULT_URL };
        let first = candidates.iter().find(|candidate| !candidate.name.starts_with("backends."));
        let first = first.unwrap_or(&default);
        if first.text.contains(':') {
            return Ok(ChosenBackend { url: first.parse()?, source: first.source, named_kind: None });
        }
        let kind = named_kind(first)?;
        let found = candidates.iter().find(|candidate| is_url_of(kind, candidate.text));
        let default = kind.default_url.map(|text| Candidate { text, ..default });
        let chosen = found.or(default.as_ref()).ok_or_else(|| {
            let (name, example) = (kind.name, kind.example);
            Failure::config(format!(
                "no URL is configured for the backend '{name}': set url in [backends.{name}], for example \"{example}\""
            ))
        })?;
        Ok(ChosenBackend { url: chosen.parse()?, source: chosen.source, named_kind: Some(kind) })
    }

    /// What the sources say, the most specific one first. Within the file, a table speaks of its kind alone, and so
    /// comes before `backend`, which also says which kind is used where none is named.
    fn candidates<'a>(&'a self, flag: Option<&'a str>, environment: Option<&'a str>) -> Vec<Candidate<'a>> {
        let candidate = |source, name: &str, text| Candidate { source, name: name.to_owned(), text };
        // clap has put the variable in the place of a flag that is absent.
        let flag_source = if flag == environment { BackendSource::Environment } else { BackendSource::Flag };
        let flag_name = if flag == environment { BACKEND_VARIABLE } else { "" };
        let flag = flag.map(|text| candidate(flag_source, flag_name, text));
        let environment =
            environment.map(|text| candidate(BackendSource::Environment, BACKEND_VARIABLE, text));
        let tables = self.backends.iter().filter_map(|(kind, table)| {
            let text = table.url.as_deref()?;
            Some(candidate(BackendSource::File, &format!("backends.{kind}.url"), text))
        });
        let file = self.backend.as_deref().map(|text| candidate(BackendSource::File, "backend", text));
        flag.into_iter().chain(environment).chain(tables).chain(file).collect()
    }

    /// Checks the URLs of the file, each with the name of its setting.
    fn check_urls(&self) -> Result<(), Failure> {
        for (name, table) in &self.backends {
            check_backend_table(name, table)?;
        }
        match self.backend.as_deref() {
            Some(text) if text.contains(':') => setting::<BackendUrl>("backend")(text).map(|_| ()),
            Some(name) if kinds::by_name(name).is_none() => Err(unknown_kind(name)),
            _ => Ok(()),
        }
    }

    /// The backends of this node: the chosen one, and the URL that a bare name stands for, of each kind that has one.
    /// `given` is what the flag or the variable says.
    pub(crate) fn node_backends(&self, chosen: &ChosenBackend, given: Option<&str>) -> NodeBackends {
        let of_kind = |kind: &&BackendKind| self.backend(Some(kind.name), given).ok();
        let named = kinds::KINDS.iter().filter_map(of_kind);
        let configured = named.filter(|found| found.source != BackendSource::Default);
        NodeBackends::new(chosen.url.clone(), configured.map(|found| found.url).collect())
    }
}

fn named_kind(candidate: &Candidate) -> Result<&'static BackendKind, Failure> {
    kinds::by_name(candidate.text).ok_or_else(|| unknown_kind(candidate.text))
}

/// Whether a text is a URL of this kind, well formed or not: one with a mistake is refused rather than passed over.
fn is_url_of(kind: &BackendKind, text: &str) -> bool {
    let scheme = text.split_once(':').and_then(|(scheme, _)| kinds::by_scheme(scheme));
    scheme.is_some_and(|(found, _)| found == kind)
}

fn unknown_kind(name: &str) -> Failure {
    Failure::config(format!("'{name}' is not a backend: there are {}", kinds::names("and")))
}

/// Checks that a table is named after a kind and that its URL is of that kind.
fn check_backend_table(name: &str, table: &BackendTable) -> Result<(), Failure> {
    let kind = kinds::by_name(name).ok_or_else(|| unknown_kind(name))?;
    let Some(text) = table.url.as_deref() else { return Ok(()) };
    let key = format!("backends.{name}.url");
    let url: BackendUrl = setting(&key)(text)?;
    if url.kind() != kind {
        let title = kind.title;
        return Err(Failure::config(format!("setting {key}: '{text}' is not the URL of {title}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(file: &str, flag: Option<&str>, environment: Option<&str>) -> String {
        // As clap does: the variable stands in for a flag that is absent.
        match ConfigFile::parse(file).unwrap().backend(flag.or(environment), environment) {
            Ok(chosen) => format!("{} ({:?})", chosen.url, chosen.source),
            Err(failure) => failure.message,
        }
    }

    /// Every pair of the name of a kind and a source that has a URL of this kind. `docs/operating/install.md` has the
    /// same table.
    #[test]
    fn the_most_specific_source_that_names_the_kind_wins() {
        for (kind, scheme, default) in
            [("hub", "hub+https", Some("hub+http://127.0.0.1:8145 (Default)")), ("etcd", "etcd", None)]
        {
            let other = if kind == "hub" { "etcd://other:9" } else { "hub+https://other:9" };
            let variable = format!("{scheme}://variable:1");
            let table = format!("[backends.{kind}]\nurl = '{scheme}://table:1'\n");
            let file = format!("backend = '{scheme}://file:1'\n");
            let from_variable = format!("{variable} (Environment)");
            let from_table = format!("{scheme}://table:1 (File)");
            let from_file = format!("{scheme}://file:1 (File)");
            let none = default.map_or_else(
                || format!("no URL is configured for the backend '{kind}': set url in [backends.{kind}], for example \"etcd://127.0.0.1:2379\""),
                str::to_owned,
            );
            let rows: [(String, Option<&str>, &str); 10] = [
                // The file, the variable, what `--backend KIND` gives.
                (format!("{file}{table}"), Some(&variable), &from_variable),
                (table.clone(), Some(&variable), &from_variable),
                (file.clone(), Some(&variable), &from_variable),
                (String::new(), Some(&variable), &from_variable),
                (format!("{file}{table}"), Some(other), &from_table),
                (format!("{file}{table}"), None, &from_table),
                (file, Some(other), &from_file),
                (format!("backend = '{other}'\n{table}"), None, &from_table),
                (format!("backend = '{other}'\n"), Some(other), &none),
                (String::new(), None, &none),
            ];
            for (file, variable, expected) in rows {
                assert_eq!(choose(&file, Some(kind), variable), *expected, "{kind}; {file:?}; {variable:?}");
                // A bare name in the variable or in the file is looked up in what remains.
                if variable.is_none() {
                    assert_eq!(choose(&file, None, Some(kind)), *expected, "{kind}; {file:?}");
                }
                if variable.is_none() && !file.contains("backend =") {
                    let file = format!("backend = '{kind}'\n{file}");
                    assert_eq!(choose(&file, None, None), *expected, "{file:?}");
                }
            }
        }
    }

    #[test]
    fn without_a_named_kind_the_first_source_wins() {
        let file = "backend = 'etcd://file:1'\n[backends.hub]\nurl = 'hub+https://table:1'\n";
        let variable = Some("hub+https://variable:1");
        assert_eq!(choose(file, Some("dummy:"), variable), "dummy: (Flag)");
        assert_eq!(choose(file, None, variable), "hub+https://variable:1 (Environment)");
        assert_eq!(choose(file, None, None), "etcd://file:1 (File)");
        assert_eq!(choose("", None, None), "hub+http://127.0.0.1:8145 (Default)");
        // A table alone says which hub, but not that the hub is used.
        assert_eq!(
            choose("[backends.etcd]\nurl = 'etcd://a:1'", None, None),
            "hub+http://127.0.0.1:8145 (Default)"
        );
        assert_eq!(choose("backend = 'dummy'", None, None), "dummy: (Default)");
        assert_eq!(
            choose("", Some("nonsense"), None),
            "'nonsense' is not a backend: there are hub, etcd and dummy"
        );
    }

    #[test]
    fn a_url_with_a_mistake_is_refused_with_its_source_and_not_passed_over() {
        let brackets = "has a bad address '::1:1': an IPv6 address stands in brackets, as in [::1]:8145";
        let bad = "hub+http://::1:1";
        assert_eq!(choose("", Some(bad), None), format!("'{bad}' {brackets}"));
        assert_eq!(choose("", None, Some(bad)), format!("setting TRIGGER_BACKEND: '{bad}' {brackets}"));
        assert_eq!(
            choose("", Some("hub"), Some(bad)),
            format!("setting TRIGGER_BACKEND: '{bad}' {brackets}")
        );
        for flag in [None, Some("hub"), Some("dummy:")] {
            assert_eq!(
                choose(&format!("backend = '{bad}'"), flag, None),
                format!("setting backend: '{bad}' {brackets}")
            );
        }
    }

    #[test]
    fn every_url_of_the_file_is_checked() {
        let check = |file, expected| assert_eq!(choose(file, None, None), expected);
        check(
            "[backends.etcd]\nurl = 'etcd://::1:1'",
            "setting backends.etcd.url: 'etcd://::1:1' has a bad address '::1:1': an IPv6 address stands in brackets, as in [::1]:8145",
        );
        check(
            "[backends.etcd]\nurl = 'hub+https://h:1'",
            "setting backends.etcd.url: 'hub+https://h:1' is not the URL of an etcd cluster",
        );
        check(
            "[backends.ectd]\nurl = 'etcd://h:1'",
            "'ectd' is not a backend: there are hub, etcd and dummy",
        );
        check("backend = 'ectd'", "'ectd' is not a backend: there are hub, etcd and dummy");
    }
}
