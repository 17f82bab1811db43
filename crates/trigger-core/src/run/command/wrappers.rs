//! The programs that start another program, such as `nice` and `sudo`: how much of a command line is theirs.
//!
//! A run command that begins with them is still recognised by the words that follow. An option that is unknown here is
//! taken for one without a value; if it has one, the command is not recognised, which is reported at the agent's start.

/// What comes between a wrapper's options and the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operands {
    /// Nothing.
    None,
    /// `NAME=value` words.
    Assignments,
    /// One word.
    One,
    /// One word that begins with a digit, if there is one.
    Number,
}

use Operands::{Assignments, None as Nothing, Number, One};

/// A program that starts another one.
#[derive(Debug)]
struct Wrapper {
    name: &'static str,
    /// The letters of its short options that have a value.
    short: &'static str,
    /// Its long options that have a value, separated by blanks.
    long: &'static str,
    operands: Operands,
    /// Whether Puppet's settings can be others within it: it changes the environment, the user or the root directory.
    changes_settings: bool,
}

const fn wrapper(
    name: &'static str,
    short: &'static str,
    long: &'static str,
    operands: Operands,
    changes_settings: bool,
) -> Wrapper {
    Wrapper { name, short, long, operands, changes_settings }
}

#[rustfmt::skip]
const WRAPPERS: &[Wrapper] = &[
    wrapper("bundle", "", "", One, true),
    wrapper("busybox", "", "", Nothing, false),
    wrapper("cgexec", "g", "", Nothing, false),
    wrapper("choom", "n", "adjust", Nothing, false),
    wrapper("chroot", "", "userspec groups", One, true),
    wrapper("chrt", "TPD", "sched-runtime sched-period sched-deadline", Number, false),
    wrapper("doas", "uCa", "", Nothing, true),
    wrapper("dumb-init", "r", "rewrite", Nothing, false),
    wrapper("eatmydata", "", "", Nothing, false),
    wrapper("env", "uCSa", "unset chdir split-string argv0", Assignments, true),
    wrapper("flock", "wE", "wait timeout conflict-exit-code", One, false),
    wrapper("ionice", "cn", "class classdata", Nothing, false),
    wrapper("nice", "n", "adjustment", Nothing, false),
    wrapper("nohup", "", "", Nothing, false),
    wrapper("nsenter", "tSG", "target setuid setgid", Nothing, true),
    wrapper("numactl", "CNmip", "physcpubind cpunodebind membind interleave preferred", Nothing, false),
    wrapper("prlimit", "", "", Nothing, false),
    wrapper("ruby", "IrCEF", "encoding external-encoding internal-encoding", Nothing, true),
    wrapper("runuser", "ugGw", "user group supp-group whitelist-environment", Nothing, true),
    wrapper("setpriv", "", "reuid regid ruid rgid euid egid groups inh-caps ambient-caps bounding-set securebits pdeathsig selinux-label apparmor-profile", Nothing, true),
    wrapper("setsid", "", "", Nothing, false),
    wrapper("stdbuf", "ioe", "input output error", Nothing, false),
    wrapper("sudo", "ugCDRphTUrt", "user group close-from chdir chroot prompt host command-timeout other-user role type", Assignments, true),
    wrapper("systemd-cat", "tp", "identifier priority stderr-priority level-prefix", Nothing, false),
    wrapper("systemd-inhibit", "", "what who why mode", Nothing, false),
    wrapper("systemd-run", "upMHE", "unit property description slice uid gid nice setenv machine host service-type working-directory", Nothing, false),
    wrapper("taskset", "", "", One, false),
    wrapper("time", "fo", "format output", Nothing, false),
    wrapper("timeout", "ks", "kill-after signal", Number, false),
    wrapper("tini", "ep", "", Nothing, false),
    wrapper("unshare", "SGRw", "setuid setgid root wd propagation", Nothing, true),
];

/// The wrappers in front of a command.
#[derive(Debug, Default)]
pub(super) struct Wrapped {
    /// How many words are theirs.
    pub(super) words: usize,
    /// The ranges of words of those wrappers within which Puppet's settings can be others.
    pub(super) settings: Vec<std::ops::Range<usize>>,
    /// Each wrapper.
    pub(super) each: Vec<Used>,
}

/// A wrapper in a command.
#[derive(Debug, Clone)]
pub(super) struct Used {
    wrapper: &'static Wrapper,
    /// The range of its words, its own name not included.
    pub(super) words: std::ops::Range<usize>,
}

impl Used {
    pub(super) fn name(&self) -> &'static str {
        self.wrapper.name
    }

    /// Its options with their values, if they have one; a cluster of short options is taken apart. `words` are those of
    /// the whole command.
    pub(super) fn options<'a>(&self, words: &'a [String]) -> Vec<(String, Option<&'a str>)> {
        let mut options = Vec::new();
        let mut own = words[self.words.clone()].iter();
        while let Some(word) = own.next() {
            if word == "-" {
                continue;
            }
            if word == "--" || !word.starts_with('-') {
                break;
            }
            let next = if takes_next(self.wrapper, word) { own.next().map(String::as_str) } else { None };
            if word.starts_with("--") {
                let (name, value) = word.split_once('=').map_or((word.as_str(), next), |(n, v)| (n, Some(v)));
                options.push((name.to_owned(), value));
                continue;
            }
            for (at, letter) in word.char_indices().skip(1) {
                let rest = &word[at + letter.len_utf8()..];
                let has_value = self.wrapper.short.contains(letter);
                let value = if rest.is_empty() { next } else { Some(rest) };
                options.push((format!("-{letter}"), value.filter(|_| has_value)));
                if has_value {
                    break;
                }
            }
        }
        options
    }

    /// Whether it has one of these options.
    pub(super) fn has(&self, words: &[String], names: &[&str]) -> bool {
        self.options(words).iter().any(|(name, _)| names.contains(&name.as_str()))
    }

    /// The value of the last of these options.
    pub(super) fn value<'a>(&self, words: &'a [String], names: &[&str]) -> Option<&'a str> {
        let options = self.options(words).into_iter().rev();
        options.filter(|(name, _)| names.contains(&name.as_str())).find_map(|(_, value)| value)
    }
}

/// Finds the words of wrappers at the beginning of a command.
pub(super) fn wrapped(words: &[String]) -> Wrapped {
    let mut found = Wrapped::default();
    while let Some(wrapper) = words.get(found.words).and_then(|word| by_name(word)) {
        let start = found.words;
        let end = command_at(wrapper, words, start + 1);
        if wrapper.changes_settings {
            found.settings.push(start..end);
        }
        found.each.push(Used { wrapper, words: start + 1..end });
        found.words = end;
    }
    found
}

fn by_name(word: &str) -> Option<&'static Wrapper> {
    let name = word.rsplit('/').next()?;
    WRAPPERS.iter().find(|wrapper| wrapper.name == name)
}

/// Where the command of a wrapper begins, whose options begin at `at`.
fn command_at(wrapper: &Wrapper, words: &[String], mut at: usize) -> usize {
    let skip_operand = |at: usize| match wrapper.operands {
        Nothing => at,
        Assignments => at + words.iter().skip(at).take_while(|word| is_assignment(word)).count(),
        One => at + 1,
        Number => {
            let is_number =
                |word: &String| word.starts_with(|first: char| first.is_ascii_digit() || first == '.');
            at + usize::from(words.get(at).is_some_and(is_number))
        }
    };
    while let Some(word) = words.get(at) {
        match word.as_str() {
            "--" => return skip_operand(at + 1).min(words.len()),
            "-" => at += 1,
            _ if word.starts_with('-') => at += if takes_next(wrapper, word) { 2 } else { 1 },
            _ => break,
        }
    }
    skip_operand(at).min(words.len())
}

/// Whether the value of an option is the next word.
fn takes_next(wrapper: &Wrapper, option: &str) -> bool {
    if let Some(long) = option.strip_prefix("--") {
        return wrapper.long.split(' ').any(|known| known == long);
    }
    // The rest of a cluster is the value of the first letter that has one.
    let letters = &option[1..];
    letters.find(|letter| wrapper.short.contains(letter)).is_some_and(|at| at + 1 == letters.len())
}

/// Whether a word is `NAME=value`.
pub(super) fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, command: &str) {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        assert_eq!(words[wrapped(&words).words..].join(" "), command, "{text}");
    }

    #[test]
    fn the_words_of_wrappers_end_where_their_command_begins() {
        const PUPPET: &str = "puppet agent -t";
        for wrappers in [
            "",
            "nice ",
            "nice -n 10 ",
            "nice -n10 ",
            "nice -10 ",
            "nice --adjustment=10 ",
            "nice --adjustment 10 ",
            "/usr/bin/ionice -c2 -n 7 ",
            "ionice -c 3 ",
            "ionice --class idle ",
            "chrt --idle 0 ",
            "chrt -b 0 ",
            "chrt -i ",
            "taskset -c 0,1 ",
            "taskset ff ",
            "timeout 30m ",
            "timeout -k 10 30m ",
            "timeout --signal=INT --kill-after 5 0.5h ",
            "timeout --foreground -s INT 1h ",
            "env ",
            "env LC_ALL=C.UTF-8 LANG=C ",
            "env -i PATH=/usr/bin ",
            "env - PATH=/usr/bin ",
            "env -u LANG -C /tmp A=b ",
            "env -uLANG ",
            "env -- A=b ",
            "sudo ",
            "sudo -n -u root LC_ALL=C ",
            "sudo -nu root -- ",
            "sudo --user=root -E ",
            "sudo --preserve-env=A,B -H ",
            "doas -n -u root ",
            "runuser -u puppet -- ",
            "setpriv --reuid 0 --clear-groups --no-new-privs ",
            "setsid --wait ",
            "setsid -w ",
            "stdbuf -oL -e 0 ",
            "nohup ",
            "flock -w 60 -E 0 /run/lock/x ",
            "flock -n /run/lock/x ",
            "chroot --userspec=a:b /srv/root ",
            "systemd-run --scope --quiet -p MemoryMax=1G --unit puppet ",
            "systemd-run --scope -pMemoryMax=1G --slice=low ",
            "systemd-inhibit --what=shutdown --why x ",
            "prlimit --nofile=1024 ",
            "choom -n 500 -- ",
            "bundle exec ",
            "ruby -W0 -I lib ",
            "sudo -u root env A=b nice -n 5 ionice -c3 timeout 1h ",
        ] {
            check(&format!("{wrappers}{PUPPET}"), PUPPET);
        }
        check("env A=b", "");
        check("timeout", "");
        check("sudo -u", "");
        check("flock", "");
        check("sh -c puppet", "sh -c puppet");
    }
}
