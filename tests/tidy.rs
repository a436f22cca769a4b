//! The house rules that no compiler checks: which room may use which, what only one room may touch, and what nobody
//! may write. Each failure names the replacement.
//!
//! The source is looked at without its comments, string literals and test modules, so that it may speak of what it
//! must not do. The canary tests plant every forbidden thing and require that it is found.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

const LINES_MAX: usize = 800;

/// A pattern that must not occur in some part of the source.
struct Ban {
    pattern: &'static str,
    /// Path prefixes in which it is forbidden; an empty one is everywhere.
    within: &'static [&'static str],
    /// Path prefixes that are free to use it.
    but_not: &'static [&'static str],
    instead: &'static str,
    /// A line that the pattern must find.
    canary: &'static str,
}

const AGENT: &[&str] = &["src/", "protocol/src/"];
const DETERMINISTIC: &[&str] = &["protocol/src/", "src/store/", "src/consensus/replica/", "src/template/"];
const RUNTIME: &[&str] = &["src/runtime/"];
/// Commands other than `agent` are plain blocking programs.
const RUNTIME_AND_CLI: &[&str] = &["src/runtime/", "src/cli/"];

const BANS: &[Ban] = &[
    Ban {
        pattern: r"\bglommio\b",
        within: AGENT,
        but_not: RUNTIME,
        instead: "a face of crate::runtime (task, time, net, mesh, blocking); only it knows the executor",
        canary: "use glommio::LocalExecutor;",
    },
    Ban {
        pattern: r"\blibc\b",
        within: AGENT,
        but_not: RUNTIME,
        instead: "a function of crate::runtime that wraps the system call",
        canary: "let pid = unsafe { libc::getpid() };",
    },
    Ban {
        pattern: r"\b(std::thread\b|thread::(spawn|sleep|scope|Builder|park))",
        within: AGENT,
        but_not: RUNTIME_AND_CLI,
        instead: "crate::runtime::task::spawn, time::sleep, or blocking::run for what blocks",
        canary: "thread::spawn(move || work());",
    },
    Ban {
        pattern: r"\b(std::os::fd|std::os::unix::io|RawFd|OwnedFd|BorrowedFd|AsRawFd|AsFd|FromRawFd|IntoRawFd)\b",
        within: AGENT,
        but_not: RUNTIME,
        instead: "the types of crate::runtime::net (Socket, Listener, Udp), which own their descriptors",
        canary: "fn steal(socket: RawFd) {}",
    },
    Ban {
        pattern: r"\b(Instant|SystemTime)::now\b",
        within: AGENT,
        but_not: RUNTIME_AND_CLI,
        instead: "crate::runtime::time::now() or unix_now(); cores get `now` as a value",
        canary: "let start = Instant::now();",
    },
    Ban {
        pattern: r"\b(TcpStream|TcpListener|UdpSocket|UnixStream|UnixListener|UnixDatagram|ToSocketAddrs)\b",
        within: AGENT,
        but_not: RUNTIME_AND_CLI,
        instead: "crate::runtime::net (Listener, Socket, Stream, Udp, resolve)",
        canary: "use std::net::{SocketAddr, TcpStream};",
    },
    Ban {
        pattern: r"\bprocess::(Command|Child|Stdio)\b",
        within: AGENT,
        but_not: RUNTIME_AND_CLI,
        instead: "crate::runtime::process::run, which bounds time and output and leaves no zombie",
        canary: "std::process::Command::new(program).spawn()",
    },
    Ban {
        pattern: r"\b(std::fs|fs::(read|write|File|OpenOptions|read_to_string|rename|remove_file|create_dir)|File::(open|create))\b",
        within: DETERMINISTIC,
        but_not: &[],
        instead: "bytes in and out; the files are the driver's (crate::runtime::fs)",
        canary: "let text = std::fs::read_to_string(path)?;",
    },
    Ban {
        pattern: r"\b(HashMap|HashSet|RandomState|DefaultHasher)\b",
        within: DETERMINISTIC,
        // Looks them up and never walks them; what it hands out is ordered.
        but_not: &["src/store/watchers.rs"],
        instead: "BTreeMap or imbl::OrdMap: the order of iteration must be the same on every server",
        canary: "let rows: HashMap<String, Row> = Default::default();",
    },
    Ban {
        pattern: r"\b(getrandom|rand::|Uuid::new_v4|thread_rng|crate::runtime)\b?",
        within: DETERMINISTIC,
        but_not: &[],
        instead: "a seeded generator or a value passed in: same inputs, same outputs, byte for byte",
        canary: "let id = Uuid::new_v4();",
    },
    Ban {
        pattern: r"\b(async (fn|move|\{)|\.await\b|std::sync::(Mutex|RwLock|mpsc)|static mut|std::env::)",
        within: DETERMINISTIC,
        but_not: &[],
        instead: "plain functions over values: cores never wait, lock, or look at the process around them",
        canary: "pub async fn apply(&mut self) {",
    },
    Ban {
        pattern: r"\b(getrandom::|rand::(rng|random)|Uuid::new_v4)",
        within: AGENT,
        but_not: RUNTIME,
        instead: "crate::runtime::random (seed, fill, uuid, Rng)",
        canary: "getrandom::fill(&mut key)",
    },
    Ban {
        pattern: r"\.unwrap\(\)",
        within: AGENT,
        but_not: &[],
        instead: "`?`, or expect(\"the invariant\") where nothing outside can make it fail",
        canary: "let port = text.parse::<u16>().unwrap();",
    },
    Ban {
        pattern: r"\b(todo|unimplemented|dbg)!",
        within: &[""],
        but_not: &[],
        instead: "the code itself, or an error that says what is not supported",
        canary: "todo!(\"later\")",
    },
    Ban {
        pattern: r"\b(unbounded|unbounded_channel|new_unbounded|mpsc::channel)\s*(::<[^>]*>)?\(",
        within: AGENT,
        but_not: &[],
        instead: "crate::runtime::mesh::channel(capacity): every queue has a named limit and a behaviour at it",
        canary: "let (sender, receiver) = mpsc::channel();",
    },
];

/// The rooms from left to right; a room uses only what stands with it or to its right.
const ROOMS: &[&[&str]] = &[
    &["cli"],
    &["node"],
    &["edge"],
    &["server", "agent"],
    &["watch"],
    &["upstream"],
    &["consensus", "membership", "health"],
    &["archive"],
    &["store"],
];
/// Rooms that stand beside: every room but `store` may use them. They use one another and what is named with them.
const BESIDE: &[(&str, &[&str])] = &[
    ("config", &["store"]),
    ("runtime", &[]),
    ("metrics", &[]),
    ("logs", &[]),
    ("limits", &[]),
    ("template", &[]),
];

/// A file of the project, as its path from the root and its code without comments, strings and tests.
struct Source {
    path: String,
    lines: usize,
    code: String,
}

struct Finding {
    path: String,
    line: usize,
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.path, self.line, self.text)
    }
}

#[test]
fn nothing_forbidden_is_written() {
    let findings: Vec<Finding> = SOURCES.iter().flat_map(forbidden).collect();
    report(&findings);
}

#[test]
fn rooms_use_only_what_is_to_their_right() {
    let findings: Vec<Finding> = SOURCES.iter().flat_map(wrong_arrows).collect();
    report(&findings);
}

#[test]
fn files_hold_one_concern() {
    let long = SOURCES.iter().filter(|source| source.lines > LINES_MAX);
    let findings: Vec<Finding> = long
        .map(|source| Finding {
            path: source.path.clone(),
            line: source.lines,
            text: format!("more than {LINES_MAX} lines; split it by concern"),
        })
        .collect();
    report(&findings);
}

#[test]
fn every_planted_violation_is_found() {
    for ban in BANS {
        let folder = ban.within[0];
        let plant = |code: String| Source::new(format!("{folder}canary.rs"), &code);
        let found = forbidden(&plant(format!("fn f() {{\n    {}\n}}\n", ban.canary)));
        assert!(found.iter().any(|finding| finding.line == 2), "not found: {}", ban.canary);

        let harmless = [
            format!("// {}\n", ban.canary),
            format!("/* {} */\n", ban.canary),
            format!("const TEXT: &str = r#\"{}\"#;\n", ban.canary),
            format!("#[cfg(test)]\nmod tests {{\n    fn f() {{ {} }}\n}}\n", ban.canary),
        ];
        // What not even a test may write is found there too.
        let harmless = &harmless[..if ban.within == [""] { 3 } else { 4 }];
        for code in harmless {
            assert!(forbidden(&plant(code.clone())).is_empty(), "found where it does no harm: {code}");
        }
    }
    for (path, code) in [
        ("src/store/canary.rs", "use crate::agent::Door;\n"),
        ("src/store/canary.rs", "use crate::config::Config;\n"),
        ("src/health/canary.rs", "fn f() { crate::edge::http::serve(); }\n"),
        ("src/agent/canary.rs", "use crate::{\n    runtime::time,\n    cli::Flags,\n};\n"),
        ("src/runtime/canary.rs", "use crate::store::State;\n"),
        ("protocol/src/canary.rs", "use muster::store::State;\n"),
    ] {
        assert!(!wrong_arrows(&Source::new(path.into(), code)).is_empty(), "not found in {path}: {code}");
    }
    for (path, code) in [
        ("src/edge/canary.rs", "use crate::{agent::Door, config::Config, store};\n"),
        ("src/health/canary.rs", "use crate::consensus::Proposals; // not crate::edge\n"),
        ("src/node.rs", "use crate::edge;\n"),
        ("src/runtime/canary.rs", "use crate::runtime::net;\n"),
    ] {
        let found = wrong_arrows(&Source::new(path.into(), code));
        assert!(found.is_empty(), "found in {path}: {}", found[0]);
    }
}

fn report(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(lines.is_empty(), "{} findings:\n{}", lines.len(), lines.join("\n"));
}

fn forbidden(source: &Source) -> Vec<Finding> {
    static PATTERNS: LazyLock<Vec<Regex>> =
        LazyLock::new(|| BANS.iter().map(|ban| Regex::new(ban.pattern).expect("a valid pattern")).collect());
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| source.path.starts_with(prefix));
    let bans = BANS.iter().zip(PATTERNS.iter());
    let bans = bans.filter(|(ban, _)| starts(ban.within) && !starts(ban.but_not));
    bans.flat_map(|(ban, pattern)| {
        pattern.find_iter(&source.code).map(|found| Finding {
            path: source.path.clone(),
            line: line_of(&source.code, found.start()),
            text: format!("`{}` is not for here; use {}", found.as_str().trim(), ban.instead),
        })
    })
    .collect()
}

fn wrong_arrows(source: &Source) -> Vec<Finding> {
    let finding = |at: usize, text: String| Finding {
        path: source.path.clone(),
        line: line_of(&source.code, at),
        text,
    };
    if source.path.starts_with("protocol/") {
        static AGENT_CRATE: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"\bmuster::").expect("a valid pattern"));
        let found = AGENT_CRATE.find_iter(&source.code);
        return found
            .map(|found| finding(found.start(), "protocol knows nothing of the agent".into()))
            .collect();
    }
    let Some(room) = source.path.strip_prefix("src/").and_then(|rest| rest.split(['/', '.']).next()) else {
        return Vec::new();
    };
    used_rooms(&source.code)
        .into_iter()
        .filter(|(_, used)| !may_use(room, used))
        .map(|(at, used)| {
            let text =
                format!("room `{room}` must not use `crate::{used}`: move what both need to the right");
            finding(at, text)
        })
        .collect()
}

fn may_use(room: &str, used: &str) -> bool {
    let place = |name: &str| ROOMS.iter().position(|rooms| rooms.contains(&name));
    let beside = |name: &str| BESIDE.iter().find(|(beside, _)| *beside == name).map(|(_, uses)| *uses);
    if room == used || matches!(room, "lib" | "main") {
        return true;
    }
    match (place(room), beside(room), place(used), beside(used)) {
        (Some(from), _, Some(to), _) => from <= to,
        (Some(_), _, _, Some(_)) => room != "store",
        (_, Some(uses), Some(_), _) => uses.contains(&used),
        (_, Some(_), _, Some(_)) => true,
        _ => true, // not a room
    }
}

/// The first names after `crate::`, also of groups `crate::{a, b::c}`, with their positions.
fn used_rooms(code: &str) -> Vec<(usize, String)> {
    static USE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\bcrate\s*::\s*(\{|[a-z_0-9]+)").expect("a valid pattern"));
    static NAME: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^\s*([a-z_0-9]+)").expect("a valid pattern"));
    let mut out = Vec::new();
    for found in USE.captures_iter(code) {
        let name = found.get(1).expect("the pattern has one group");
        if name.as_str() != "{" {
            out.push((name.start(), name.as_str().to_owned()));
            continue;
        }
        let (mut depth, mut item) = (1, name.end());
        for (at, char) in code[name.end()..].char_indices() {
            let at = name.end() + at;
            depth += i32::from(char == '{') - i32::from(char == '}');
            if depth == 0 || depth == 1 && char == ',' {
                if let Some(name) = NAME.captures(&code[item..at]) {
                    out.push((item, name[1].to_owned()));
                }
                item = at + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    out
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["src", "protocol/src", "tests", "benches", "tools"] {
        collect(&root.join(folder), &mut paths);
    }
    assert!(paths.len() > 20, "the source is not where it should be: {} files found", paths.len());
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).expect("a source file is readable UTF-8");
            let relative = path.strip_prefix(root).expect("collected under the root");
            Source::new(relative.display().to_string(), &text)
        })
        .collect()
});

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder of the project is readable").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, paths);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

impl Source {
    fn new(path: String, text: &str) -> Source {
        let code = without_comments_and_strings(text);
        // A file `tests.rs` is the body of a test module; the tests of the project may break the rules of its rooms.
        let is_test = path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/");
        let in_room = path.starts_with("src/") || path.starts_with("protocol/");
        let code = if is_test || !in_room { code } else { without_test_modules(&code) };
        let path = if is_test && in_room { format!("tests/{path}") } else { path };
        Source { path, lines: text.lines().count(), code }
    }
}

/// Blanks comments and the contents of literals; lines keep their numbers.
fn without_comments_and_strings(text: &str) -> String {
    static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
        let line_comment = r"//[^\n]*";
        let string = r#"b?"(?:[^"\\]|\\(?s:.))*""#;
        let char = r"'(?:[^'\\\n]|\\[^\n][^'\n]*)'";
        Regex::new(&format!("{line_comment}|/\\*|\\bb?r#*\"|{string}|{char}")).expect("a valid pattern")
    });
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = TOKEN.find_at(text, at) {
        out += &text[at..found.start()];
        let token = found.as_str();
        let end = if token == "/*" {
            end_of_comment(text, found.end())
        } else if token.contains('r')
            && token.ends_with('"')
            && !token.starts_with(['"', '\'', '/'])
            && !token.starts_with("b\"")
        {
            let close = format!("\"{}", "#".repeat(token.matches('#').count()));
            text[found.end()..].find(&close).map_or(text.len(), |length| found.end() + length + close.len())
        } else {
            found.end()
        };
        out.extend(text[found.start()..end].chars().filter(|char| *char == '\n'));
        if !token.starts_with('/') {
            out += "\"\"";
        }
        at = end;
    }
    out + &text[at..]
}

/// Comments nest.
fn end_of_comment(text: &str, start: usize) -> usize {
    let (mut depth, mut at) = (1, start);
    while depth > 0 {
        let open = text[at..].find("/*").unwrap_or(usize::MAX);
        let Some(close) = text[at..].find("*/") else { return text.len() };
        if open < close {
            depth += 1;
            at += open + 2;
        } else {
            depth -= 1;
            at += close + 2;
        }
    }
    at
}

/// Blanks the bodies of items under `#[cfg(test)]`.
fn without_test_modules(code: &str) -> String {
    static TEST: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"#\[cfg\((all\()?test\b[^\]]*\]").expect("a valid pattern"));
    let mut out = String::with_capacity(code.len());
    let mut at = 0;
    while let Some(found) = TEST.find_at(code, at) {
        out += &code[at..found.start()];
        let end = end_of_item(code, found.end());
        out.extend(code[found.start()..end].chars().filter(|char| *char == '\n'));
        at = end;
    }
    out + &code[at..]
}

/// The end of the item that starts at `start`: its closing brace, or its semicolon.
fn end_of_item(code: &str, start: usize) -> usize {
    let mut depth = 0;
    for (at, char) in code[start..].char_indices() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 && (char == '}' || char == ';') {
            return start + at + 1;
        }
    }
    code.len()
}
