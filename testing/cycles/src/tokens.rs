//! Splits Rust source into the few kinds of tokens that imports are made of.
//!
//! Comments, numbers, characters and lifetimes are dropped. This is not a complete lexer: it only has to find
//! correctly where comments and literals begin and end.

/// A token, with the line that it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) line: usize,
}

/// The kind of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or a keyword.
    Word(String),
    /// A string literal; the content of a raw or byte string is dropped.
    Text(String),
    /// `::`
    Path,
    /// Any other character.
    Sign(char),
}

/// Returns the tokens of a file.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut lexer = Lexer { chars: &chars, at: 0, line: 1, tokens: Vec::new() };
    while lexer.at < chars.len() {
        lexer.next();
    }
    lexer.tokens
}

struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn advance(&mut self, count: usize) {
        for _ in 0..count {
            if self.peek(0) == Some('\n') {
                self.line += 1;
            }
            self.at += 1;
        }
    }

    fn push(&mut self, kind: Kind) {
        self.tokens.push(Token { kind, line: self.line });
    }

    fn next(&mut self) {
        match (self.peek(0), self.peek(1)) {
            (Some('/'), Some('/')) => self.skip_line(),
            (Some('/'), Some('*')) => self.skip_block_comment(),
            (Some('"'), _) => self.string(),
            (Some('\''), _) => self.character_or_lifetime(),
            (Some('r' | 'b' | 'c'), _) if self.raw_string() => {}
            (Some(first), _) if first.is_alphabetic() || first == '_' => self.word(),
            (Some(first), _) if first.is_ascii_digit() => self.number(),
            (Some(':'), Some(':')) => {
                self.push(Kind::Path);
                self.advance(2);
            }
            (Some(first), _) => {
                if !first.is_whitespace() {
                    self.push(Kind::Sign(first));
                }
                self.advance(1);
            }
            (None, _) => {}
        }
    }

    fn skip_line(&mut self) {
        while self.peek(0).is_some_and(|next| next != '\n') {
            self.advance(1);
        }
    }

    /// Block comments may be nested.
    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => {
                    depth += 1;
                    self.advance(2);
                }
                (Some('*'), Some('/')) => {
                    depth -= 1;
                    self.advance(2);
                }
                (Some(_), _) => self.advance(1),
                (None, _) => return,
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        let line = self.line;
        let mut text = String::new();
        self.advance(1);
        while let Some(next) = self.peek(0) {
            match next {
                '"' => break,
                '\\' => self.advance(1),
                _ => text.push(next),
            }
            self.advance(1);
        }
        self.advance(1);
        self.tokens.push(Token { kind: Kind::Text(text), line });
    }

    /// Reads a raw or byte string if one begins here, and returns whether it did. Raw identifiers are not strings.
    fn raw_string(&mut self) -> bool {
        let prefix = (0..2).take_while(|&ahead| matches!(self.peek(ahead), Some('r' | 'b' | 'c'))).count();
        let hashes = (prefix..).take_while(|&ahead| self.peek(ahead) == Some('#')).count();
        if self.peek(prefix + hashes) != Some('"') {
            return false;
        }
        let raw = (0..prefix).any(|ahead| self.peek(ahead) == Some('r'));
        if !raw {
            self.advance(prefix);
            self.string();
            return true;
        }
        self.push(Kind::Text(String::new()));
        self.advance(prefix + hashes + 1);
        while self.peek(0).is_some() {
            let closes = self.peek(0) == Some('"') && (1..=hashes).all(|ahead| self.peek(ahead) == Some('#'));
            if closes {
                self.advance(1 + hashes);
                break;
            }
            self.advance(1);
        }
        true
    }

    fn character_or_lifetime(&mut self) {
        match (self.peek(1), self.peek(2)) {
            (Some('\\'), _) => {
                self.advance(3);
                while self.peek(0).is_some_and(|next| next != '\'') {
                    self.advance(1);
                }
                self.advance(1);
            }
            (Some(_), Some('\'')) => self.advance(3),
            _ => {
                self.advance(1);
                while self.peek(0).is_some_and(is_of_a_word) {
                    self.advance(1);
                }
            }
        }
    }

    fn word(&mut self) {
        let mut word = String::new();
        while let Some(next) = self.peek(0).filter(|&next| is_of_a_word(next)) {
            word.push(next);
            self.advance(1);
        }
        self.push(Kind::Word(word));
    }

    fn number(&mut self) {
        while self.peek(0).is_some_and(is_of_a_word) {
            self.advance(1);
        }
    }
}

fn is_of_a_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> String {
        let words = tokens(source).into_iter().map(|token| match token.kind {
            Kind::Word(word) => word,
            Kind::Text(text) => format!("\"{text}\""),
            Kind::Path => "::".to_owned(),
            Kind::Sign(sign) => sign.to_string(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_hide_what_is_in_them() {
        assert_eq!(words("a // use b\nc /* d /* e */ f */ g"), "a c g");
        assert_eq!(words(r##"a r#"use "b""# c "d \" e" f b"g" h"##), r#"a "" c "d  e" f "g" h"#);
    }

    #[test]
    fn characters_and_lifetimes_are_distinguished() {
        assert_eq!(words(r"a('{', '\'', '\u{7b}', b'x') b"), "a ( , , , b ) b");
        assert_eq!(words("fn f<'a>(x: &'a str)"), "fn f < > ( x : & str )");
    }

    #[test]
    fn lines_are_counted() {
        let lines: Vec<usize> = tokens("a\n/* \n */ b\n\"x\ny\" c").iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3, 4, 5]);
    }
}
