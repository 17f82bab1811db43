//! The kinds of run commands.

use crate::event::RunOptions;

/// The kind of a run command, recognised by its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandKind {
    /// `puppet agent`: it has a lock, obeys `puppet agent --disable`, and accepts a job id.
    PuppetAgent,
    /// `puppet apply`: it has no lock, ignores `puppet agent --disable`, and accepts no job id.
    PuppetApply,
    /// Any other command: its outcome is that of its exit code.
    Other,
}

impl CommandKind {
    /// Why the command cannot do what an event asks for, as a sentence. Where it cannot, the event is refused, and never run for
    /// real, nor with other code.
    pub fn objection(self, options: &RunOptions) -> Option<String> {
        let cannot = match (self, &options.environment) {
            (Self::PuppetAgent, _) | (Self::PuppetApply, None) => return None,
            (Self::PuppetApply | Self::Other, Some(environment)) => {
                format!("run in the environment {environment}: 'puppet agent' can")
            }
            (Self::Other, None) if options.noop => "honour noop".to_owned(),
            (Self::Other, None) => return None,
        };
        Some(format!("this node's run command cannot {cannot}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_puppet_honours_noop_and_only_its_agent_an_environment() {
        let check = |kind: CommandKind, noop, environment: Option<&str>, expected: Option<&str>| {
            let environment = environment.map(|name| name.parse().unwrap());
            let options = RunOptions { noop, environment, ..RunOptions::default() };
            assert_eq!(kind.objection(&options).as_deref(), expected);
        };
        let environment =
            Some("this node's run command cannot run in the environment test: 'puppet agent' can");
        let noop = Some("this node's run command cannot honour noop");
        for kind in [CommandKind::PuppetAgent, CommandKind::PuppetApply, CommandKind::Other] {
            check(kind, false, None, None);
        }
        check(CommandKind::PuppetAgent, true, Some("test"), None);
        check(CommandKind::PuppetApply, true, None, None);
        check(CommandKind::PuppetApply, true, Some("test"), environment);
        check(CommandKind::Other, true, None, noop);
        check(CommandKind::Other, true, Some("test"), environment);
    }
}
