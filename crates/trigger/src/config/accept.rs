//! `[[accept]]`: the rules of this node's policy.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use trigger_core::policy::{Policy, Rule, RuleSettings};

use crate::failure::Failure;

/// `[[accept]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcceptTable {
    trigger: Option<OneOrMany>,
    from: Option<OneOrMany>,
    #[serde(default)]
    extensions: BTreeMap<String, OneOrMany>,
    noop: Option<NoopOption>,
    tags: Option<OneOrMany>,
    environment: Option<OneOrMany>,
    #[serde(default)]
    deny: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NoopOption {
    Only,
}

/// A text, or a list of texts.
#[derive(Debug, Clone)]
struct OneOrMany(Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMany(texts))
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

/// Returns the policy that the file at `path` has with these rules.
pub(super) fn policy(path: &Path, tables: &[AcceptTable]) -> Result<Policy, Failure> {
    let source = path.display().to_string();
    let rules = tables.iter().enumerate().map(|(index, table)| {
        Rule::new(table.settings())
            .map_err(|error| Failure::config(format!("{source}: [[accept]] rule {}: {error}", index + 1)))
    });
    let rules = rules.collect::<Result<_, _>>()?;
    Ok(Policy::new(source.clone(), rules))
}

impl AcceptTable {
    fn settings(&self) -> RuleSettings {
        let texts = |patterns: &Option<OneOrMany>| patterns.clone().map(|OneOrMany(texts)| texts);
        let extensions = self.extensions.iter().map(|(name, values)| (name.clone(), values.0.clone()));
        RuleSettings {
            trigger: texts(&self.trigger),
            from: texts(&self.from),
            extensions: extensions.collect(),
            only_noop: matches!(self.noop, Some(NoopOption::Only)),
            tags: texts(&self.tags),
            environments: texts(&self.environment),
            deny: self.deny,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct File {
        #[serde(default)]
        accept: Vec<AcceptTable>,
    }

    fn policy(text: &str) -> Result<Policy, String> {
        let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        super::policy(Path::new("t.toml"), &file.accept).map_err(|failure| failure.message)
    }

    #[test]
    fn rules_are_read_in_their_order() {
        let read = policy(
            "[[accept]]\nfrom = 'web01'\ndeny = true\n\
             [[accept]]\ntrigger = ['a*', 'b']\nfrom = ['*.example.com']\ntags = 'web'\nnoop = 'only'\nenvironment = 'test_*'\n\
             extensions = { pp_role = 'web', pp_zone = ['1', '2'] }\n",
        );
        let shown: Vec<String> = read.unwrap().rules().iter().map(ToString::to_string).collect();
        let expected = [
            "from web01; deny",
            "trigger a*, b; from *.example.com; pp_role web; pp_zone 1, 2; noop only; tags web; environment test_*",
        ];
        assert_eq!(shown, expected);
        assert!(policy("").unwrap().rules().is_empty());
    }

    #[test]
    fn a_rule_that_cannot_be_meant_is_refused_with_its_number() {
        let check = |text: &str, expected: &str| {
            let error = policy(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        };
        check("[[accept]]\nform = 'a'", "unknown field `form`");
        check("[[accept]]\nfrom = 7", "invalid type: integer `7`, expected a text or a list of texts");
        check("[[accept]]\nnoop = 'no'", "unknown variant `no`, expected `only`");
        check(
            "[[accept]]\n[[accept]]\nfrom = 'a/b'",
            "t.toml: [[accept]] rule 2: from: 'a/b' matches no certname",
        );
        check("[[accept]]\nfrom = []", "t.toml: [[accept]] rule 1: from: the list is empty");
        check(
            "[[accept]]\nextensions = { role = 'x' }",
            "t.toml: [[accept]] rule 1: extensions: 'role' is no",
        );
        check("[[accept]]\ndeny = true\ntags = 'a'", "t.toml: [[accept]] rule 1: deny = true allows nothing");
        check(
            "[[accept]]\nenvironment = 'feature-*'",
            "t.toml: [[accept]] rule 1: environment: 'feature-*' matches no environment",
        );
        assert!(policy("[accept]\nfrom = 'a'").is_err());
    }
}
