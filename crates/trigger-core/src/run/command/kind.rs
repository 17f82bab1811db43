//! The kinds of run commands.

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
