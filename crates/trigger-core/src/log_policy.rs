//! Who reads the output of a node's runs (C13).

use crate::identity::Certname;
use crate::pattern::{CERTNAMES, InvalidPattern, Patterns};
use crate::signer::Signer;

/// Which readers see the output of a node's runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPolicy {
    /// Whether the operators of a hub that knows its clients do.
    pub operators: bool,
    /// Patterns of the certnames of other readers.
    pub readers: Option<Patterns>,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self { operators: true, readers: None }
    }
}

/// A request, as far as its admission depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// The node that asks.
    pub certname: &'a Certname,
    /// What is verified of it.
    pub signer: &'a Signer,
    /// Whether it asks as an operator.
    pub as_operator: bool,
    /// Whether the backend lets operators alone ask so.
    pub backend_knows_operators: bool,
}

impl LogPolicy {
    /// The policy of a node's settings.
    ///
    /// # Errors
    /// [`InvalidPattern`] for a pattern that matches no certname.
    pub fn new(operators: bool, readers: Vec<String>) -> Result<Self, InvalidPattern> {
        let readers = readers.into_iter().map(|reader| reader.to_ascii_lowercase());
        let readers: Vec<String> = readers.collect();
        let readers = if readers.is_empty() { None } else { Some(Patterns::new(readers, CERTNAMES)?) };
        Ok(Self { operators, readers })
    }

    /// Whether a reader gets an answer. `source` is the file that has the policy.
    ///
    /// # Errors
    /// A sentence for the reader.
    pub fn judge(&self, reader: Reader<'_>, source: &str) -> Result<(), String> {
        let Reader { certname, signer, as_operator, backend_knows_operators } = reader;
        if *signer == Signer::Unsigned {
            return Err("the request is not signed, so that it is not known who reads".to_owned());
        }
        let is_operator = as_operator && backend_knows_operators;
        let is_listed = self.readers.as_ref().is_some_and(|readers| readers.matches(certname.as_str()));
        if is_listed || (is_operator && self.operators) {
            return Ok(());
        }
        let operators = match (self.operators, backend_knows_operators) {
            (true, true) => "operators of the hub, and ",
            (false, true) | (_, false) => "",
        };
        Err(format!(
            "{certname} may not read the output of runs here: {operators}the readers in [log] in {source} on this node \
             may, and {certname} is none of them"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(policy: &LogPolicy, signer: &Signer, as_operator: bool, knows: bool, expected: &str) {
        let certname = "ops01".parse().unwrap();
        let reader = Reader { certname: &certname, signer, as_operator, backend_knows_operators: knows };
        match policy.judge(reader, "t.toml") {
            Ok(()) => assert_eq!("yes", expected),
            Err(sentence) => assert!(!expected.is_empty() && sentence.contains(expected), "{sentence}"),
        }
    }

    /// Proves C13.
    #[test]
    fn readers_are_operators_that_a_hub_knows_and_those_that_the_node_names() {
        let signed = Signer::SharedKey;
        let default = LogPolicy::default();
        check(&default, &signed, true, true, "yes");
        check(&default, &signed, false, true, "operators of the hub, and the readers in [log] in t.toml");
        // At an etcd, anyone can say so.
        check(&default, &signed, true, false, "here: the readers in [log] in t.toml on this node may");
        check(&default, &Signer::Unsigned, true, true, "not signed");
        let listed = LogPolicy::new(false, vec!["OPS*".to_owned()]).unwrap();
        check(&listed, &signed, false, false, "yes");
        check(&listed, &Signer::Unsigned, false, false, "not signed");
        let none = LogPolicy::new(false, vec![]).unwrap();
        check(&none, &signed, true, true, "here: the readers in [log]");
        assert!(LogPolicy::new(true, vec!["a/b".to_owned()]).is_err());
    }
}
