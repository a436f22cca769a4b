//! Cuts a template's source into tokens: text, and the words between delimiters.
//!
//! Blanks between words are tokens too, because `.a.b` and `.a .b` differ. Every token knows where it stands.

use super::error::Mistake;

/// A token and where it stands in the source.
#[derive(Clone, Copy, Debug)]
pub struct Token<'s> {
    /// What it is.
    pub kind: TokenKind,
    /// Its source.
    pub text: &'s str,
    /// Where it begins.
    pub at: usize,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Plain text, already trimmed.
    Text,
    /// The left delimiter.
    Left,
    /// The right delimiter.
    Right,
    /// Blanks between words.
    Space,
    /// `|`.
    Pipe,
    /// `:=`.
    Declare,
    /// `=`.
    Assign,
    /// `(`.
    Open,
    /// `)`.
    Close,
    /// `,`.
    Comma,
    /// `.`.
    Dot,
    /// `.Name`.
    Field,
    /// `$Name` or `$`.
    Variable,
    /// A name.
    Ident,
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// `'x'`.
    Rune,
    /// `"..."`.
    Quoted,
    /// Text between backquotes.
    Raw,
    /// The end of the source.
    End,
}

/// The blanks that trim markers take away.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// Cuts a source into tokens; the last is [`TokenKind::End`].
pub fn tokens<'s>(source: &'s str, left: &str, right: &str) -> Result<Vec<Token<'s>>, Mistake> {
    let mut lexer = Lexer { source, at: 0, right, out: Vec::new(), open: 0 };
    lexer.run(left)?;
    Ok(lexer.out)
}

struct Lexer<'s, 'd> {
    source: &'s str,
    at: usize,
    right: &'d str,
    out: Vec<Token<'s>>,
    /// Parentheses that are open.
    open: usize,
}

impl<'s> Lexer<'s, '_> {
    fn run(&mut self, left: &str) -> Result<(), Mistake> {
        let mut trim_next = false;
        loop {
            let rest = &self.source[self.at..];
            let found = rest.find(left);
            let text = &rest[..found.unwrap_or(rest.len())];
            let from = if trim_next { text.len() - text.trim_start_matches(BLANKS).len() } else { 0 };
            let trim_this = found.is_some_and(|at| has_left_marker(&rest[at + left.len()..]));
            let kept = if trim_this { text[from..].trim_end_matches(BLANKS) } else { &text[from..] };
            if !kept.is_empty() {
                self.out.push(Token { kind: TokenKind::Text, text: kept, at: self.at + from });
            }
            let Some(found) = found else {
                self.at = self.source.len();
                self.push(TokenKind::End, 0);
                return Ok(());
            };
            let start = self.at + found;
            self.at = start + left.len() + if trim_this { 2 } else { 0 };
            if self.source[self.at..].starts_with("/*") {
                trim_next = self.comment(start)?;
                continue;
            }
            self.out.push(Token { kind: TokenKind::Left, text: &self.source[start..self.at], at: start });
            trim_next = self.action(start)?;
        }
    }

    /// A comment and the delimiter after it; whether that one trims.
    fn comment(&mut self, start: usize) -> Result<bool, Mistake> {
        let rest = &self.source[self.at..];
        let Some(end) = rest.find("*/") else { return Err(Mistake::at(start, "unclosed comment")) };
        self.at += end + 2;
        match self.right_delimiter() {
            Some((length, trims)) => {
                self.at += length;
                Ok(trims)
            }
            None => Err(Mistake::at(start, "comment ends before closing delimiter")),
        }
    }

    /// The right delimiter, if it stands here: its length and whether it trims.
    fn right_delimiter(&self) -> Option<(usize, bool)> {
        let rest = &self.source[self.at..];
        if rest.starts_with(self.right) {
            return Some((self.right.len(), false));
        }
        let marked = rest.strip_prefix(BLANKS).and_then(|rest| rest.strip_prefix('-'));
        marked.filter(|rest| rest.starts_with(self.right)).map(|_| (2 + self.right.len(), true))
    }

    /// The words up to the right delimiter; whether that one trims.
    fn action(&mut self, start: usize) -> Result<bool, Mistake> {
        self.open = 0;
        loop {
            if let Some((length, trims)) = self.right_delimiter() {
                if self.open > 0 {
                    return Err(self.mistake("unclosed left paren"));
                }
                self.push(TokenKind::Right, length);
                return Ok(trims);
            }
            let rest = &self.source[self.at..];
            let Some(first) = rest.chars().next() else {
                return Err(Mistake::at(start, "unclosed action"));
            };
            match first {
                ' ' | '\t' | '\r' | '\n' => self.space(),
                '=' => self.push(TokenKind::Assign, 1),
                ':' if rest.starts_with(":=") => self.push(TokenKind::Declare, 2),
                ':' => return Err(self.mistake("expected :=")),
                '|' => self.push(TokenKind::Pipe, 1),
                ',' => self.push(TokenKind::Comma, 1),
                '(' => {
                    self.open += 1;
                    self.push(TokenKind::Open, 1);
                }
                ')' => {
                    if self.open == 0 {
                        return Err(self.mistake("unexpected right paren"));
                    }
                    self.open -= 1;
                    self.push(TokenKind::Close, 1);
                }
                '"' => self.quoted('"', TokenKind::Quoted, "unterminated quoted string")?,
                '\'' => self.quoted('\'', TokenKind::Rune, "unterminated character constant")?,
                '`' => {
                    let Some(end) = rest[1..].find('`') else {
                        return Err(self.mistake("unterminated raw quoted string"));
                    };
                    self.push(TokenKind::Raw, end + 2);
                }
                '$' => self.name(TokenKind::Variable)?,
                '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.name(TokenKind::Field)?,
                '.' | '+' | '-' | '0'..='9' => self.number()?,
                first if is_name(first) => self.name(TokenKind::Ident)?,
                first => {
                    let code = u32::from(first);
                    return Err(
                        self.mistake(&format!("unrecognized character in action: U+{code:04X} '{first}'"))
                    );
                }
            }
        }
    }

    /// Blanks, but not the one that belongs to a trim marker.
    fn space(&mut self) {
        let start = self.at;
        while self.source[self.at..].starts_with(BLANKS) && self.right_delimiter().is_none() {
            self.at += 1;
        }
        let text = &self.source[start..self.at];
        self.out.push(Token { kind: TokenKind::Space, text, at: start });
    }

    /// Text in quotes, on one line.
    fn quoted(&mut self, quote: char, kind: TokenKind, unterminated: &str) -> Result<(), Mistake> {
        let rest = &self.source[self.at + 1..];
        let mut escaped = false;
        for (at, char) in rest.char_indices() {
            match char {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if char == quote => {
                    self.push(kind, at + 2);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(self.mistake(unterminated))
    }

    /// A name, perhaps after `.` or `$`; a dot alone is the cursor.
    fn name(&mut self, kind: TokenKind) -> Result<(), Mistake> {
        let rest = &self.source[self.at..];
        let prefix = usize::from(kind != TokenKind::Ident);
        let length = rest[prefix..].find(|c| !is_name(c)).map_or(rest.len(), |end| prefix + end);
        let (word, after) = rest.split_at(length);
        let ends = after.chars().next().is_none_or(|c| {
            matches!(c, ' ' | '\t' | '\r' | '\n' | '.' | ',' | '|' | ':' | ')' | '(' | '=')
                || after.starts_with(self.right)
        });
        if !ends {
            let odd = after.chars().next().unwrap_or(' ');
            return Err(Mistake::at(
                self.at + length,
                format!("bad character U+{:04X} '{odd}'", u32::from(odd)),
            ));
        }
        let kind = match (kind, word) {
            (TokenKind::Field, ".") => TokenKind::Dot,
            (TokenKind::Ident, "true" | "false") => TokenKind::Bool,
            (kind, _) => kind,
        };
        self.push(kind, length);
        Ok(())
    }

    /// A number: everything that could belong to one.
    fn number(&mut self) -> Result<(), Mistake> {
        let rest = &self.source.as_bytes()[self.at..];
        let mut at = usize::from(matches!(rest[0], b'+' | b'-'));
        let hex = rest[at..].starts_with(b"0x") || rest[at..].starts_with(b"0X");
        let start = at;
        while let Some(byte) = rest.get(at) {
            let exponent = if hex { b"pP" } else { b"eE" };
            let after_exponent = at > start && exponent.contains(&rest[at - 1]);
            let belongs = byte.is_ascii_alphanumeric()
                || matches!(byte, b'.' | b'_')
                || matches!(byte, b'+' | b'-') && after_exponent;
            if !belongs {
                break;
            }
            at += 1;
        }
        let odd = self.source[self.at + at..].chars().next().is_some_and(is_name);
        let text = &self.source[self.at..self.at + at];
        if odd || at == start {
            return Err(self.mistake(&format!("bad number syntax: {text:?}")));
        }
        self.push(TokenKind::Number, at);
        Ok(())
    }

    fn push(&mut self, kind: TokenKind, length: usize) {
        let text = &self.source[self.at..self.at + length];
        self.out.push(Token { kind, text, at: self.at });
        self.at += length;
    }

    fn mistake(&self, text: &str) -> Mistake {
        Mistake::at(self.at, text)
    }
}

/// Whether what follows a left delimiter is a marker that trims: a dash and a blank.
fn has_left_marker(rest: &str) -> bool {
    rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(BLANKS))
}

/// Whether names may have it.
fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}
