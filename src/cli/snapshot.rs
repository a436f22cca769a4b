//! `snapshot save`, `snapshot restore`, `snapshot inspect`, `snapshot verify`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use super::client::Client;
use super::transport::error_text;
use super::usage::Command;
use super::{Group, Outcome, Program};
use crate::archive::{self, Contents, Origin};
use crate::config::flags::Parsed;
use crate::store::{Section, StateBuilder};

/// The commands of `snapshot`.
pub const GROUP: Group = Group {
    name: "snapshot",
    summary: "Saves, restores and inspects snapshots of the servers' state",
    programs: &[INSPECT, RESTORE, SAVE, VERIFY],
};

const INSPECT: Program = Program {
    command: Command {
        name: "inspect",
        summary: "Displays information about a snapshot file",
        usage: "snapshot inspect [options] FILE",
        text: "Checks a snapshot file and shows what it says of itself and how much each table takes. Files that Consul saved are checked and shown too, without their tables.",
    },
    flags: &[],
    run: inspect,
};

const RESTORE: Program = Program {
    command: Command {
        name: "restore",
        summary: "Restores a snapshot of the servers' state",
        usage: "snapshot restore [options] FILE",
        text: "Replaces the catalog, the keys and all else that the servers keep by what a snapshot file holds, on all servers at once. The servers themselves stay as they are. A damaged file changes nothing.",
    },
    flags: &[],
    run: restore,
};

const SAVE: Program = Program {
    command: Command {
        name: "save",
        summary: "Saves a snapshot of the servers' state",
        usage: "snapshot save [options] FILE",
        text: "Writes the state of the servers at one moment to a file and checks what was written. With -stale any server may give it, also while there is no leader.",
    },
    flags: &[],
    run: save,
};

const VERIFY: Program = Program {
    command: Command {
        name: "verify",
        summary: "Checks a snapshot file",
        usage: "snapshot verify [options] FILE",
        text: "Checks every byte of a snapshot file: that it is whole, undamaged, and can be restored by servers of this version.",
    },
    flags: &[],
    run: verify,
};

/// The largest file that `restore` sends, bytes: what an agent takes.
const FILE_LENGTH_MAX: u64 = crate::edge::http::limits::ARCHIVE_MAX as u64;

/// Blanks between columns, as Consul's.
const GAP: usize = 6;

/// `snapshot save`.
fn save(flags: &Parsed) -> Outcome {
    let file = file(flags)?;
    let client = Client::new(flags).map_err(|why| format!("Error connecting to Consul agent: {why}"))?;
    let failed = |why: String| format!("Error saving snapshot: {why}");
    let (mut incoming, _) = client.open("GET", "/v1/snapshot", &[], &[]).map_err(failed)?;
    if incoming.status != 200 {
        let (status, body) = (incoming.status, incoming.bytes().map_err(failed)?);
        let refusal = super::client::Reply { status, body }.ok();
        return Err(failed(refusal.err().unwrap_or_default()));
    }
    // What is not whole and checked never has the name that was asked for.
    let unverified = format!("{file}.unverified");
    let saved = write(&unverified, &mut incoming)
        .map_err(|why| format!("Error writing unverified snapshot file: {why}"))
        .and_then(|()| load(&unverified, "Error opening snapshot file for verify"))
        .and_then(|opened| {
            read(opened, &mut |_| Ok(())).map_err(|why| format!("Error verifying snapshot file: {why}"))
        })
        .and_then(|contents| {
            let renamed = fs::rename(&unverified, file).and_then(|()| sync_folder(file));
            let failed =
                |e: io::Error| format!("Error renaming {unverified:?} to {file:?}: {}", error_text(&e));
            renamed.map(|()| contents).map_err(failed)
        });
    if saved.is_err() {
        // It was to be removed whether or not it was there.
        let _ = fs::remove_file(&unverified);
    }
    println!("Saved and verified snapshot to index {}", saved?.meta.index);
    Ok(ExitCode::SUCCESS)
}

/// Writes a file that only its owner reads, durably.
fn write(path: &str, from: &mut impl Read) -> Result<(), String> {
    let failed = |e: io::Error| format!("open {path}: {}", error_text(&e));
    let mut options = fs::OpenOptions::new();
    let mut out = options.create(true).truncate(true).write(true).mode(0o600).open(path).map_err(failed)?;
    let copied = io::copy(from, &mut out).and_then(|_| out.sync_all());
    copied.map_err(|e| format!("write {path}: {}", error_text(&e)))
}

/// Makes a rename last.
fn sync_folder(file: &str) -> io::Result<()> {
    let folder = Path::new(file).parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// `snapshot restore`.
fn restore(flags: &Parsed) -> Outcome {
    let mut opened = load(file(flags)?, "Error opening snapshot file")?;
    let client = Client::new(flags).map_err(|why| format!("Error connecting to Consul agent: {why}"))?;
    let failed = |why: String| format!("Error restoring snapshot: {why}");
    let mut archive = Vec::new();
    let read = opened.by_ref().take(FILE_LENGTH_MAX + 1).read_to_end(&mut archive);
    read.map_err(|e| failed(error_text(&e)))?;
    if archive.len() as u64 > FILE_LENGTH_MAX {
        return Err(failed(format!(
            "the file is larger than the {FILE_LENGTH_MAX} bytes that an agent takes"
        )));
    }
    client.put("/v1/snapshot", &[], &archive).and_then(|reply| reply.ok()).map_err(failed)?;
    println!("Restored snapshot");
    Ok(ExitCode::SUCCESS)
}

/// `snapshot inspect`.
fn inspect(flags: &Parsed) -> Outcome {
    let opened = load(file(flags)?, "Error opening snapshot file")?;
    let mut tables: BTreeMap<&'static str, (usize, usize)> = BTreeMap::new();
    let contents = read(opened, &mut |section| {
        let table = tables.entry(section.table()).or_default();
        // Those of a later version have rows that cannot be counted here.
        table.0 += StateBuilder::check(section.kind, section.version, &section.bytes).unwrap_or_default();
        table.1 += section.bytes.len();
        Ok(())
    });
    let Contents { meta, .. } = contents.map_err(|why| format!("Error verifying snapshot: {why}"))?;
    let rows = [
        ["ID".into(), meta.id],
        ["Size".into(), meta.size.to_string()],
        ["Index".into(), meta.index.to_string()],
        ["Term".into(), meta.term.to_string()],
        ["Version".into(), meta.version.to_string()],
    ];
    println!("{}", columns(&rows));
    if !tables.is_empty() {
        println!("{}", columns(&by_size(tables)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Rows and bytes of the tables as later versions of Consul show them, the largest first.
fn by_size(tables: BTreeMap<&'static str, (usize, usize)>) -> Vec<[String; 3]> {
    let mut tables: Vec<(&str, (usize, usize))> = tables.into_iter().collect();
    tables.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
    let total = tables.iter().map(|(_, (_, bytes))| bytes).sum();
    let line = || ["----".to_owned(), "----".to_owned(), "----".to_owned()];
    let mut rows = vec![["Type".to_owned(), "Count".to_owned(), "Size".to_owned()], line()];
    rows.extend(
        tables.into_iter().map(|(name, (count, bytes))| [name.into(), count.to_string(), size(bytes)]),
    );
    rows.extend([line(), ["Total".to_owned(), String::new(), size(total)]]);
    rows
}

/// Bytes as Consul shows them: `1.2KB`.
fn size(bytes: usize) -> String {
    const UNITS: [&str; 4] = ["B", "KB", "MB", "GB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let number = format!("{value:.1}");
    format!("{}{}", number.strip_suffix(".0").unwrap_or(&number), UNITS[unit])
}

/// Columns as Go's `tabwriter` lays them out for Consul; the last one is not padded.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or(0) + GAP;
    let mut out = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            match at + 1 == N {
                true => out.push_str(cell),
                false => out.push_str(&format!("{cell:<0$}", width(at))),
            }
        }
        out.push('\n');
    }
    out
}

/// `snapshot verify`.
fn verify(flags: &Parsed) -> Outcome {
    let opened = load(file(flags)?, "Error opening snapshot file")?;
    let mut builder = StateBuilder::new();
    let contents = read(opened, &mut |section| {
        builder.section(section.kind, section.version, &section.bytes).map_err(|why| why.to_string())
    });
    let failed = |why: String| format!("Error verifying snapshot: {why}");
    let contents = contents.map_err(failed)?;
    match contents.origin.check() {
        Ok(()) => drop(builder.finish().map_err(|why| failed(why.to_string()))?),
        Err(_) if contents.origin == Origin::Consul => {
            println!(
                "Verified snapshot to index {} (saved by Consul: only Consul restores it)",
                contents.meta.index
            );
            return Ok(ExitCode::SUCCESS);
        }
        Err(why) => return Err(failed(why.to_string())),
    }
    println!("Verified snapshot to index {}", contents.meta.index);
    Ok(ExitCode::SUCCESS)
}

fn read(file: File, visit: &mut dyn FnMut(Section) -> Result<(), String>) -> Result<Contents, String> {
    archive::read(BufReader::new(file), visit).map_err(|why| why.to_string())
}

fn load(path: &str, what: &str) -> Result<File, String> {
    File::open(path).map_err(|e| format!("{what}: open {path}: {}", error_text(&e)))
}

/// The one argument.
fn file(flags: &Parsed) -> Result<&str, String> {
    match flags.args.as_slice() {
        [] => Err("Missing FILE argument".to_owned()),
        [file] => Ok(file),
        more => Err(format!("Too many arguments (expected 1, got {})", more.len())),
    }
}
