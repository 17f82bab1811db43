//! What an agent refuses to start with.

use super::options::{NO_RUN, Named, is_whole, named};
use super::{CommandKind, RunCommand, doubts};

/// Short options with a value, which ends a cluster.
const SHORT_WITH_VALUE: &str = "cEeflwi";

impl RunCommand {
    /// The option among the operator's words with which Puppet would not run at all, if there is one.
    pub fn option_without_a_run(&self) -> Option<&str> {
        if self.kind == CommandKind::Other {
            return None;
        }
        let (options, _) = self.options_and_operands();
        let is_one = |word: &str| {
            named(word).is_some_and(|option| NO_RUN.contains(&option.name)) || has_letter_without_a_run(word)
        };
        options.iter().map(String::as_str).find(|word| is_one(word))
    }

    /// Why no run of this command could do what the operator means by it, as the end of a sentence and without a dot.
    pub fn refusal(&self) -> Option<String> {
        if self.kind == CommandKind::Other {
            return None;
        }
        let (options, _) = self.options_and_operands();
        let shortened = options.iter().find_map(|word| Some((word, named(word).filter(|o| !o.is_whole)?)));
        if let Some((word, Named { name, .. })) = shortened {
            return Some(format!(
                "Puppet does not take '{word}' for the option {name}, or not everywhere: write its whole name, {name}"
            ));
        }
        if self.lacks_manifest() {
            return Some(
                "'puppet apply' without a manifest reads one from its standard input, which is empty in a run: add the \
                 absolute path of a manifest or of a directory of manifests, or --execute or --catalog"
                    .to_owned(),
            );
        }
        None
    }

    /// Whether `puppet apply` would read its manifest or its catalog from the standard input.
    fn lacks_manifest(&self) -> bool {
        const STANDARD_INPUT: [&str; 3] = ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];
        if self.kind != CommandKind::PuppetApply {
            return false;
        }
        let (options, operands) = self.options_and_operands();
        let mut manifest = None;
        let mut words = options.iter();
        while let Some(word) = words.next() {
            if !word.starts_with('-') || word == "-" {
                manifest = manifest.or(Some(word.as_str()));
                continue;
            }
            let joined = word.split_once('=').map(|(_, value)| value);
            let value = match joined {
                None if doubts::has_value(word) => words.next().map(String::as_str),
                joined => joined,
            };
            let is = |name: &str| is_whole(word, name);
            let short = |letter: &str| !word.starts_with("--") && word.starts_with(letter);
            if is("--catalog") || short("-c") {
                let value = if word.len() > 2 && short("-c") { Some(&word[2..]) } else { value };
                return value.is_none_or(|value| value == "-" || STANDARD_INPUT.contains(&value));
            }
            // The environment's manifest is applied if the standard input is empty, and this names it.
            if is("--execute") || is("--manifest") || short("-e") {
                return false;
            }
            // A flag that is unknown here may come before the manifest.
            let is_unknown = joined.is_none() && word.starts_with("--") && named(word).is_none();
            let may_be_manifest = |value: &&str| value.starts_with('/') || value.ends_with(".pp");
            manifest = manifest.or(value.filter(|_| is_unknown).filter(may_be_manifest));
        }
        let manifest = manifest.or_else(|| operands.get(1).map(String::as_str));
        manifest.is_none_or(|manifest| STANDARD_INPUT.contains(&manifest))
    }
}

/// Whether a word is a cluster of short options with one of those with which Puppet does not run.
fn has_letter_without_a_run(word: &str) -> bool {
    let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.starts_with('-')) else {
        return false;
    };
    letters
        .chars()
        .take_while(|letter| !SHORT_WITH_VALUE.contains(*letter))
        .any(|letter| "hV".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> RunCommand {
        RunCommand::from_words(text.split(' ').map(str::to_owned).collect()).unwrap()
    }

    #[test]
    fn an_option_without_a_run_is_found_in_any_spelling() {
        for (text, option) in [
            ("puppet agent -t --disa why", Some("--disa")),
            ("puppet agent --Dis=why", Some("--Dis=why")),
            ("puppet agent --configp all", Some("--configp")),
            ("puppet apply --parseonly /x.pp", Some("--parseonly")),
            ("puppet agent -tV", Some("-tV")),
            ("puppet agent -vh", Some("-vh")),
            ("puppet agent -lVh", None),
            ("puppet agent --digest SHA1 --debug", None),
            ("other --disa", None),
        ] {
            assert_eq!(command(text).option_without_a_run(), option, "{text}");
        }
    }

    #[test]
    fn a_shortened_setting_is_refused_with_its_whole_name() {
        for (text, part) in [
            ("puppet agent --lastrunrep=/x", "write its whole name, --lastrunreport"),
            ("puppet agent --skip-tags x", "'--skip-tags' for the option --skip_tags"),
            ("puppet apply /x.pp --TAGS a", "--tags"),
            ("nice puppet agent --certn a", "--certname"),
            ("puppet apply --noo /x.pp", "--noop"),
        ] {
            let refusal = command(text).refusal().unwrap_or_default();
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
        for good in [
            "puppet agent",
            "puppet agent -t --no-noop --tags a --config /c --environment x --server=p --waitforcert 5 --show_diff",
            "puppet apply /x.pp -- --noo",
            "converge --noo",
        ] {
            assert_eq!(command(good).refusal(), None, "{good}");
        }
    }

    #[test]
    fn an_apply_that_would_read_its_standard_input_is_refused() {
        for text in [
            "puppet apply",
            "nice puppet apply -t",
            "puppet apply --environment production --modulepath /m",
            "puppet apply --verbose --tags=a -l /var/log/x",
            "puppet apply --logdest=/x.pp",
            "puppet apply --",
            "puppet apply --code x",
            "puppet apply --catalog -",
            "puppet apply -c -",
            "puppet apply --no-report /dev/stdin",
            "puppet apply --tags /x.pp",
        ] {
            let refusal = command(text).refusal().unwrap_or_default();
            assert!(refusal.contains("standard input"), "{text}: {refusal}");
        }
        for text in [
            "puppet apply /x.pp",
            "puppet apply -t /x.pp",
            "puppet apply --write-catalog-summary /x.pp",
            "puppet apply --trace /x.pp",
            "puppet apply --flag-of-puppet-9 /x.pp",
            "puppet apply --environment production /manifests",
            "puppet apply -- /x.pp",
            "puppet apply -e x",
            "puppet apply -ex",
            "puppet apply -te x",
            "puppet apply --execute=x",
            "puppet apply --manifest /x.pp",
            "puppet apply --catalog /c.json",
            "puppet apply -c/c.json",
            "puppet agent",
            "converge",
        ] {
            assert_eq!(command(text).refusal(), None, "{text}");
        }
    }
}
