//! What every command shares on its command line: help texts and the parsing of flags.

use std::process::ExitCode;

use crate::config::flags::{self, Flag, FlagError, FlagKind, Parsed};

/// How a command presents itself.
#[derive(Clone, Copy)]
pub struct Command {
    /// Words that name it (`kv get`).
    pub name: &'static str,
    /// One line for the list of commands.
    pub summary: &'static str,
    /// The command line after the program's name.
    pub usage: &'static str,
    /// What it does; lines are wrapped when shown.
    pub text: &'static str,
}

/// Columns of help texts.
const WIDTH: usize = 72;

/// Parses a command's flags; help and mistakes are shown here and end in an exit code.
pub fn parse(command: &Command, own: &[Flag], args: &[String]) -> Result<Parsed, ExitCode> {
    match flags::parse(own, args) {
        Ok(parsed) => Ok(parsed),
        Err(FlagError::Help) => {
            print!("{}", help(command, own));
            Err(ExitCode::SUCCESS)
        }
        Err(FlagError::Mistake(text)) => {
            eprintln!("{text}");
            eprint!("{}", help(command, own));
            Err(ExitCode::FAILURE)
        }
    }
}

/// The name the program was started under.
pub fn program() -> String {
    let path = std::env::args().next().unwrap_or_default();
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("muster").to_owned()
}

/// The help text of a command.
pub fn help(command: &Command, own: &[Flag]) -> String {
    let mut out = format!("Usage: {} {}\n\n{}\n", program(), command.usage, wrapped(command.text, "  "));
    let is_shared = |flag: &&Flag| super::client::FLAGS.iter().any(|shared| shared.name == flag.name);
    let (shared, rest): (Vec<&Flag>, Vec<&Flag>) = own.iter().partition(is_shared);
    for (title, mut group) in [("HTTP API Options", shared), ("Command Options", rest)] {
        if group.is_empty() {
            continue;
        }
        group.sort_by_key(|flag| flag.name);
        out.push_str(&format!("{title}\n\n"));
        for flag in group {
            let value = if flag.kind == FlagKind::Bool { "" } else { "=<value>" };
            out.push_str(&format!("  -{}{value}\n{}\n", flag.name, wrapped(flag.help, "     ")));
        }
    }
    out
}

/// Wraps words to the width, every line after `indent`; empty lines separate paragraphs.
fn wrapped(text: &str, indent: &str) -> String {
    let mut out = String::new();
    for paragraph in text.split("\n\n") {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && indent.len() + line.len() + 1 + word.len() > WIDTH {
                out.push_str(&format!("{indent}{line}\n"));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        out.push_str(&format!("{indent}{line}\n\n"));
    }
    out.truncate(out.len() - 1);
    out
}
