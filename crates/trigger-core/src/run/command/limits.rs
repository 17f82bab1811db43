//! What limits a run besides the tags of its events: `tags` and `skip_tags`, in `puppet.conf` or among the operator's
//! own words.
//!
//! A limit on tags drops the notifies to every trigger that has none of the tags, so the private tag is added to it. A
//! limit of `skip_tags` cannot be mended, because it wins over `tags`. Both limit what the run proves, so the outcome's
//! reason mentions them.

use super::options::is_whole;
use super::{CommandKind, PRIVATE_TAG, RunCommand};
use crate::event::RunOptions;

/// The limits that `puppet.conf` sets; absent ones limit nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagSettings {
    /// Only resources with one of these tags are applied.
    pub tags: Option<String>,
    /// Resources with one of these tags are not applied.
    pub skip_tags: Option<String>,
}

impl RunCommand {
    /// The command whose runs keep the notifies to triggers, whatever limits their tags.
    #[must_use]
    pub fn with_private_tag(&self, options: &RunOptions, settings: &TagSettings) -> Self {
        let mut command = self.clone();
        if self.kind == CommandKind::Other {
            return command;
        }
        let mut is_value = false;
        for word in &mut command.arguments {
            if std::mem::take(&mut is_value) {
                *word = with_private(word);
            } else if let Some((flag, value)) = word.split_once('=')
                && is_flag(flag, "tags")
            {
                *word = format!("{flag}={}", with_private(value));
            }
            is_value = is_flag(word, "tags");
        }
        if let Some(tags) = &settings.tags
            && !options.is_tagged()
            && self.limit_in_words("tags").is_none()
        {
            command.arguments.splice(0..0, ["--tags".to_owned(), with_private(tags)]);
        }
        command
    }

    /// What limits a run besides the tags of its events, as a sentence.
    pub fn limits(&self, options: &RunOptions, settings: &TagSettings) -> Option<String> {
        if self.kind == CommandKind::Other {
            return None;
        }
        // A flag replaces the setting, and so do the tags of an event; an operator's flag comes after those.
        let limit = |name: &str, setting: &Option<String>| match self.limit_in_words(name) {
            Some(value) => Some(format!("--{name} {value} of the run command")),
            None => setting.as_ref().map(|value| format!("{name} = {value} in puppet.conf")),
        };
        let tags = settings.tags.clone().filter(|_| !options.is_tagged());
        let limits: Vec<String> =
            [limit("tags", &tags), limit("skip_tags", &settings.skip_tags)].into_iter().flatten().collect();
        (!limits.is_empty()).then(|| format!("the run was limited by {}", limits.join(" and by ")))
    }

    /// The value of the last flag of this name among the operator's words.
    fn limit_in_words(&self, name: &str) -> Option<&str> {
        let pairs = self.arguments.windows(2).enumerate();
        let apart =
            pairs.filter(|(_, pair)| is_flag(&pair[0], name)).map(|(at, pair)| (at, pair[1].as_str()));
        let joined = self.arguments.iter().enumerate().filter_map(|(at, word)| {
            let (flag, value) = word.split_once('=')?;
            is_flag(flag, name).then_some((at, value))
        });
        apart
            .chain(joined)
            .max_by_key(|(at, _)| *at)
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
    }
}

/// Whether a word is the flag of this setting. Puppet ignores any other spelling of it, with which no agent starts.
fn is_flag(word: &str, setting: &str) -> bool {
    is_whole(word, &format!("--{setting}"))
}

fn with_private(tags: &str) -> String {
    let mut all: Vec<&str> = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).collect();
    if !all.is_empty() && !all.contains(&PRIVATE_TAG) {
        all.push(PRIVATE_TAG);
    }
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::super::GUARD;
    use super::*;
    use std::time::Duration;

    const RUN: &str = "019356b0-7c4a-7000-8000-000000000001";

    /// Returns the arguments of a run from the first `--tags` or `--skip_tags` up to those that Trigger needs, and the
    /// sentence about its limits.
    fn run(words: &str, event_tag: Option<&str>, conf: [&str; 2]) -> (String, String) {
        let command = RunCommand::from_words(words.split(' ').map(str::to_owned).collect()).unwrap();
        let tags = event_tag.iter().map(|tag| tag.parse().unwrap()).collect();
        let options = RunOptions { tags, ..RunOptions::default() };
        let [tags, skip_tags] = conf.map(|value| Some(value.to_owned()).filter(|value| !value.is_empty()));
        let settings = TagSettings { tags, skip_tags };
        let run = command.with_private_tag(&options, &settings);
        let argv = run.argv(RUN.parse().unwrap(), &options, Duration::from_secs(60), "r", None);
        let to = argv.iter().rposition(|word| word == GUARD).unwrap_or(argv.len());
        let from = argv.iter().position(|word| word.contains("tags")).unwrap_or(to);
        (argv[from..to].join(" "), command.limits(&options, &settings).unwrap_or_default())
    }

    fn check(words: &str, event_tag: Option<&str>, conf: [&str; 2], arguments: &str, limits: &str) {
        assert_eq!(
            run(words, event_tag, conf),
            (arguments.to_owned(), limits.to_owned()),
            "{words} {conf:?}"
        );
    }

    #[test]
    fn a_limit_of_puppet_conf_keeps_the_triggers_and_is_mentioned() {
        check("puppet agent", None, ["", ""], "", "");
        let limited = "the run was limited by tags = web in puppet.conf";
        check("puppet agent", None, ["web", ""], "--tags web,trigger_internal", limited);
        check("puppet apply x.pp", None, ["web", ""], "--tags web,trigger_internal x.pp", limited);
        let several =
            "the run was limited by tags = web, db in puppet.conf and by skip_tags = slow in puppet.conf";
        check("puppet agent", None, ["web, db", "slow"], "--tags web,db,trigger_internal", several);
        let by_hand = "the run was limited by tags = a,trigger_internal in puppet.conf";
        check("puppet agent", None, ["a,trigger_internal", ""], "--tags a,trigger_internal", by_hand);
        check("/bin/converge --tags web", None, ["web", "slow"], "--tags web", "");
    }

    #[test]
    fn the_tags_of_an_event_replace_those_of_puppet_conf_and_no_skipping() {
        check("puppet agent", Some("db"), ["web", ""], "--tags db,trigger_internal", "");
        let skipped = "the run was limited by skip_tags = slow in puppet.conf";
        check("puppet agent", Some("db"), ["web", "slow"], "--tags db,trigger_internal", skipped);
    }

    #[test]
    fn a_limit_among_the_operators_words_is_treated_the_same() {
        let limited = "the run was limited by --tags web of the run command";
        for (words, run) in [
            ("puppet agent --tags web", "--tags web,trigger_internal"),
            ("puppet agent --tags=web", "--tags=web,trigger_internal"),
        ] {
            check(words, None, ["", ""], run, limited);
            check(words, None, ["db", ""], run, limited);
        }
        check(
            "puppet agent --skip_tags slow --noop",
            None,
            ["", "other"],
            "--skip_tags slow --noop",
            "the run was limited by --skip_tags slow of the run command",
        );
    }
}
