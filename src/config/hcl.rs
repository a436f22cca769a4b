//! Reads HCL as Consul's files use it: the first version of the language.
//!
//! HCL 1 is not HCL 2: keys may be quoted, several attributes may share a line, commas between them are optional,
//! blocks may stand inside objects, and `${..}` is plain text. So this is a small reader of its own rather than an
//! HCL 2 library. Blocks become objects, blocks of the same name a list of objects, labels one object around another.

use serde_json::{Map, Number, Value};

/// Deepest nesting of blocks, objects and lists; deeper text is refused.
const DEPTH_MAX: usize = 64;

/// Parses a whole file into an object. The error begins with `At LINE:COLUMN: `.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let body = reader.body(None)?;
    Ok(Value::Object(body))
}

/// One token.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    End,
    Ident(String),
    Text(String),
    Number(Number),
    Punct(char),
}

impl Token {
    /// The name the reference reader gives it in errors.
    fn name(&self) -> String {
        match self {
            Token::End => "EOF".to_owned(),
            Token::Ident(_) => "IDENT".to_owned(),
            Token::Text(_) => "STRING".to_owned(),
            Token::Number(_) => "NUMBER".to_owned(),
            Token::Punct('{') => "LBRACE".to_owned(),
            Token::Punct('}') => "RBRACE".to_owned(),
            Token::Punct('[') => "LBRACK".to_owned(),
            Token::Punct(']') => "RBRACK".to_owned(),
            Token::Punct('=') => "ASSIGN".to_owned(),
            Token::Punct(',') => "COMMA".to_owned(),
            Token::Punct(c) => format!("ILLEGAL {c}"),
        }
    }
}

/// Reads tokens and builds values.
struct Reader<'a> {
    text: &'a str,
    /// Byte offset of what comes next.
    at: usize,
    /// Open blocks, objects and lists.
    depth: usize,
}

impl Reader<'_> {
    /// Reads pairs and blocks up to `close`, or to the end of the file.
    fn body(&mut self, close: Option<char>) -> Result<Map<String, Value>, String> {
        let mut out = Map::new();
        loop {
            let start = self.skip_blank()?;
            match (self.token()?, close) {
                (Token::End, None) => return Ok(out),
                (Token::End, Some(_)) => {
                    return Err(self.error(start, "object expected closing RBRACE got: EOF"));
                }
                (Token::Punct(c), Some(close)) if c == close => return Ok(out),
                (Token::Punct(','), _) => {}
                (Token::Ident(key) | Token::Text(key), _) => {
                    let value = self.pair(&key)?;
                    insert(&mut out, key, value);
                }
                (other, _) => {
                    let text = format!("expected: IDENT | STRING got: {}", other.name());
                    return Err(self.error(start, &text));
                }
            }
        }
    }

    /// Reads what follows a key: `= value`, a block, or labels and a block.
    fn pair(&mut self, key: &str) -> Result<Value, String> {
        let start = self.skip_blank()?;
        match self.token()? {
            Token::Punct('=') => {
                let start = self.skip_blank()?;
                let token = self.token()?;
                self.value(token, start)
            }
            Token::Punct('{') => self.object(start),
            Token::Text(label) | Token::Ident(label) => {
                self.enter(start)?;
                let inner = self.pair(&label)?;
                self.depth -= 1;
                Ok(Value::Object(Map::from_iter([(label, inner)])))
            }
            _ => Err(self
                .error(start, &format!("key '{key}' expected start of object ('{{') or assignment ('=')"))),
        }
    }

    /// Builds a value whose first token is `token`.
    fn value(&mut self, token: Token, start: usize) -> Result<Value, String> {
        match token {
            Token::Text(text) => Ok(Value::String(text)),
            Token::Number(number) => Ok(Value::Number(number)),
            Token::Ident(word) if word == "true" => Ok(Value::Bool(true)),
            Token::Ident(word) if word == "false" => Ok(Value::Bool(false)),
            Token::Ident(word) if word == "null" => Ok(Value::Null),
            Token::Ident(word) => Err(self.error(start, &format!("Unknown token: IDENT {word}"))),
            Token::Punct('{') => self.object(start),
            Token::Punct('[') => self.list(start),
            // `key =` with nothing after it, at the end of a file.
            Token::End => Ok(Value::Null),
            Token::Punct(_) => Err(self.error(start, &format!("Unknown token: {}", token.name()))),
        }
    }

    /// Reads an object after its brace.
    fn object(&mut self, start: usize) -> Result<Value, String> {
        self.enter(start)?;
        let body = self.body(Some('}'))?;
        self.depth -= 1;
        Ok(Value::Object(body))
    }

    /// Reads a list after its bracket; a comma may follow the last item.
    fn list(&mut self, start: usize) -> Result<Value, String> {
        self.enter(start)?;
        let mut items = Vec::new();
        loop {
            let start = self.skip_blank()?;
            match self.token()? {
                Token::Punct(']') => break,
                Token::End => {
                    return Err(self.error(start, "error parsing list, expected list end, got: EOF"));
                }
                token => items.push(self.value(token, start)?),
            }
            let start = self.skip_blank()?;
            match self.token()? {
                Token::Punct(',') => {}
                Token::Punct(']') => break,
                other => {
                    let text =
                        format!("error parsing list, expected comma or list end, got: {}", other.name());
                    return Err(self.error(start, &text));
                }
            }
        }
        self.depth -= 1;
        Ok(Value::Array(items))
    }

    /// Counts one level more.
    fn enter(&mut self, start: usize) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(start, &format!("nested more than {DEPTH_MAX} levels deep")));
        }
        Ok(())
    }

    /// Reads one token; blanks and comments before it are gone.
    fn token(&mut self) -> Result<Token, String> {
        let start = self.at;
        let Some(c) = self.rest().chars().next() else { return Ok(Token::End) };
        match c {
            '"' => self.quoted(start).map(Token::Text),
            '<' if self.rest().starts_with("<<") => self.heredoc(start).map(Token::Text),
            '-' | '0'..='9' => self.number(start).map(Token::Number),
            c if c.is_alphabetic() || c == '_' => {
                let word = self.take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
                Ok(Token::Ident(word.to_owned()))
            }
            c => {
                self.at += c.len_utf8();
                Ok(Token::Punct(c))
            }
        }
    }

    /// Skips blanks and comments; returns where the next token begins.
    fn skip_blank(&mut self) -> Result<usize, String> {
        loop {
            self.take_while(|c| c.is_whitespace() || c == '\u{feff}');
            if self.rest().starts_with('#') || self.rest().starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if self.rest().starts_with("/*") {
                let start = self.at;
                let end =
                    self.rest().find("*/").ok_or_else(|| self.error(start, "comment not terminated"))?;
                self.at += end + 2;
            } else {
                return Ok(self.at);
            }
        }
    }

    /// Reads a quoted text. Inside `${..}` quotes and escapes stay as they are.
    fn quoted(&mut self, start: usize) -> Result<String, String> {
        let unterminated = |this: &Self| this.error(start, "literal not terminated");
        self.at += 1;
        let (mut out, mut braces) = (String::new(), 0usize);
        loop {
            let c = self.rest().chars().next().ok_or_else(|| unterminated(self))?;
            self.at += c.len_utf8();
            match c {
                '"' if braces == 0 => return Ok(out),
                '\n' if braces == 0 => return Err(unterminated(self)),
                '$' if braces == 0 && self.rest().starts_with('{') => {
                    self.at += 1;
                    braces = 1;
                    out.push_str("${");
                }
                '\\' if braces == 0 => out.push(self.escape(start)?),
                c => {
                    match c {
                        '{' if braces > 0 => braces += 1,
                        '}' if braces > 0 => braces -= 1,
                        _ => {}
                    }
                    out.push(c);
                }
            }
        }
    }

    /// Reads an escape after its backslash.
    fn escape(&mut self, start: usize) -> Result<char, String> {
        let c = self.rest().chars().next().ok_or_else(|| self.error(start, "literal not terminated"))?;
        self.at += c.len_utf8();
        let digits = match c {
            'n' => return Ok('\n'),
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            'a' => return Ok('\u{7}'),
            'b' => return Ok('\u{8}'),
            'f' => return Ok('\u{c}'),
            'v' => return Ok('\u{b}'),
            '\\' | '"' | '\'' => return Ok(c),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return Err(self.error(start, "illegal char escape")),
        };
        let code = self.rest().get(..digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let c = code.and_then(char::from_u32).ok_or_else(|| self.error(start, "illegal char escape"))?;
        self.at += digits;
        Ok(c)
    }

    /// Reads `<<MARK` or `<<-MARK` up to the line that holds the mark alone.
    fn heredoc(&mut self, start: usize) -> Result<String, String> {
        self.at += 2;
        let indented = self.rest().starts_with('-');
        self.at += usize::from(indented);
        let mark = self.take_while(|c| c.is_alphanumeric() || c == '_').to_owned();
        let line_end = self.rest().find('\n').filter(|end| self.rest()[..*end].trim().is_empty());
        let (Some(line_end), false) = (line_end, mark.is_empty()) else {
            return Err(self.error(start, "invalid characters in heredoc anchor"));
        };
        self.at += line_end + 1;
        let mut lines = Vec::new();
        loop {
            if self.rest().is_empty() {
                return Err(self.error(start, "heredoc not terminated"));
            }
            let line = self.take_while(|c| c != '\n');
            if line.trim() == mark {
                break;
            }
            let line = line.strip_suffix('\r').unwrap_or(line).to_owned();
            lines.push(line);
            self.at += usize::from(!self.rest().is_empty());
        }
        let blank = |line: &String| line.len() - line.trim_start().len();
        let cut = if indented { lines.iter().map(blank).min().unwrap_or(0) } else { 0 };
        Ok(lines.iter().map(|line| format!("{}\n", &line[cut..])).collect())
    }

    /// Reads a number: decimal, hexadecimal, octal with a leading zero, or with a fraction or exponent.
    fn number(&mut self, start: usize) -> Result<Number, String> {
        let word = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+')).to_owned();
        let (sign, digits) = word.strip_prefix('-').map_or((1, word.as_str()), |rest| (-1, rest));
        let whole = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
            i64::from_str_radix(hex, 16).ok()
        } else if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
            i64::from_str_radix(digits, 8).ok()
        } else {
            digits.parse::<i64>().ok().filter(|n| *n >= 0)
        };
        let fraction = || digits.parse::<f64>().ok().and_then(|f| Number::from_f64(f * sign as f64));
        whole
            .map(|n| Number::from(n * sign))
            .or_else(fraction)
            .ok_or_else(|| self.error(start, &format!("cannot parse number {word:?}")))
    }

    /// What is left.
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// Takes characters while they fit.
    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &str {
        let start = self.at;
        let rest = &self.text[start..];
        self.at += rest.find(|c| !fits(c)).unwrap_or(rest.len());
        &self.text[start..self.at]
    }

    /// An error at a byte offset.
    fn error(&self, at: usize, text: &str) -> String {
        let before = &self.text[..at.min(self.text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        format!("At {line}:{column}: {text}")
    }
}

/// Puts a pair in: objects of the same name gather in a list, anything else replaces.
fn insert(out: &mut Map<String, Value>, key: String, value: Value) {
    match (out.get_mut(&key), value) {
        (Some(Value::Array(items)), Value::Object(new)) if items.iter().all(Value::is_object) => {
            items.push(Value::Object(new));
        }
        (Some(old @ Value::Object(_)), Value::Object(new)) => {
            let first = old.take();
            *old = Value::Array(vec![first, Value::Object(new)]);
        }
        (_, value) => {
            out.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_the_oddities_of_the_first_version() {
        let text = r#"
            # one
            // two
            /* three */ server = true, "bootstrap_expect" = 3
            ports { http = 8500 "dns" = 0x10 grpc = -1 }
            node_meta = { a = "${x "y"}", "b c" = "q\"\t" }
            services = [ { name = "a" checks { ttl = "1s" } checks { ttl = "2s" } }, { name = "b" }, ]
            service { name = "c" }
            service { name = "d" }
            label "x" "y" { z = 1.5 }
            text = <<EOF
  two
lines
EOF
            cut = <<-EOF
              two
                lines
              EOF
        "#;
        assert_eq!(
            parse(text),
            Ok(json!({
                "server": true, "bootstrap_expect": 3,
                "ports": {"http": 8500, "dns": 16, "grpc": -1},
                "node_meta": {"a": "${x \"y\"}", "b c": "q\"\t"},
                "services": [{"name": "a", "checks": [{"ttl": "1s"}, {"ttl": "2s"}]}, {"name": "b"}],
                "service": [{"name": "c"}, {"name": "d"}],
                "label": {"x": {"y": {"z": 1.5}}},
                "text": "  two\nlines\n",
                "cut": "two\n  lines\n",
            }))
        );
        assert_eq!(parse(""), Ok(json!({})));
        assert_eq!(parse("a = 010 b = 1e3"), Ok(json!({"a": 8, "b": 1000.0})));
    }

    #[test]
    fn errors_name_the_place() {
        for (text, error) in [
            ("a = \"x", "At 1:5: literal not terminated"),
            ("\nports {", "At 2:8: object expected closing RBRACE got: EOF"),
            ("}", "At 1:1: expected: IDENT | STRING got: RBRACE"),
            ("a = [1 2]", "At 1:8: error parsing list, expected comma or list end, got: NUMBER"),
            ("a = yes", "At 1:5: Unknown token: IDENT yes"),
            ("a { } foo", "At 1:10: key 'foo' expected start of object ('{') or assignment ('=')"),
            ("a = <<EOF\nx", "At 1:5: heredoc not terminated"),
            ("a = 1x", "At 1:5: cannot parse number \"1x\""),
            ("a = -", "At 1:5: cannot parse number \"-\""),
            ("/*", "At 1:1: comment not terminated"),
        ] {
            assert_eq!(parse(text), Err(error.to_owned()), "{text}");
        }
        assert!(parse(&"a {".repeat(100)).is_err_and(|e| e.contains("levels deep")));
        assert!(parse(&format!("a = {}", "[".repeat(100_000))).is_err_and(|e| e.contains("levels deep")));
        assert!(parse(&"a ".repeat(100_000)).is_err_and(|e| e.contains("levels deep")));
    }
}
