//! A template as a tree.

use std::ops::Range;

/// Nodes in order.
#[derive(Debug, Default)]
pub struct Block {
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// One piece of a template.
#[derive(Debug)]
pub enum Node {
    /// Text that is written as it stands: a part of the source.
    Text(Range<usize>),
    /// A pipeline whose value is written, unless it declares a variable.
    Action(Box<Pipe>),
    /// `if`.
    If(Box<Branch>),
    /// `with`.
    With(Box<Branch>),
    /// `range`.
    Range(Box<Branch>),
    /// `template`.
    Template(Box<Invocation>),
    /// `break`.
    Break,
    /// `continue`.
    Continue,
}

/// The execution of a defined template.
#[derive(Debug)]
pub struct Invocation {
    /// Where it stands.
    pub span: Range<usize>,
    /// Which template.
    pub name: String,
    /// What becomes its cursor.
    pub pipe: Option<Pipe>,
}

/// A pipeline that decides, and what it decides about.
#[derive(Debug)]
pub struct Branch {
    /// The pipeline.
    pub pipe: Pipe,
    /// When it holds.
    pub body: Block,
    /// When it does not.
    pub otherwise: Option<Block>,
}

/// Commands, each given the value of the one before.
#[derive(Debug)]
pub struct Pipe {
    /// Where it stands.
    pub span: Range<usize>,
    /// Variables that get its value, with their `$`.
    pub variables: Vec<String>,
    /// Whether the variables are there already.
    pub assigns: bool,
    /// The commands.
    pub commands: Vec<Command>,
}

/// A function, field or value with arguments.
#[derive(Debug)]
pub struct Command {
    /// Where it stands.
    pub span: Range<usize>,
    /// The first is what is called.
    pub words: Vec<Expr>,
}

/// One word of a command.
#[derive(Debug)]
pub struct Expr {
    /// Where it stands.
    pub span: Range<usize>,
    /// What it is.
    pub kind: ExprKind,
}

/// What a word is.
#[derive(Debug)]
pub enum ExprKind {
    /// The cursor.
    Dot,
    /// `nil`.
    Nil,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number too large for one with a sign.
    Huge,
    /// A floating-point number.
    Float(f64),
    /// Text.
    Text(Vec<u8>),
    /// Fields of the cursor.
    Field(Vec<String>),
    /// A variable with its `$`, and fields of it.
    Variable(String, Vec<String>),
    /// A function.
    Function(String),
    /// A pipeline in parentheses.
    Pipe(Box<Pipe>),
    /// Fields of something else.
    Chain(Box<Expr>, Vec<String>),
}

impl Block {
    /// Whether it writes nothing but blanks.
    pub fn is_blank(&self, source: &str) -> bool {
        self.nodes.iter().all(|node| match node {
            Node::Text(range) => source[range.clone()].trim().is_empty(),
            _ => false,
        })
    }
}
