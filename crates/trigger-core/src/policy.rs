//! The policy of a node: which events may run Puppet here (C13).
//!
//! A policy is a list of rules, of which the first that is for an event decides. Without any rule every event is
//! accepted that chooses no environment; as soon as there is one, an event that no rule is for is refused.

use std::collections::BTreeMap;
use std::fmt;

use crate::authorization::{Operators, Role};
use crate::escaped::escaped;
use crate::event::{Event, RunOptions};
use crate::identity::{Certname, Environment, Tag, TriggerName};
use crate::log_policy::LogPolicy;
use crate::pattern::{Alphabet, CERTNAMES, InvalidPattern, Patterns};
use crate::signer::Signer;
use crate::trusted_extension;

/// What a policy has to know of an event.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The event's trigger.
    pub trigger: &'a TriggerName,
    /// The node that fired it.
    pub origin: &'a Certname,
    /// What it asks for.
    pub options: &'a RunOptions,
    /// What is verified of its origin.
    pub signer: &'a Signer,
}

impl<'a> Request<'a> {
    /// What a policy has to know of an event whose signature has been looked at.
    pub fn of(event: &'a Event, signer: &'a Signer) -> Self {
        Self { trigger: &event.trigger, origin: &event.origin, options: &event.options, signer }
    }
}

/// The rules of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The file that has the rules, for reasons.
    source: String,
    rules: Vec<Rule>,
    logs: LogPolicy,
    /// Who may cancel other nodes' events here, and hold this node.
    operators: Operators,
}

/// A rule: the events that it is for, and what it lets them do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    trigger: Option<Patterns>,
    from: Option<Patterns>,
    extensions: BTreeMap<String, Patterns>,
    allows: Allows,
}

/// What a rule lets the events do that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Allows {
    Nothing,
    Runs { only_noop: bool, tags: Option<Patterns>, environments: Option<Patterns> },
}

impl Default for Allows {
    fn default() -> Self {
        Self::Runs { only_noop: false, tags: None, environments: None }
    }
}

/// A rule as an operator writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleSettings {
    /// Patterns of triggers; absent: any trigger.
    pub trigger: Option<Vec<String>>,
    /// Patterns of certnames; absent: any node.
    pub from: Option<Vec<String>>,
    /// Patterns of the values that trusted extensions of the signer's certificate must have.
    pub extensions: BTreeMap<String, Vec<String>>,
    /// Whether only noop runs are allowed.
    pub only_noop: bool,
    /// Patterns of the tags that are allowed; absent: any run.
    pub tags: Option<Vec<String>>,
    /// Patterns of the environments in which an event may run Puppet; absent: the node's own only.
    pub environments: Option<Vec<String>>,
    /// Whether nothing is allowed.
    pub deny: bool,
}

/// Why a rule is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// A key of the rule has patterns that cannot match.
    #[error("{key}: {source}")]
    Pattern {
        /// The key.
        key: String,
        /// What is wrong with them.
        source: InvalidPattern,
    },
    /// No certificate has the extension.
    #[error(
        "extensions: '{name}' is no trusted extension: give one of Puppet's names, such as pp_role or pp_auth_role, \
         or an object identifier such as 1.3.6.1.4.1.34380.1.2.1"
    )]
    Extension {
        /// The name, with control characters escaped.
        name: String,
    },
    /// One extension is named twice.
    #[error(
        "extensions: {name} is named twice, by its name and by its object identifier: remove one of the two, and list all \
         values at the other"
    )]
    RepeatedExtension {
        /// Its name.
        name: String,
    },
    /// A rule that allows nothing restricts nothing.
    #[error("deny = true allows nothing, so that {key} means nothing: remove one of the two")]
    DeniesAndAllows {
        /// The key that stands beside it.
        key: &'static str,
    },
}

const TRIGGERS: Alphabet = Alphabet {
    what: "trigger",
    allowed: "any printable characters",
    holds: |character| !character.is_control(),
};
const TAGS: Alphabet = Alphabet {
    what: "tag",
    allowed: "lower-case letters, digits, ':', '.', '_' and '-'",
    holds: |character| matches!(character, 'a'..='z' | '0'..='9' | ':' | '.' | '_' | '-'),
};
const ENVIRONMENTS: Alphabet = Alphabet {
    what: "environment",
    allowed: "letters, digits and '_'",
    holds: |character| character.is_ascii_alphanumeric() || character == '_',
};
const VALUES: Alphabet = Alphabet {
    what: "value of an extension",
    allowed: "any printable characters",
    holds: |character| !character.is_control(),
};

impl Rule {
    /// The rule that an operator has written. Certnames count in lower case, however they are written.
    ///
    /// # Errors
    /// [`InvalidRule`] for a rule that can be for no event, or that contradicts itself.
    pub fn new(settings: RuleSettings) -> Result<Self, InvalidRule> {
        let RuleSettings { trigger, from, extensions, only_noop, tags, environments, deny } = settings;
        let from = from.map(|texts| texts.iter().map(|text| text.to_ascii_lowercase()).collect());
        let optional = |key: &str, texts: Option<Vec<String>>, alphabet| {
            texts.map(|texts| patterns(key, texts, alphabet)).transpose()
        };
        let tags = optional("tags", tags, TAGS)?;
        let environments = optional("environment", environments, ENVIRONMENTS)?;
        let allowing =
            [("noop", only_noop), ("tags", tags.is_some()), ("environment", environments.is_some())];
        let allows = match allowing.into_iter().find(|(_, is_given)| *is_given) {
            Some((key, _)) if deny => return Err(InvalidRule::DeniesAndAllows { key }),
            _ if deny => Allows::Nothing,
            _ => Allows::Runs { only_noop, tags, environments },
        };
        Ok(Self {
            trigger: optional("trigger", trigger, TRIGGERS)?,
            from: optional("from", from, CERTNAMES)?,
            extensions: by_extension(extensions)?,
            allows,
        })
    }

    /// Why the rule is not for an event; `None` if it is, so that it decides.
    pub fn mismatch(&self, request: &Request<'_>) -> Option<Mismatch> {
        if let Some(patterns) = &self.trigger
            && !patterns.matches(request.trigger.as_str())
        {
            return Some(Mismatch::Trigger(patterns.clone()));
        }
        if let Some(patterns) = &self.from
            && !patterns.matches(request.origin.as_str())
        {
            return Some(Mismatch::From(patterns.clone()));
        }
        let differs = |(name, patterns): &(&String, &Patterns)| {
            request.signer.extension(name).is_none_or(|value| !patterns.matches(value))
        };
        self.extensions.iter().find(differs).map(|(name, patterns)| Mismatch::Extension {
            name: name.clone(),
            patterns: patterns.clone(),
            is_certified: matches!(request.signer, Signer::Certificate { .. }),
        })
    }

    /// What keeps an event, which the rule is for, from running here.
    fn objection(&self, options: &RunOptions) -> Option<Objection> {
        let Allows::Runs { only_noop, tags, environments } = &self.allows else {
            return Some(Objection::Denied);
        };
        if *only_noop && !options.noop {
            return Some(Objection::NotNoop);
        }
        if let Some(asked) = &options.environment
            && !environments.as_ref().is_some_and(|allowed| allowed.matches(asked.as_str()))
        {
            return Some(Objection::Environment { allowed: environments.clone(), asked: asked.clone() });
        }
        let allowed = tags.as_ref()?;
        let unlisted = options.tags.iter().find(|tag| !allowed.matches(tag.as_str()));
        // Without tags, the run applies the whole catalog: more than any tag allows.
        let is_more = !options.is_tagged() || unlisted.is_some();
        is_more.then(|| Objection::Tags { allowed: allowed.clone(), unlisted: unlisted.cloned() })
    }
}

fn patterns(key: &str, texts: Vec<String>, alphabet: Alphabet) -> Result<Patterns, InvalidRule> {
    Patterns::new(texts, alphabet).map_err(|source| InvalidRule::Pattern { key: key.to_owned(), source })
}

/// The patterns of values, each under the one spelling by which its extension is looked up.
fn by_extension(
    extensions: BTreeMap<String, Vec<String>>,
) -> Result<BTreeMap<String, Patterns>, InvalidRule> {
    let mut known = BTreeMap::new();
    for (name, values) in extensions {
        let Some(canonical) = trusted_extension::canonical(&name) else {
            return Err(InvalidRule::Extension { name: escaped(&name) });
        };
        let patterns = patterns(&format!("extensions.{name}"), values, VALUES)?;
        if known.insert(canonical.to_owned(), patterns).is_some() {
            return Err(InvalidRule::RepeatedExtension { name: canonical.to_owned() });
        }
    }
    Ok(known)
}

/// A rule as its keys, for people.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns = |key: &str, patterns: &Option<Patterns>| {
            patterns.as_ref().map(|patterns| format!("{key} {patterns}"))
        };
        let mut words: Vec<String> = patterns("trigger", &self.trigger).into_iter().collect();
        words.extend(patterns("from", &self.from));
        words.extend(self.extensions.iter().map(|(name, values)| format!("{name} {values}")));
        if words.is_empty() {
            words.push("any event".to_owned());
        }
        match &self.allows {
            Allows::Nothing => words.push("deny".to_owned()),
            Allows::Runs { only_noop, tags, environments } => {
                words.extend(only_noop.then(|| "noop only".to_owned()));
                words.extend(patterns("tags", tags));
                words.extend(patterns("environment", environments));
            }
        }
        f.write_str(&words.join("; "))
    }
}

/// Why a rule is not for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// It is for other triggers.
    Trigger(Patterns),
    /// It is for other origins.
    From(Patterns),
    /// It is for signers with an extension that this one does not have.
    Extension {
        /// The extension.
        name: String,
        /// The values that it must have.
        patterns: Patterns,
        /// Whether the signer has a certificate at all.
        is_certified: bool,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trigger(patterns) => write!(f, "it is for the trigger {patterns}"),
            Self::From(patterns) => write!(f, "it is for events from {patterns}"),
            Self::Extension { name, patterns, is_certified: true } => {
                write!(f, "it is for nodes whose certificate has {name} {patterns}")
            }
            Self::Extension { name, patterns, is_certified: false } => {
                write!(
                    f,
                    "it is for nodes whose certificate has {name} {patterns}, and no certificate signs this event"
                )
            }
        }
    }
}

/// What a rule has against an event that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Objection {
    Denied,
    NotNoop,
    Tags { allowed: Patterns, unlisted: Option<Tag> },
    Environment { allowed: Option<Patterns>, asked: Environment },
}

/// What a policy says of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may run Puppet here.
    Accepted {
        /// The number of the rule that decided, from 1; absent: there are no rules.
        rule: Option<usize>,
    },
    /// It may not.
    Refused {
        /// The number of the rule that decided, from 1; absent: no rule is for the event.
        rule: Option<usize>,
        /// A sentence for its origin, with the file that has the rules.
        reason: String,
    },
}

impl Decision {
    /// The number of the rule that decided.
    pub fn rule(&self) -> Option<usize> {
        match self {
            Self::Accepted { rule } | Self::Refused { rule, .. } => *rule,
        }
    }
}

impl Policy {
    /// The rules in their order, from a file.
    pub fn new(source: impl Into<String>, rules: Vec<Rule>) -> Self {
        Self { source: source.into(), rules, logs: LogPolicy::default(), operators: Operators::default() }
    }

    /// The same policy, with that of who reads the output of runs.
    #[must_use]
    pub fn with_logs(self, logs: LogPolicy) -> Self {
        Self { logs, ..self }
    }

    /// Who reads the output of runs.
    pub fn logs(&self) -> &LogPolicy {
        &self.logs
    }

    /// The same rules, with the operators who may cancel what waits here, and hold this node.
    #[must_use]
    pub fn with_operators(self, operators: Operators) -> Self {
        Self { operators, ..self }
    }

    /// The file that has the rules.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The rules in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether a cancellation that `by` asks for counts here, for an event that `origin` fired. `signer` is what was
    /// verified of `by`.
    ///
    /// # Errors
    /// Why it does not count, as a sentence.
    pub fn judge_cancellation(
        &self,
        by: &Certname,
        signer: &Signer,
        origin: &Certname,
    ) -> Result<(), String> {
        if by == origin || self.is_operator(by, signer) {
            return Ok(());
        }
        Err(format!(
            "{by} is neither the origin of the event ({origin}) nor one of the [operators] in {} on this node",
            self.source
        ))
    }

    /// Whether an order to hold or release this node, `own`, counts that `by` gives. `signer` is what was verified of `by`.
    ///
    /// # Errors
    /// Why it does not count, as a sentence.
    pub fn judge_hold(&self, by: &Certname, signer: &Signer, own: &Certname) -> Result<(), String> {
        if by == own || self.is_operator(by, signer) {
            return Ok(());
        }
        Err(format!(
            "{by} is neither {own} itself nor one of the [operators] in {} on this node",
            self.source
        ))
    }

    fn is_operator(&self, by: &Certname, signer: &Signer) -> bool {
        self.operators.role(by, |name| signer.extension(name)) == Role::Operator
    }

    /// Whether an event may run Puppet here.
    pub fn judge(&self, request: &Request<'_>) -> Decision {
        let Request { trigger, origin, .. } = request;
        if self.rules.is_empty() {
            return match &request.options.environment {
                None => Decision::Accepted { rule: None },
                Some(asked) => Decision::Refused { rule: None, reason: self.no_rule_for_environment(asked) },
            };
        }
        let Some(index) = self.rules.iter().position(|rule| rule.mismatch(request).is_none()) else {
            let needs_certificate = self.rules.iter().any(|rule| !rule.extensions.is_empty());
            let unsigned = match request.signer {
                Signer::Unsigned | Signer::SharedKey if needs_certificate => {
                    "; no certificate signs the event, so that no rule with extensions is for it"
                }
                _ => "",
            };
            let reason = format!(
                "no [[accept]] rule in {} on this node is for the trigger '{trigger}' from {origin}{unsigned}",
                self.source
            );
            return Decision::Refused { rule: None, reason };
        };
        let rule = Some(index + 1);
        let by = format!("the [[accept]] rule {} in {} on this node", index + 1, self.source);
        let what = format!("the trigger '{trigger}' from {origin}");
        let reason = match self.rules[index].objection(request.options) {
            None => return Decision::Accepted { rule },
            Some(Objection::Denied) => format!("{by} denies {what}"),
            Some(Objection::NotNoop) => {
                format!("{by} allows {what} noop runs only, and this event asks for a real run")
            }
            Some(Objection::Tags { allowed, unlisted }) => {
                let asked = unlisted.as_ref().map_or("the whole catalog", Tag::as_str);
                format!("{by} allows {what} the tags {allowed} only, and this event asks for {asked}")
            }
            Some(Objection::Environment { allowed: Some(allowed), asked }) => {
                format!(
                    "{by} allows {what} the environment {allowed} besides the node's own, and this event asks for {asked}"
                )
            }
            Some(Objection::Environment { allowed: None, asked }) => {
                format!("{by} allows {what} the node's own environment only, and this event asks for {asked}")
            }
        };
        Decision::Refused { rule, reason }
    }

    /// Without rules, any event may run Puppet as it runs by itself. Other code than the node's own is for its operators to
    /// permit.
    fn no_rule_for_environment(&self, asked: &Environment) -> String {
        format!(
            "this event asks for the environment {asked}, and only an [[accept]] rule with the key environment in {} on this \
             node can allow that",
            self.source
        )
    }
}

#[cfg(test)]
mod tests;
