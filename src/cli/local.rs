//! `validate`, `version`, `keygen`: commands that ask nobody.

use std::path::PathBuf;
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::usage::Command;
use super::{CONSUL_VERSION, Outcome, Program, switch, value};
use crate::config::Sources;
use crate::config::flags::Parsed;
use crate::config::source::Format;
use crate::runtime::random;

/// `validate`.
pub const VALIDATE: Program = Program {
    command: Command {
        name: "validate",
        summary: "Validate config files/directories",
        usage: "validate [options] FILE_OR_DIRECTORY...",
        text: "Reads configuration files and folders as the agent would and says what is wrong with them. They must be the whole configuration of an agent.\n\nExits with 0 when the configuration is valid, with 1 when not.",
    },
    flags: &[
        value(
            "config-format",
            "Config files are in this format irrespective of their extension. Must be 'hcl' or 'json'.",
        ),
        switch("quiet", "Print nothing when the configuration is valid."),
    ],
    run: validate,
};

/// `version`.
pub const VERSION: Program = Program {
    command: Command {
        name: "version",
        summary: "Prints the Consul version",
        usage: "version [options]",
        text: "Prints the version of Consul that this program stands in for, and its own.",
    },
    flags: &[value("format", "Format of the output: 'pretty' (the default) or 'json'.")],
    run: version,
};

/// `keygen`.
pub const KEYGEN: Program = Program {
    command: Command {
        name: "keygen",
        summary: "Generates a new encryption key",
        usage: "keygen",
        text: "Prints a new key for gossip encryption, for the agent's 'encrypt' key.",
    },
    flags: &[],
    run: keygen,
};

/// Bytes of a gossip key.
const KEY_LEN: usize = 32;

/// `validate`.
fn validate(flags: &Parsed) -> Outcome {
    if flags.args.is_empty() {
        return Err("Must specify at least one config file or directory".to_owned());
    }
    let failed = |why: String| format!("Config validation failed: {why}");
    let format = match flags.value("config-format").filter(|f| !f.is_empty()) {
        None => None,
        Some(word) => Some(
            Format::parse(word)
                .ok_or_else(|| failed("-config-format must be either 'hcl' or 'json'".to_owned()))?,
        ),
    };
    let paths = flags.args.iter().map(PathBuf::from).collect();
    let config = Sources::from_files(paths, format).load().map_err(|why| failed(why.to_string()))?;
    if !flags.is_on("quiet") {
        config.warnings.iter().for_each(|warning| println!("{warning}"));
        if !config.unsupported_keys.is_empty() {
            println!("Accepted, but not there yet: {}", config.unsupported_keys.join(" "));
        }
        println!("Configuration is valid!");
    }
    Ok(ExitCode::SUCCESS)
}

/// `version`.
fn version(flags: &Parsed) -> Outcome {
    match flags.value("format").unwrap_or("pretty") {
        "json" => {
            let rpc = serde_json::json!({"Default": 2, "Min": 2, "Max": 3});
            let all = serde_json::json!({
                "Version": CONSUL_VERSION, "Revision": revision(), "Prerelease": "", "RPC": rpc,
            });
            println!("{all:#}");
        }
        "pretty" => print!("{}", version_text()),
        other => return Err(format!("Unknown format {other:?}: 'pretty' or 'json' were expected")),
    }
    Ok(ExitCode::SUCCESS)
}

/// What `version` prints: the lines that programs look for, and which program this really is.
pub fn version_text() -> String {
    format!(
        "Consul v{CONSUL_VERSION}\nRevision {}\nProtocol 2 spoken by default, understands 2 to 3 (agent will automatically use protocol >2 when speaking to compatible agents)\n\n",
        revision()
    )
}

/// Our own name and version, where Consul has its commit.
fn revision() -> String {
    format!("muster-{}", env!("CARGO_PKG_VERSION"))
}

/// `keygen`.
fn keygen(_: &Parsed) -> Outcome {
    let mut key = [0u8; KEY_LEN];
    random::fill(&mut key);
    println!("{}", STANDARD.encode(key));
    Ok(ExitCode::SUCCESS)
}
