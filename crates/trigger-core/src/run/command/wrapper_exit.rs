//! The exit codes that wrappers have themselves, where the command behind them did not run or did not end by itself.

use super::RunCommand;
use super::wrappers::wrapped;

/// What an exit code means, if it is a wrapper's own. Puppet may have the same code where its report says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrapperExit {
    /// `timeout` ended the command.
    TimedOut,
    /// `flock` did not get its lock in time and started nothing.
    NoLock,
    /// A wrapper cannot start the command.
    NotStarted,
}

impl RunCommand {
    /// What an exit code means where it can be a wrapper's own.
    pub fn wrapper_exit(&self, code: i32) -> Option<WrapperExit> {
        let wrapped = wrapped(&self.wrappers);
        let has = |name: &str| wrapped.each.iter().any(|wrapper| wrapper.name() == name);
        let mut flocks = wrapped.each.iter().filter(|wrapper| wrapper.name() == "flock");
        let is_conflict = |code_of_flock: Option<&str>| match code_of_flock {
            Some(set) => set.trim().parse() == Ok(code),
            None => code == 1,
        };
        match code {
            124 if has("timeout") => Some(WrapperExit::TimedOut),
            _ if flocks
                .any(|flock| is_conflict(flock.value(&self.wrappers, &["-E", "--conflict-exit-code"]))) =>
            {
                Some(WrapperExit::NoLock)
            }
            125..=127 if !wrapped.each.is_empty() => Some(WrapperExit::NotStarted),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_codes_of_timeout_and_flock_are_known_by_the_words_of_the_command() {
        use WrapperExit::{NoLock, NotStarted, TimedOut};
        for (text, code, expected) in [
            ("timeout 60 puppet agent", 124, Some(TimedOut)),
            ("nice /usr/bin/timeout -k 5 60 flock /l puppet apply /x.pp", 124, Some(TimedOut)),
            ("timeout 60 puppet agent", 1, None),
            ("puppet agent", 124, None),
            ("nice puppet agent", 124, None),
            ("flock -n /l puppet agent", 1, Some(NoLock)),
            ("flock -n -E 75 /l puppet agent", 75, Some(NoLock)),
            ("flock -nE75 /l puppet agent", 75, Some(NoLock)),
            ("flock -w 5 --conflict-exit-code=75 /l puppet agent", 75, Some(NoLock)),
            ("flock --conflict-exit-code 0 -n /l nice puppet agent", 0, Some(NoLock)),
            ("flock -n -E 75 /l puppet agent", 1, None),
            ("flock -n -E 75 /l flock /m puppet agent", 1, Some(NoLock)),
            ("flock -n /l puppet agent", 2, None),
            ("timeout 60 puppet agent", 127, Some(NotStarted)),
            ("env A=b puppet agent", 126, Some(NotStarted)),
            ("puppet agent", 127, None),
            ("flock -E 75 /l converge", 75, None),
        ] {
            let command = RunCommand::from_words(text.split(' ').map(str::to_owned).collect()).unwrap();
            assert_eq!(command.wrapper_exit(code), expected, "{text}: {code}");
        }
    }
}
