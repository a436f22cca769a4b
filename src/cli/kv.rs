//! `kv get`, `kv put`, `kv delete`, `kv export`, `kv import`.

use std::io::{Read, Write};
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::client::{Client, Reply};
use super::transport::error_text;
use super::usage::Command;
use super::{Group, Outcome, Program, switch, value};
use crate::config::flags::{Flag, Parsed};
use crate::config::gojson;

/// The commands of `kv`.
pub const GROUP: Group = Group {
    name: "kv",
    summary: "Interact with the key-value store",
    programs: &[DELETE, EXPORT, GET, IMPORT, PUT],
};

/// Unsigned: checked by the commands.
const MODIFY_INDEX: Flag = value("modify-index", "ModifyIndex of the key, for -cas.");

const NAMESPACE: Flag = value("namespace", "Namespaces are not available; 'default' is accepted.");

const GET: Program = Program {
    command: Command {
        name: "get",
        summary: "Retrieves or lists data from the KV store",
        usage: "kv get [options] [KEY_OR_PREFIX]",
        text: "Retrieves the value of a key. A key that does not exist is an error; one without data prints nothing. With -recurse or -keys the argument is a prefix, and the whole store when left out.",
    },
    flags: &[
        switch("base64", "Base64 encode the value."),
        switch("detailed", "Show the key's indexes, flags and session besides its value."),
        switch("keys", "List the keys under the prefix, without values."),
        switch("recurse", "Show all keys under the prefix with their values."),
        value("separator", "With -keys: list up to this text after the prefix. The default is '/'."),
        NAMESPACE,
    ],
    run: get,
};

const PUT: Program = Program {
    command: Command {
        name: "put",
        summary: "Sets or updates data in the KV store",
        usage: "kv put [options] KEY [DATA]",
        text: "Writes data to a key. DATA is taken as it is, from a file when it is @FILE, from standard input when it is -, and is empty when left out.",
    },
    flags: &[
        switch("acquire", "Take the key's lock for -session."),
        switch("base64", "The data is base64 encoded."),
        switch("cas", "Write only if the key's ModifyIndex is still -modify-index."),
        value("flags", "Number stored with the key."),
        MODIFY_INDEX,
        switch("release", "Give the key's lock back, held by -session."),
        value("session", "Session of -acquire and -release."),
        NAMESPACE,
    ],
    run: put,
};

const DELETE: Program = Program {
    command: Command {
        name: "delete",
        summary: "Removes data from the KV store",
        usage: "kv delete [options] KEY_OR_PREFIX",
        text: "Removes a key, or with -recurse all keys under a prefix.",
    },
    flags: &[
        switch("cas", "Delete only if the key's ModifyIndex is still -modify-index."),
        MODIFY_INDEX,
        switch("recurse", "Delete all keys under the prefix."),
        NAMESPACE,
    ],
    run: delete,
};

const EXPORT: Program = Program {
    command: Command {
        name: "export",
        summary: "Exports a tree from the KV store as JSON",
        usage: "kv export [KEY_OR_PREFIX]",
        text: "Prints the keys under a prefix with their values as JSON, for 'kv import'.",
    },
    flags: &[NAMESPACE],
    run: export,
};

const IMPORT: Program = Program {
    command: Command {
        name: "import",
        summary: "Imports a tree stored as JSON to the KV store",
        usage: "kv import [DATA]",
        text: "Writes what 'kv export' printed. DATA is the JSON itself, @FILE, or - for standard input.",
    },
    flags: &[NAMESPACE],
    run: import,
};

/// One key as the API answers it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    flags: u64,
    value: Option<String>,
    session: Option<String>,
    lock_index: u64,
    create_index: u64,
    modify_index: u64,
}

/// One key as `export` writes it.
#[derive(Serialize, Deserialize)]
struct Exported {
    key: String,
    #[serde(default)]
    flags: u64,
    #[serde(default)]
    value: String,
}

impl Entry {
    /// The value's bytes.
    fn bytes(&self) -> Vec<u8> {
        self.value.as_deref().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default()
    }

    /// The value for a terminal, base64 encoded when asked.
    fn shown(&self, base64: bool) -> Vec<u8> {
        let bytes = self.bytes();
        if base64 { STANDARD.encode(bytes).into_bytes() } else { bytes }
    }

    /// All that is known of the key.
    fn detailed(&self, base64: bool) -> Vec<u8> {
        let session = self.session.clone().unwrap_or_else(|| "-".to_owned());
        let row = |name: &str, value: String| format!("{name:<17}{value}\n");
        let mut out = row("CreateIndex", self.create_index.to_string());
        out.push_str(&row("Flags", self.flags.to_string()));
        out.push_str(&row("Key", self.key.clone()));
        out.push_str(&row("LockIndex", self.lock_index.to_string()));
        out.push_str(&row("ModifyIndex", self.modify_index.to_string()));
        out.push_str(&row("Session", session));
        let mut out = out.into_bytes();
        out.extend_from_slice(format!("{:<17}", "Value").as_bytes());
        out.extend(self.shown(base64));
        out
    }
}

/// `kv get`.
fn get(flags: &Parsed) -> Outcome {
    let recurse = flags.is_on("recurse");
    let keys = flags.is_on("keys");
    let key = match flags.args.as_slice() {
        [] if recurse || keys => String::new(),
        [] => return Err("Error! Missing KEY argument".to_owned()),
        [key] => without_slash(key),
        more => return Err(format!("Too many arguments (expected 1, got {})", more.len())),
    };
    let client = Client::new(flags).map_err(connecting)?;
    let path = format!("/v1/kv/{key}");
    if keys {
        let separator = flags.value("separator").unwrap_or("/");
        let reply = client.get(&path, &[("keys", ""), ("separator", separator)]).map_err(querying)?;
        let keys: Vec<String> = found(reply)?.unwrap_or_default();
        keys.iter().for_each(|key| println!("{key}"));
        return Ok(ExitCode::SUCCESS);
    }
    let (base64, detailed) = (flags.is_on("base64"), flags.is_on("detailed"));
    let query: &[(&str, &str)] = if recurse { &[("recurse", "")] } else { &[] };
    let entries: Option<Vec<Entry>> = found(client.get(&path, query).map_err(querying)?)?;
    let mut out = Vec::new();
    match (entries, recurse) {
        (None, false) => return Err(format!("Error! No key exists at: {key}")),
        (None, true) => {}
        (Some(entries), false) => {
            let Some(entry) = entries.first() else { return Err(format!("Error! No key exists at: {key}")) };
            out = if detailed { entry.detailed(base64) } else { entry.shown(base64) };
            if detailed {
                trim_end(&mut out);
            }
            out.push(b'\n');
        }
        (Some(entries), true) => {
            for (i, entry) in entries.iter().enumerate() {
                if detailed {
                    if i > 0 {
                        out.push(b'\n');
                    }
                    out.extend(entry.detailed(base64));
                    trim_end(&mut out);
                } else {
                    out.extend_from_slice(entry.key.as_bytes());
                    out.push(b':');
                    out.extend(entry.shown(base64));
                }
                out.push(b'\n');
            }
        }
    }
    print_bytes(&out)
}

/// Cuts blanks off the end, as Consul does with what it lays out in columns.
fn trim_end(out: &mut Vec<u8>) {
    while out.last() == Some(&b' ') {
        out.pop();
    }
}

/// `kv put`.
fn put(flags: &Parsed) -> Outcome {
    let (key, data) = match flags.args.as_slice() {
        [] => return Err("Error! Missing KEY argument".to_owned()),
        [key] => (key, Vec::new()),
        [key, data] => (key, argument(data).map_err(|why| format!("Error! {why}"))?),
        more => return Err(format!("Error! Too many arguments (expected 1 or 2, got {})", more.len())),
    };
    let data = if flags.is_on("base64") {
        decoded(&data).map_err(|why| format!("Error! Cannot base 64 decode data: {why}"))?
    } else {
        data
    };
    let session = flags.value("session").unwrap_or_default();
    let (acquire, release) = (flags.is_on("acquire"), flags.is_on("release"));
    if (acquire || release) && session.is_empty() {
        return Err("Error! Missing -session (required with -acquire and -release)".to_owned());
    }
    let number = unsigned(flags, "flags")?.unwrap_or(0).to_string();
    let index = cas_index(flags)?;
    let mut query: Vec<(&str, &str)> = Vec::new();
    if number != "0" {
        query.push(("flags", &number));
    }
    let index = index.map(|n| n.to_string());
    match (&index, acquire, release) {
        (Some(index), _, _) => query.push(("cas", index)),
        (None, true, _) => query.push(("acquire", session)),
        (None, false, true) => query.push(("release", session)),
        _ => {}
    }
    let client = Client::new(flags).map_err(connecting)?;
    if key.starts_with('/') {
        return Err(format!("Error! Failed writing data: Invalid key. Key must not begin with a '/': {key}"));
    }
    let failed = |why| format!("Error! Failed writing data: {why}");
    let reply = client.put(&format!("/v1/kv/{key}"), &query, &data).map_err(failed)?;
    let written = is_true(&reply.ok().map_err(failed)?);
    match (written, index.is_some(), acquire, release) {
        (true, false, true, _) => println!("Success! Lock acquired on: {key}"),
        (true, false, false, true) => println!("Success! Lock released on: {key}"),
        (true, ..) => println!("Success! Data written to: {key}"),
        (false, true, ..) => return Err(format!("Error! Did not write to {key}: CAS failed")),
        (false, _, true, _) => return Err("Error! Did not acquire lock".to_owned()),
        (false, _, _, true) => return Err("Error! Did not release lock".to_owned()),
        (false, ..) => return Err(format!("Error! Did not write to {key}: ")),
    }
    Ok(ExitCode::SUCCESS)
}

/// `kv delete`.
fn delete(flags: &Parsed) -> Outcome {
    let recurse = flags.is_on("recurse");
    let key = match flags.args.as_slice() {
        [] if recurse => String::new(),
        [] => return Err("Error! Missing KEY argument".to_owned()),
        [key] => without_slash(key),
        more => return Err(format!("Too many arguments (expected 1, got {})", more.len())),
    };
    let cas = flags.is_on("cas");
    if cas && recurse {
        return Err("Cannot specify both -cas and -recurse!".to_owned());
    }
    let index = cas_index(flags)?;
    if !cas && unsigned(flags, "modify-index")?.unwrap_or(0) != 0 {
        return Err("Cannot specify -modify-index without -cas!".to_owned());
    }
    let client = Client::new(flags).map_err(connecting)?;
    let index = index.map(|n| n.to_string());
    let query: Vec<(&str, &str)> = match &index {
        Some(index) => vec![("cas", index)],
        None if recurse => vec![("recurse", "")],
        None => Vec::new(),
    };
    let failed = |why| match recurse {
        true => format!("Error! Did not delete prefix {key}: {why}"),
        false => format!("Error deleting key {key}: {why}"),
    };
    let reply = client.request("DELETE", &format!("/v1/kv/{key}"), &query, &[]).map_err(failed)?;
    if !is_true(&reply.ok().map_err(failed)?) && cas {
        return Err(format!("Error! Did not delete key {key}: CAS failed"));
    }
    if recurse {
        println!("Success! Deleted keys with prefix: {key}");
    } else {
        println!("Success! Deleted key: {key}");
    }
    Ok(ExitCode::SUCCESS)
}

/// `kv export`.
fn export(flags: &Parsed) -> Outcome {
    let key = match flags.args.as_slice() {
        [] => String::new(),
        [key] => without_slash(key),
        more => return Err(format!("Too many arguments (expected 1, got {})", more.len())),
    };
    let client = Client::new(flags).map_err(connecting)?;
    let reply = client.get(&format!("/v1/kv/{key}"), &[("recurse", "")]).map_err(querying)?;
    let entries: Vec<Entry> = found(reply)?.unwrap_or_default();
    let all: Vec<Exported> = entries
        .into_iter()
        .map(|e| Exported { value: e.value.unwrap_or_default(), key: e.key, flags: e.flags })
        .collect();
    let mut out = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    all.serialize(&mut serde_json::Serializer::with_formatter(&mut out, format))
        .map_err(|why| format!("Error exporting KV data: {why}"))?;
    out.push(b'\n');
    print_bytes(&out)
}

/// `kv import`.
fn import(flags: &Parsed) -> Outcome {
    let data = match flags.args.as_slice() {
        [] => return Err("Error! Missing DATA argument".to_owned()),
        [data] => argument(data).map_err(|why| format!("Error! {why}"))?,
        more => return Err(format!("Error! Too many arguments (expected 1, got {})", more.len())),
    };
    let client = Client::new(flags).map_err(connecting)?;
    let entries: Vec<Exported> = serde_json::from_slice(&data)
        .map_err(|why| format!("Cannot unmarshal data: {}", gojson::error_text(&data, &why)))?;
    for entry in entries {
        let key = &entry.key;
        let bytes = decoded(entry.value.as_bytes())
            .map_err(|why| format!("Error base 64 decoding value for key {key}: {why}"))?;
        let failed = |why| format!("Error! Failed writing data for key {key}: {why}");
        let number = entry.flags.to_string();
        let query: &[(&str, &str)] = if entry.flags == 0 { &[] } else { &[("flags", &number)] };
        client.put(&format!("/v1/kv/{key}"), query, &bytes).and_then(Reply::ok).map_err(failed)?;
        println!("Imported: {key}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Data of an argument: itself, `@FILE`, or `-` for standard input.
fn argument(text: &str) -> Result<Vec<u8>, String> {
    if let Some(path) = text.strip_prefix('@') {
        return std::fs::read(path)
            .map_err(|e| format!("Failed to read file: open {path}: {}", error_text(&e)));
    }
    if text == "-" {
        let mut out = Vec::new();
        std::io::stdin().read_to_end(&mut out).map_err(|e| format!("Failed to read stdin: {e}"))?;
        return Ok(out);
    }
    Ok(text.as_bytes().to_vec())
}

/// `-modify-index` when `-cas` is given; it may not be 0 then, as in Consul.
fn cas_index(flags: &Parsed) -> Result<Option<u64>, String> {
    if !flags.is_on("cas") {
        return Ok(None);
    }
    let index = unsigned(flags, "modify-index")?.filter(|index| *index > 0);
    index.map(Some).ok_or_else(|| "Must specify -modify-index with -cas!".to_owned())
}

/// Decodes base64; the error is Go's.
fn decoded(text: &[u8]) -> Result<Vec<u8>, String> {
    use base64::DecodeError::{InvalidByte, InvalidLastSymbol};
    STANDARD.decode(text).map_err(|why| {
        let at = match why {
            InvalidByte(at, _) | InvalidLastSymbol(at, _) => at,
            _ => text.len(),
        };
        format!("illegal base64 data at input byte {at}")
    })
}

/// An unsigned number of a flag.
fn unsigned(flags: &Parsed, name: &str) -> Result<Option<u64>, String> {
    let parse = |text: &str| {
        text.parse().map_err(|_| format!("invalid value {text:?} for flag -{name}: parse error"))
    };
    flags.value(name).map(parse).transpose()
}

/// A decoded 200; `None` for a 404.
fn found<T: for<'a> Deserialize<'a>>(reply: Reply) -> Result<Option<T>, String> {
    match reply.status {
        200 => serde_json::from_slice(&reply.body).map(Some).map_err(|why| querying(why.to_string())),
        404 => Ok(None),
        code => Err(querying(format!("Unexpected response code: {code}"))),
    }
}

/// Whether a body says `true`.
fn is_true(body: &[u8]) -> bool {
    body.trim_ascii() == b"true"
}

/// Keys have no slash in front; Consul drops one.
fn without_slash(key: &str) -> String {
    key.strip_prefix('/').unwrap_or(key).to_owned()
}

/// Writes bytes that need not be text.
fn print_bytes(bytes: &[u8]) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|e| format!("cannot write the output: {e}"))?;
    Ok(ExitCode::SUCCESS)
}

/// A failure before the first request.
pub fn connecting(why: String) -> String {
    format!("Error connecting to Consul agent: {why}")
}

/// A failure of a read.
fn querying(why: String) -> String {
    format!("Error querying Consul agent: {why}")
}
