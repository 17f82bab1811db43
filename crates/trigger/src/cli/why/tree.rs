//! A tree of sentences, as text.

use crate::clean;

/// Lines, and the branches below them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Branch {
    pub(super) lines: Vec<String>,
    pub(super) below: Vec<Branch>,
}

impl Branch {
    pub(super) fn of(lines: impl IntoIterator<Item = String>) -> Self {
        Self { lines: lines.into_iter().collect(), below: Vec::new() }
    }

    /// The text, in lines of at most `width` characters where their words allow it.
    pub(super) fn render(&self, width: usize) -> String {
        let mut rows = Vec::new();
        self.write(&mut rows, "", "", width);
        rows.join("\n")
    }

    fn write(&self, rows: &mut Vec<String>, first: &str, rest: &str, width: usize) {
        // A vertical line beside this branch's own lines leads to the branches below.
        let trunk = if self.below.is_empty() { rest.to_owned() } else { format!("{rest}│ ") };
        let own = if self.below.is_empty() { rest.to_owned() } else { trunk.clone() };
        for (index, line) in self.lines.iter().enumerate() {
            let lead = if index == 0 { first } else { own.as_str() };
            let line = clean::line(line);
            let wrapped = textwrap::wrap(
                &line,
                textwrap::Options::new(width)
                    .initial_indent(lead)
                    .subsequent_indent(&own)
                    .break_words(false)
                    .word_splitter(textwrap::WordSplitter::NoHyphenation),
            );
            rows.extend(wrapped.into_iter().map(|row| row.trim_end().to_owned()));
        }
        for (index, branch) in self.below.iter().enumerate() {
            let is_last = index + 1 == self.below.len();
            let (turn, beside) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            branch.write(rows, &format!("{rest}{turn}"), &format!("{rest}{beside}"), width);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(lines: &[&str], below: Vec<Branch>) -> Branch {
        Branch { lines: lines.iter().map(|&line| line.to_owned()).collect(), below }
    }

    #[test]
    fn lines_run_down_to_the_last_branch_and_no_further() {
        let tree = branch(
            &["top", "more of it"],
            vec![
                branch(&["first", "its second line"], vec![branch(&["below first"], Vec::new())]),
                branch(&["last one", "of two"], Vec::new()),
            ],
        );
        let expected = "\
top
│ more of it
├─ first
│  │ its second line
│  └─ below first
└─ last one
   of two";
        assert_eq!(tree.render(80), expected);
    }

    #[test]
    fn long_lines_are_wrapped_beside_the_tree() {
        let tree = branch(&["top"], vec![branch(&["some words that do not fit"], Vec::new())]);
        assert_eq!(tree.render(16), "top\n└─ some words\n   that do not\n   fit");
    }
}
