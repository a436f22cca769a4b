//! Templates: the language of Go's `text/template` with the functions of consul-template.
//!
//! The room is pure: no files, no clock, no environment, no network. What a template asks of the world goes through
//! the [`Host`] of its caller, and what it depends on comes back as a list of [`Dependency`]: who executes a template
//! asks for those that are missing and executes it again when it has them. [`Limits`] bound what a template may cost.

mod ast;
mod dependency;
mod error;
mod exec;
mod float;
mod format;
mod functions;
mod lex;
mod literal;
mod parse;
mod quote;
mod run;
mod sink;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use dependency::{Dependency, Question};
pub use error::Error;
pub use value::{Key, Keys, Kind, List, Map, Struct, StructKind, Text, Value};

use run::Run;

/// What a template asks of the world around it.
pub trait Host {
    /// A variable of the environment.
    fn environment(&self, name: &str) -> Option<String>;

    /// The time, in nanoseconds since 1970.
    fn unix_time_ns(&self) -> i128;

    /// What is known of a dependency: `None` when nothing yet, [`Value::Nil`] when it is known not to be there.
    fn recall(&mut self, dependency: &Dependency) -> Option<Value>;

    /// The path of a file that `file` may read. The error is for people.
    fn file_path(&self, path: &str) -> Result<String, String> {
        Ok(path.to_owned())
    }

    /// An address by go-sockaddr's template.
    fn socket_address(&self, _template: &str) -> Result<String, String> {
        Err("addresses of this host are not available here".to_owned())
    }

    /// What a program prints.
    fn plugin(&mut self, _program: &str, _args: &[String]) -> Result<String, String> {
        Err("plugins are not allowed: -allow-plugins permits them".to_owned())
    }

    /// Writes a file beside the template's own.
    fn write_file(&mut self, _file: &FileToWrite) -> Result<(), String> {
        Err("writing files is not possible here".to_owned())
    }

    /// Whether the execution is to end although it is not done. It is asked from time to time.
    fn is_ending(&self) -> bool {
        false
    }

    /// Shows text to whoever watches the program, not in the output.
    fn show(&mut self, _text: &str) {}
}

/// What `writeToFile` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileToWrite {
    /// Its path.
    pub path: String,
    /// Name or number of its owner; empty for the program's own.
    pub user: String,
    /// Name or number of its group; empty for the program's own.
    pub group: String,
    /// Its mode.
    pub mode: u32,
    /// Whether to write behind what is there.
    pub appends: bool,
    /// What to write.
    pub content: Vec<u8>,
}

/// How a template is read.
#[derive(Clone, Debug)]
pub struct Options {
    /// What opens an action.
    pub left: String,
    /// What closes it.
    pub right: String,
    /// Whether a key that a map does not have is an error.
    pub missing_key_is_error: bool,
    /// Functions that may not be called; `*` stands for any characters.
    pub denied: Vec<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            left: "{{".to_owned(),
            right: "}}".to_owned(),
            missing_key_is_error: false,
            denied: Vec::new(),
        }
    }
}

/// What one execution may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes written.
    pub output_max: usize,
    /// Bytes of one value.
    pub value_max: usize,
    /// Steps taken: nodes, calls, elements and, for large arguments and values, bytes.
    pub steps_max: u64,
    /// Bytes made: values and output, whether or not they are held to the end.
    pub bytes_max: u64,
    /// Levels of templates, blocks and parentheses within each other. A level takes up to 3 KiB of stack.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            output_max: 256 << 20,
            value_max: 64 << 20,
            steps_max: 500_000_000,
            bytes_max: 1 << 30,
            depth_max: 10_000,
        }
    }
}

/// A template that was read.
#[derive(Debug)]
pub struct Template {
    source: String,
    text: String,
    trees: parse::Trees,
    options: Options,
}

/// What an execution came to.
#[derive(Debug)]
pub struct Rendered {
    /// What was written, or why it ended. An error is no error yet while something is missing.
    pub output: Result<Vec<u8>, Box<Error>>,
    /// All that was asked for.
    pub used: BTreeSet<Dependency>,
    /// What of it is not known yet: the output is not to be used.
    pub missing: BTreeSet<Dependency>,
}

impl Template {
    /// Reads a template. `source` names it in errors.
    pub fn parse(source: &str, text: &str, options: Options) -> Result<Template, Box<Error>> {
        let known = |name: &str| functions::find(name).is_some() || exec::is_special(name);
        let delimiters = (options.left.as_str(), options.right.as_str());
        if delimiters.0.is_empty() || delimiters.1.is_empty() {
            let mistake = error::Mistake::at(0, "a delimiter is empty");
            return Err(Box::new(Error::new(source, text, mistake)));
        }
        let trees = parse::parse(text, delimiters, &known)
            .map_err(|mistake| Box::new(Error::new(source, text, mistake)))?;
        Ok(Template { source: source.to_owned(), text: text.to_owned(), trees, options })
    }

    /// Executes it.
    pub fn execute(&self, host: &mut dyn Host, limits: Limits) -> Rendered {
        let mut run = Run::new(host, limits);
        let output = exec::execute(self, &mut run);
        // It may hold itself, and would stay for ever.
        let held = run.scratch.take();
        drop(held);
        Rendered { output, used: run.used, missing: run.missing }
    }

    /// The name it was read under.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// A time, given in nanoseconds since 1970, as a layout of Go shows it, in UTC.
pub fn time_text(unix_time_ns: i128, layout: &str) -> String {
    functions::time_text(unix_time_ns, layout)
}
