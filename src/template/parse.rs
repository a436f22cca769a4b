//! Makes a tree of a template's tokens.

use std::collections::BTreeMap;

use super::ast::{Block, Branch, Command, Expr, ExprKind, Invocation, Node, Pipe};
use super::error::Mistake;
use super::lex::{self, Token, TokenKind};
use super::literal;

/// Deepest nesting of blocks and parentheses; a deeper template is refused.
const NESTING_MAX: usize = 100;

/// Names that are no functions.
const KEYWORDS: [&str; 10] =
    ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];

/// A source as trees: its own and those that it defines.
#[derive(Debug)]
pub struct Trees {
    /// What is executed.
    pub main: Block,
    /// Defined templates by name.
    pub defined: BTreeMap<String, Block>,
}

/// Parses a source. `is_function` tells which names are functions.
pub fn parse(
    source: &str,
    delimiters: (&str, &str),
    is_function: &dyn Fn(&str) -> bool,
) -> Result<Trees, Mistake> {
    let tokens = lex::tokens(source, delimiters.0, delimiters.1)?;
    let mut parser = Parser {
        source,
        tokens,
        at: 0,
        variables: vec!["$".to_owned()],
        ranges: 0,
        depth: 0,
        defined: BTreeMap::new(),
        is_function,
    };
    let main = parser.top()?;
    Ok(Trees { main, defined: parser.defined })
}

struct Parser<'s> {
    source: &'s str,
    tokens: Vec<Token<'s>>,
    at: usize,
    /// Variables that may be used here.
    variables: Vec<String>,
    /// Ranges around this place.
    ranges: usize,
    /// Blocks and parentheses around this place.
    depth: usize,
    defined: BTreeMap<String, Block>,
    is_function: &'s dyn Fn(&str) -> bool,
}

/// What ends a list of nodes.
#[derive(Clone, Copy, PartialEq)]
enum Ending {
    End,
    Else,
    Source,
}

impl<'s> Parser<'s> {
    /// The whole source: the only place for definitions.
    fn top(&mut self) -> Result<Block, Mistake> {
        let mut main = Block::default();
        loop {
            if self.is_action("define") {
                self.define()?;
                continue;
            }
            match self.node(&mut main)? {
                None => {}
                Some((Ending::Source, _)) => {
                    main.nodes.shrink_to_fit();
                    return Ok(main);
                }
                Some((Ending::End, at)) => return Err(Mistake::at(at, "unexpected {{end}}")),
                Some((Ending::Else, at)) => return Err(Mistake::at(at, "unexpected {{else}}")),
            }
        }
    }

    /// Whether an action with a word is next.
    fn is_action(&self, word: &str) -> bool {
        let after = self.tokens[self.at..].iter().filter(|token| token.kind != TokenKind::Space);
        let mut after = after.take(2);
        after.next().is_some_and(|token| token.kind == TokenKind::Left)
            && after.next().is_some_and(|token| token.kind == TokenKind::Ident && token.text == word)
    }

    fn define(&mut self) -> Result<(), Mistake> {
        self.next();
        let start = self.next_word();
        let name = self.name("define clause")?;
        self.expect(TokenKind::Right, "define clause")?;
        let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let ranges = std::mem::take(&mut self.ranges);
        let body = self.closed(start.at)?;
        self.variables = outer;
        self.ranges = ranges;
        self.add(name, body, start.at)
    }

    /// Keeps a defined template. One that writes something replaces only one that does not.
    fn add(&mut self, name: String, body: Block, at: usize) -> Result<(), Mistake> {
        let is_blank = body.is_blank(self.source);
        match self.defined.get(&name) {
            Some(old) if !old.is_blank(self.source) => {
                if is_blank {
                    return Ok(());
                }
                Err(Mistake::at(at, format!("multiple definition of template {name:?}")))
            }
            _ => {
                self.defined.insert(name, body);
                Ok(())
            }
        }
    }

    /// Nodes up to `{{end}}`.
    fn closed(&mut self, start: usize) -> Result<Block, Mistake> {
        match self.block(start)? {
            (block, Ending::End, _) => Ok(block),
            (_, _, at) => Err(Mistake::at(at, "unexpected {{else}}")),
        }
    }

    /// Nodes up to `{{end}}` or `{{else}}`, of which the word is read.
    fn block(&mut self, start: usize) -> Result<(Block, Ending, usize), Mistake> {
        let mut block = Block::default();
        loop {
            match self.node(&mut block)? {
                None => {}
                Some((Ending::Source, _)) => {
                    return Err(Mistake::at(start, "unexpected EOF: {{end}} is missing"));
                }
                Some((ending, at)) => {
                    block.nodes.shrink_to_fit();
                    return Ok((block, ending, at));
                }
            }
        }
    }

    /// One node, or what ends the list.
    fn node(&mut self, into: &mut Block) -> Result<Option<(Ending, usize)>, Mistake> {
        let token = self.next();
        match token.kind {
            TokenKind::End => return Ok(Some((Ending::Source, token.at))),
            TokenKind::Text => {
                into.nodes.push(Node::Text(token.at..token.at + token.text.len()));
                return Ok(None);
            }
            _ => {}
        }
        let word = self.peek_word();
        let keyword = if word.kind == TokenKind::Ident { word.text } else { "" };
        if KEYWORDS.contains(&keyword) {
            self.next_word();
        }
        let node = match keyword {
            "end" => {
                self.expect(TokenKind::Right, "end")?;
                return Ok(Some((Ending::End, word.at)));
            }
            "else" => return Ok(Some((Ending::Else, word.at))),
            "if" => Node::If(Box::new(self.branch("if", word.at)?)),
            "with" => Node::With(Box::new(self.branch("with", word.at)?)),
            "range" => Node::Range(Box::new(self.branch("range", word.at)?)),
            "template" => self.template(word.at)?,
            "block" => self.inner_block(word.at)?,
            "break" | "continue" => {
                if self.ranges == 0 {
                    return Err(Mistake::at(word.at, format!("{{{{{keyword}}}}} outside {{{{range}}}}")));
                }
                self.expect(TokenKind::Right, keyword)?;
                if keyword == "break" { Node::Break } else { Node::Continue }
            }
            "define" => return Err(Mistake::at(word.at, "unexpected {{define}}")),
            _ => Node::Action(Box::new(self.pipe("command", TokenKind::Right)?)),
        };
        into.nodes.push(node);
        Ok(None)
    }

    /// `if`, `with` or `range` from its pipeline to its end.
    fn branch(&mut self, word: &str, start: usize) -> Result<Branch, Mistake> {
        self.enter(start)?;
        let outer = self.variables.len();
        let pipe = self.pipe(word, TokenKind::Right)?;
        self.ranges += usize::from(word == "range");
        let (body, mut ending, at) = self.block(start)?;
        self.ranges -= usize::from(word == "range");
        let mut otherwise = None;
        if ending == Ending::Else {
            let next = self.peek_word();
            if next.kind == TokenKind::Ident && next.text == word && word != "range" {
                self.next_word();
                let inner = Box::new(self.branch(word, next.at)?);
                let node = if word == "if" { Node::If(inner) } else { Node::With(inner) };
                otherwise = Some(Block { nodes: vec![node] });
            } else {
                self.expect(TokenKind::Right, "else")?;
                let (block, end, _) = self.block(at)?;
                ending = end;
                if ending == Ending::Else {
                    return Err(Mistake::at(at, "expected end; found {{else}}"));
                }
                otherwise = Some(block);
            }
        }
        self.variables.truncate(outer);
        self.depth -= 1;
        Ok(Branch { pipe, body, otherwise })
    }

    fn template(&mut self, start: usize) -> Result<Node, Mistake> {
        let name = self.name("template clause")?;
        let pipe = self.cursor("template clause")?;
        let end = self.tokens[self.at - 1].at;
        let span = start..self.trimmed(start, end);
        Ok(Node::Template(Box::new(Invocation { span, name, pipe })))
    }

    /// `block`: a definition where it is used.
    fn inner_block(&mut self, start: usize) -> Result<Node, Mistake> {
        let name = self.name("block clause")?;
        let pipe = self.cursor("block clause")?;
        let end = self.tokens[self.at - 1].at;
        let span = start..self.trimmed(start, end);
        self.enter(start)?;
        let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let ranges = std::mem::take(&mut self.ranges);
        let body = self.closed(start)?;
        self.variables = outer;
        self.ranges = ranges;
        self.depth -= 1;
        self.add(name.clone(), body, start)?;
        Ok(Node::Template(Box::new(Invocation { span, name, pipe })))
    }

    /// A pipeline up to the delimiter, if there is one.
    fn cursor(&mut self, context: &str) -> Result<Option<Pipe>, Mistake> {
        if self.peek_word().kind == TokenKind::Right {
            self.next_word();
            return Ok(None);
        }
        self.pipe(context, TokenKind::Right).map(Some)
    }

    /// The quoted name of a template.
    fn name(&mut self, context: &str) -> Result<String, Mistake> {
        let token = self.next_word();
        let text = match token.kind {
            TokenKind::Quoted | TokenKind::Raw => unquoted(&token)?,
            _ => return Err(unexpected(&token, context)),
        };
        String::from_utf8(text).map_err(|_| Mistake::at(token.at, "a template's name is UTF-8"))
    }

    /// A pipeline up to a token.
    fn pipe(&mut self, context: &str, end: TokenKind) -> Result<Pipe, Mistake> {
        let start = self.peek_word().at;
        let mut pipe =
            Pipe { span: start..start, variables: Vec::new(), assigns: false, commands: Vec::new() };
        while self.peek_word().kind == TokenKind::Variable {
            let before = self.at;
            let variable = self.next_word();
            let next = self.peek_word();
            match next.kind {
                TokenKind::Assign | TokenKind::Declare => {
                    self.next_word();
                    pipe.assigns = next.kind == TokenKind::Assign;
                    pipe.variables.push(variable.text.to_owned());
                }
                TokenKind::Comma if context == "range" && pipe.variables.is_empty() => {
                    self.next_word();
                    pipe.variables.push(variable.text.to_owned());
                    if self.peek_word().kind != TokenKind::Variable {
                        return Err(Mistake::at(next.at, "range can only initialize variables"));
                    }
                    continue;
                }
                TokenKind::Comma => {
                    return Err(Mistake::at(next.at, format!("too many declarations in {context}")));
                }
                _ if !pipe.variables.is_empty() => return Err(unexpected(&next, context)),
                _ => self.at = before,
            }
            break;
        }
        if pipe.assigns {
            for variable in &pipe.variables {
                self.known(variable, start)?;
            }
        }
        loop {
            let token = self.peek_word();
            match token.kind {
                kind if kind == end => {
                    self.next_word();
                    pipe.span.end = self.trimmed(start, token.at);
                    break;
                }
                TokenKind::Bool
                | TokenKind::Rune
                | TokenKind::Dot
                | TokenKind::Field
                | TokenKind::Ident
                | TokenKind::Number
                | TokenKind::Raw
                | TokenKind::Quoted
                | TokenKind::Variable
                | TokenKind::Open => {
                    let command = self.command()?;
                    pipe.commands.push(command);
                }
                _ => return Err(unexpected(&token, context)),
            }
        }
        if pipe.commands.is_empty() {
            return Err(Mistake::at(start, format!("missing value for {context}")));
        }
        for (stage, command) in pipe.commands.iter().enumerate().skip(1) {
            if is_plain(&command.words[0].kind) {
                let text = format!("non executable command in pipeline stage {}", stage + 1);
                return Err(Mistake::at(command.span.start, text));
            }
        }
        pipe.commands.shrink_to_fit();
        // From here on, not in the pipeline itself.
        if !pipe.assigns {
            self.variables.extend(pipe.variables.iter().cloned());
        }
        Ok(pipe)
    }

    /// One stage of a pipeline.
    fn command(&mut self) -> Result<Command, Mistake> {
        let start = self.peek_word().at;
        let mut words = Vec::new();
        let mut end = start;
        loop {
            self.skip_space();
            if let Some(word) = self.operand()? {
                end = word.span.end;
                words.push(word);
            }
            let token = self.tokens[self.at];
            match token.kind {
                TokenKind::Space => {
                    self.at += 1;
                    continue;
                }
                TokenKind::Right | TokenKind::Close => {}
                TokenKind::Pipe => {
                    self.at += 1;
                    // Something must follow.
                    let next = self.peek_word();
                    if matches!(next.kind, TokenKind::Right | TokenKind::Close | TokenKind::Pipe) {
                        return Err(Mistake::at(token.at, "missing value for command"));
                    }
                }
                _ => return Err(unexpected(&token, "operand")),
            }
            break;
        }
        if words.is_empty() {
            return Err(Mistake::at(start, "empty command"));
        }
        // A program may hold many templates for long.
        words.shrink_to_fit();
        Ok(Command { span: start..end, words })
    }

    /// A term and the fields behind it.
    fn operand(&mut self) -> Result<Option<Expr>, Mistake> {
        let Some(mut term) = self.term()? else { return Ok(None) };
        let mut fields = Vec::new();
        while self.tokens[self.at].kind == TokenKind::Field {
            let token = self.next();
            fields.push(token.text[1..].to_owned());
            term.span.end = token.at + token.text.len();
        }
        if fields.is_empty() {
            return Ok(Some(term));
        }
        match &mut term.kind {
            ExprKind::Field(names) | ExprKind::Variable(_, names) => {
                names.append(&mut fields);
                names.shrink_to_fit();
            }
            kind if is_plain(kind) => {
                let text = &self.source[term.span.clone()];
                return Err(Mistake::at(term.span.start, format!("unexpected . after term {text:?}")));
            }
            _ => {
                let span = term.span.clone();
                term = Expr { span, kind: ExprKind::Chain(Box::new(term), fields) };
            }
        }
        Ok(Some(term))
    }

    /// One value.
    fn term(&mut self) -> Result<Option<Expr>, Mistake> {
        let token = self.tokens[self.at];
        let mut span = token.at..token.at + token.text.len();
        let kind = match token.kind {
            TokenKind::Ident if token.text == "nil" => ExprKind::Nil,
            TokenKind::Ident if KEYWORDS.contains(&token.text) => return Err(unexpected(&token, "operand")),
            TokenKind::Ident if (self.is_function)(token.text) => ExprKind::Function(token.text.to_owned()),
            TokenKind::Ident => {
                return Err(Mistake::at(token.at, format!("function {:?} not defined", token.text)));
            }
            TokenKind::Dot => ExprKind::Dot,
            TokenKind::Variable => {
                self.known(token.text, token.at)?;
                ExprKind::Variable(token.text.to_owned(), Vec::new())
            }
            TokenKind::Field => ExprKind::Field(vec![token.text[1..].to_owned()]),
            TokenKind::Bool => ExprKind::Bool(token.text == "true"),
            TokenKind::Number => literal::number(token.text).map_err(|text| Mistake::at(token.at, text))?,
            TokenKind::Rune => literal::rune(token.text).map(ExprKind::Int).ok_or_else(|| {
                Mistake::at(token.at, format!("malformed character constant: {}", token.text))
            })?,
            TokenKind::Quoted | TokenKind::Raw => ExprKind::Text(unquoted(&token)?),
            TokenKind::Open => {
                self.enter(token.at)?;
                self.at += 1;
                let pipe = self.pipe("parenthesized pipeline", TokenKind::Close)?;
                self.depth -= 1;
                span.end = self.tokens[self.at - 1].at + 1;
                return Ok(Some(Expr { span, kind: ExprKind::Pipe(Box::new(pipe)) }));
            }
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(Expr { span, kind }))
    }

    fn known(&self, variable: &str, at: usize) -> Result<(), Mistake> {
        if self.variables.iter().any(|known| known == variable) {
            return Ok(());
        }
        Err(Mistake::at(at, format!("undefined variable {variable:?}")))
    }

    fn enter(&mut self, at: usize) -> Result<(), Mistake> {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(Mistake::at(at, format!("nested deeper than {NESTING_MAX}")));
        }
        Ok(())
    }

    /// The end of a span without the blanks before it.
    fn trimmed(&self, start: usize, end: usize) -> usize {
        start + self.source[start..end.max(start)].trim_end().len()
    }

    fn next(&mut self) -> Token<'s> {
        let token = self.tokens[self.at];
        if token.kind != TokenKind::End {
            self.at += 1;
        }
        token
    }

    fn skip_space(&mut self) {
        while self.tokens[self.at].kind == TokenKind::Space {
            self.at += 1;
        }
    }

    fn next_word(&mut self) -> Token<'s> {
        self.skip_space();
        self.next()
    }

    /// The next token that is no blank; nothing is read.
    fn peek_word(&self) -> Token<'s> {
        let rest = &self.tokens[self.at..];
        *rest.iter().find(|token| token.kind != TokenKind::Space).unwrap_or(&rest[0])
    }

    fn expect(&mut self, kind: TokenKind, context: &str) -> Result<Token<'s>, Mistake> {
        let token = self.next_word();
        if token.kind == kind { Ok(token) } else { Err(unexpected(&token, context)) }
    }
}

/// Whether a word is a value that takes no arguments.
fn is_plain(kind: &ExprKind) -> bool {
    matches!(
        kind,
        ExprKind::Dot
            | ExprKind::Nil
            | ExprKind::Bool(_)
            | ExprKind::Int(_)
            | ExprKind::Huge
            | ExprKind::Float(_)
            | ExprKind::Text(_)
    )
}

fn unquoted(token: &Token<'_>) -> Result<Vec<u8>, Mistake> {
    literal::text(token.text).ok_or_else(|| Mistake::at(token.at, format!("invalid syntax: {}", token.text)))
}

fn unexpected(token: &Token<'_>, context: &str) -> Mistake {
    let shown = match token.kind {
        TokenKind::End => "EOF".to_owned(),
        TokenKind::Ident if KEYWORDS.contains(&token.text) => format!("<{}>", token.text),
        _ => format!("{:?}", token.text),
    };
    Mistake::at(token.at, format!("unexpected {shown} in {context}"))
}
