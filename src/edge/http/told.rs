//! What the log says of requests, in Consul's words: each once its answer has left, at debug; and what failed here, at error.

use std::borrow::Cow;
use std::time::Instant;

use tracing::Level;

use super::cache::Group;
use super::connection::{Conn, Line};
use super::exchange::Response;
use super::park::ConnId;
use super::server::Server;
use crate::config::duration;
use crate::runtime::time;

/// As Consul's lines have it.
const TARGET: &str = "agent.http";
/// Lines about failed requests in a second, on each core. A cluster without a leader fails every one of them, and the
/// log would take what is needed to find a new one.
const ERRORS_PER_SECOND_MAX: u32 = 100;

/// A request as the log names it.
pub struct Asked {
    /// Its head's first line.
    line: Box<[u8]>,
    since: Instant,
}

/// Whether anybody wants a line for each request. Costs one load.
pub fn is_wanted() -> bool {
    tracing::enabled!(target: TARGET, Level::DEBUG)
}

/// The first line of a head.
pub fn first_line(head: &[u8]) -> &[u8] {
    head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default()
}

impl Asked {
    /// The request of these bytes, which begin with its head.
    pub fn new(head: &[u8], since: Instant) -> Box<Asked> {
        Box::new(Asked { line: first_line(head).into(), since })
    }

    fn method(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.line.split(|&byte| byte == b' ').next().unwrap_or_default())
    }

    fn url(&self) -> String {
        let target = self.line.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
        hidden(&String::from_utf8_lossy(target))
    }
}

/// A target without what would let its reader do what its sender may.
fn hidden(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let parts = query.split_inclusive(['&', ';']).map(|part| match part.strip_prefix("token=") {
        Some(token) => {
            let end = token.trim_start_matches(|c| !matches!(c, '&' | ';'));
            Cow::Owned(format!("token=<hidden>{end}"))
        }
        None => Cow::Borrowed(part),
    });
    format!("{path}?{}", parts.collect::<String>())
}

/// Who sent it: address and port, or what Go shows for the client of a Unix socket.
fn sender(conn: &Conn) -> String {
    match &conn.line {
        Line::Socket(socket) => socket.peer_address().map_or("@".to_owned(), |address| address.to_string()),
        Line::Stream(_) => "agent".to_owned(),
    }
}

/// Counts the lines about failures.
#[derive(Default)]
pub struct Errors {
    second: u64,
    told: u32,
    untold: u64,
}

impl Errors {
    /// Whether one more is told. Those that were not are told of together.
    fn admit(&mut self, second: u64) -> bool {
        if second != self.second {
            let untold = std::mem::take(self).untold;
            self.second = second;
            if untold > 0 {
                tracing::warn!(target: TARGET, count = untold, "more requests failed than are told of");
            }
        }
        let room = self.told < ERRORS_PER_SECOND_MAX;
        if room {
            self.told += 1
        } else {
            self.untold += 1
        }
        room
    }
}

/// An answer has left.
pub fn finished(conn: &mut Conn) {
    let Some(asked) = conn.asked.take() else { return };
    if is_wanted() {
        let took = time::now().saturating_duration_since(asked.since);
        tracing::debug!(
            target: TARGET,
            method = %asked.method(),
            url = %asked.url(),
            from = %sender(conn),
            latency = %duration::format(i64::try_from(took.as_nanos()).unwrap_or(i64::MAX)),
            "Request finished"
        );
    }
}

/// The client left before its answer came.
pub fn cancelled(conn: &Conn) {
    if let Some(asked) = conn.asked.as_ref().filter(|_| is_wanted()) {
        tracing::debug!(
            target: TARGET,
            method = %asked.method(),
            url = %asked.url(),
            from = %sender(conn),
            "Request cancelled"
        );
    }
}

impl Server {
    /// Names the request of a connection whose head is not at hand any more: as whoever asked that first did.
    pub(super) fn name_as(&mut self, id: ConnId, group: &Group) {
        let since = self.clock.now;
        // Agents tell of their clients' requests themselves.
        if let Some(conn) = self.conn(id).filter(|conn| !conn.is_stream()) {
            conn.asked.get_or_insert_with(|| Asked::new(&group.line, since));
        }
    }

    /// An answer says that something failed here.
    pub(super) fn tell_failure(&mut self, id: ConnId, response: &Response) {
        let second = self.clock.second();
        let Some(conn) = self.conn(id) else { return };
        let Some(asked) = conn.asked.take() else { return };
        if self.errors.admit(second)
            && let Some(conn) = self.conn(id)
        {
            let said = String::from_utf8_lossy(&response.body);
            let why = if said.is_empty() { response.status.to_string() } else { said.into_owned() };
            tracing::error!(
                target: TARGET,
                method = %asked.method(),
                url = %asked.url(),
                from = %sender(conn),
                error = why,
                "Request error"
            );
        }
        if let Some(conn) = self.conn(id) {
            conn.asked = Some(asked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_told() {
        for (target, shown) in [
            ("/v1/kv/a", "/v1/kv/a"),
            ("/v1/kv/a?token=secret", "/v1/kv/a?token=<hidden>"),
            ("/v1/kv/a?raw&token=secret&index=1", "/v1/kv/a?raw&token=<hidden>&index=1"),
            ("/v1/kv/a?token=&x;token=b", "/v1/kv/a?token=<hidden>&x;token=<hidden>"),
        ] {
            assert_eq!(hidden(target), shown);
        }
    }

    #[test]
    fn a_request_is_named_by_its_first_line() {
        let asked = Asked::new(b"PUT /v1/kv/a?token=x HTTP/1.1\r\nHost: h\r\n\r\n", time::now());
        assert_eq!((&*asked.method(), &*asked.url()), ("PUT", "/v1/kv/a?token=<hidden>"));
        let nothing = Asked::new(b"", time::now());
        assert_eq!((&*nothing.method(), &*nothing.url()), ("", ""));
    }

    #[test]
    fn failures_are_told_of_so_many_times_a_second() {
        let mut errors = Errors::default();
        let told = (0..3 * ERRORS_PER_SECOND_MAX).filter(|_| errors.admit(7)).count();
        assert_eq!(
            (told, errors.untold),
            (ERRORS_PER_SECOND_MAX as usize, 2 * u64::from(ERRORS_PER_SECOND_MAX))
        );
        assert!(errors.admit(8));
        assert_eq!((errors.told, errors.untold), (1, 0));
    }
}
