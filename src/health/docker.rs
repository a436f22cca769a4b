//! Docker checks: a program run inside a container through the Docker engine's API on its Unix socket.

use std::path::PathBuf;
use std::time::Duration;

use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use serde_json::{Value, json};

use super::output::{Tail, script_text};
use super::plan::Finding;
use crate::runtime::net::{Endpoint, Stream};
use crate::store::model::Status;

/// Where the engine listens.
const SOCKET: &str = "/var/run/docker.sock";
/// Most bytes of an answer of the engine that is not check output.
const ANSWER_MAX: usize = 1024 * 1024;

/// Runs `args` in a container; exit code 0 passes, 1 warns.
pub async fn exec(
    container: &str,
    shell: &str,
    args: &[String],
    limit: Duration,
    output_max: usize,
) -> Finding {
    match exec_in(container, shell, args, limit, output_max).await {
        Ok(finding) => finding,
        Err(why) => Finding::critical(why),
    }
}

async fn exec_in(
    container: &str,
    shell: &str,
    args: &[String],
    limit: Duration,
    output_max: usize,
) -> Result<Finding, String> {
    // One argument is a line for the shell, as in Consul.
    let shell = if shell.is_empty() { "/bin/sh" } else { shell };
    let command: Vec<&str> = match args {
        [line] => vec![shell, "-c", line],
        args => args.iter().map(String::as_str).collect(),
    };
    let create = json!({"AttachStdout": true, "AttachStderr": true, "Cmd": command});
    let container = encode(container);
    let made = call("POST", &format!("/containers/{container}/exec"), &create, limit).await?;
    let made: Value = serde_json::from_slice(&made.body).map_err(|e| format!("docker exec: {e}"))?;
    let id = made.get("Id").and_then(Value::as_str).ok_or("docker exec: the engine named no exec")?;
    let start = json!({"Detach": false, "Tty": false});
    let ran = call("POST", &format!("/exec/{id}/start"), &start, limit).await?;
    let mut output = Tail::new(output_max);
    demultiplex(&ran.body, &mut output);
    let seen = call("GET", &format!("/exec/{id}/json"), &Value::Null, limit).await?;
    let seen: Value = serde_json::from_slice(&seen.body).map_err(|e| format!("docker exec: {e}"))?;
    let status = match seen.get("ExitCode").and_then(Value::as_i64) {
        Some(0) => Status::Passing,
        Some(1) => Status::Warning,
        _ => Status::Critical,
    };
    Ok(Finding { status, output: script_text(output.text().as_bytes(), output.total()) })
}

struct Answer {
    body: Vec<u8>,
}

/// One call on a connection of its own, HTTP/1.0 so that the end of the stream ends the body.
async fn call(method: &str, path: &str, body: &Value, limit: Duration) -> Result<Answer, String> {
    let endpoint = Endpoint::Unix(PathBuf::from(SOCKET));
    let failed = |what: &str, e: std::io::Error| {
        format!("docker: {what} {SOCKET}: {e}; is the engine running, and may the agent use its socket?")
    };
    let mut stream = Stream::connect(&endpoint, limit).await.map_err(|e| failed("dial unix", e))?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.map_err(|e| failed("write", e))?;
    let mut received = Vec::new();
    stream.take(ANSWER_MAX as u64).read_to_end(&mut received).await.map_err(|e| failed("read", e))?;
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = head.parse(&received) else {
        return Err("docker: the engine's answer is malformed".to_owned());
    };
    let code = head.code.unwrap_or_default();
    let body = received.split_off(length);
    if !(200..300).contains(&code) {
        return Err(format!("docker: {method} {path}: {code}: {}", String::from_utf8_lossy(&body).trim()));
    }
    Ok(Answer { body })
}

/// Output comes in frames: stream number, three zero bytes, length (big endian), bytes.
fn demultiplex(mut bytes: &[u8], out: &mut Tail) {
    while let [_stream, _, _, _, a, b, c, d, rest @ ..] = bytes {
        let length = (u32::from_be_bytes([*a, *b, *c, *d]) as usize).min(rest.len());
        let (frame, next) = rest.split_at(length);
        out.push(frame);
        bytes = next;
    }
}

/// Percent-encodes what does not belong in a path segment.
fn encode(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_joined() {
        let mut out = Tail::new(100);
        demultiplex(b"\x01\0\0\0\0\0\0\x02ab\x02\0\0\0\0\0\0\x01c", &mut out);
        assert_eq!(out.text(), "abc");
        let mut cut = Tail::new(100);
        demultiplex(b"\x01\0\0\0\0\0\0\xffab", &mut cut);
        assert_eq!(cut.text(), "ab");
    }

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(encode("web-1"), "web-1");
        assert_eq!(encode("../x y"), "..%2Fx%20y");
    }
}
