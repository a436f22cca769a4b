//! Servers that agents under test talk to: an HTTP target for checks and a DNS recursor for `golden.example`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{dns, ports};

/// How often an idle stub looks whether it should stop.
const STOP_POLL: Duration = Duration::from_millis(100);
const BODY_MAX: usize = 1 << 20;
const RECORD_TTL: u32 = 77;
/// What of a reply's records goes into a UDP packet without truncation.
const UDP_RECORD_BYTES_MAX: usize = 460;
const UDP_RECORDS_TRUNCATED: usize = 10;

/// All stubs of one environment; they stop when dropped.
pub struct Stubs {
    pub http: u16,
    pub dns: u16,
    /// A port on which nothing listens.
    pub closed: u16,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stubs {
    pub fn start() -> io::Result<Stubs> {
        let stop = Arc::new(AtomicBool::new(false));
        let http = TcpListener::bind("127.0.0.1:0")?;
        let http_port = http.local_addr()?.port();
        let dns_port = ports::free_port();
        let udp = UdpSocket::bind(("127.0.0.1", dns_port))?;
        let tcp = TcpListener::bind(("127.0.0.1", dns_port))?;
        let threads = vec![
            serve(http, stop.clone(), serve_http),
            serve(tcp, stop.clone(), serve_dns_tcp),
            serve_dns_udp(udp, stop.clone()),
        ];
        Ok(Stubs { http: http_port, dns: dns_port, closed: ports::free_port(), stop, threads })
    }
}

impl Drop for Stubs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A connection is what wakes an acceptor.
        let _ = TcpStream::connect(("127.0.0.1", self.http));
        let _ = TcpStream::connect(("127.0.0.1", self.dns));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(
    listener: TcpListener,
    stop: Arc<AtomicBool>,
    connection: fn(TcpStream) -> io::Result<()>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if let Ok(stream) = stream {
                std::thread::spawn(move || connection(stream));
            }
        }
    })
}

fn serve_http(stream: TcpStream) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let Some((method, path, golden, body)) = read_request(&mut reader)? else { return Ok(()) };
        let (status, location, body) = http_answer(&method, &path, &golden, &body);
        let mut reply = format!("HTTP/1.1 {status} {}\r\nContent-Length: {}\r\n", reason(status), body.len());
        if let Some(location) = location {
            reply += &format!("Location: {location}\r\n");
        }
        reply += "\r\n";
        let mut bytes = reply.into_bytes();
        if method != "HEAD" {
            bytes.extend(body);
        }
        writer.write_all(&bytes)?;
    }
}

/// The reason phrase that Go's library and Python's give a status: checks repeat it in their output.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

fn http_answer(method: &str, path: &str, golden: &str, body: &[u8]) -> (u16, Option<&'static str>, Vec<u8>) {
    let word = path.split('?').next().unwrap_or_default().trim_matches('/');
    match word {
        "echo" => {
            let body: String = body.iter().map(|&byte| char::from(byte)).collect();
            (200, None, format!("{method} {golden} {body}").into_bytes())
        }
        "slow" => {
            std::thread::sleep(Duration::from_secs(2));
            (200, None, b"hello from stub".to_vec())
        }
        "big" => (200, None, b"0123456789".repeat(1000)),
        "redirect" => (302, Some("/200"), Vec::new()),
        _ => match word.parse() {
            Ok(status) => (status, None, format!("code {word}").into_bytes()),
            Err(_) => (200, None, b"hello from stub".to_vec()),
        },
    }
}

/// Method, path, the `X-Golden` header and the body; None at the end of the connection.
#[allow(clippy::type_complexity)]
fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<Option<(String, String, String, Vec<u8>)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let (mut golden, mut length) = (String::from("-"), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "x-golden" => golden = value.trim().to_owned(),
            "content-length" => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = vec![0; length.min(BODY_MAX)];
    reader.read_exact(&mut body)?;
    Ok(Some((method, path, golden, body)))
}

fn serve_dns_udp(socket: UdpSocket, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    socket.set_read_timeout(Some(STOP_POLL)).expect("a timeout above zero");
    std::thread::spawn(move || {
        let mut packet = [0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((length, from)) = socket.recv_from(&mut packet)
                && let Some(reply) = dns_answer(&packet[..length], false)
            {
                send_back(&socket, &reply, from);
            }
        }
    })
}

fn send_back(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    let _ = socket.send_to(reply, to);
}

fn serve_dns_tcp(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut packet = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut packet)?;
    if let Some(reply) = dns_answer(&packet, true) {
        let mut framed = (reply.len() as u16).to_be_bytes().to_vec();
        framed.extend(reply);
        stream.write_all(&framed)?;
    }
    Ok(())
}

/// The records of a name and type of the stub's zone: owner, type, data. None: the name does not exist.
#[allow(clippy::type_complexity)]
fn zone(name: &str, kind: &str) -> Option<Vec<(Option<&'static str>, &'static str, Vec<u8>)>> {
    let a = |last: u8| Ipv4Addr::new(198, 51, 100, last).octets().to_vec();
    let www = "www.golden.example.";
    Some(match (name, kind) {
        ("www.golden.example.", "A") => vec![(None, "A", a(7))],
        ("www.golden.example.", "AAAA") => {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
            vec![(None, "AAAA", address.octets().to_vec())]
        }
        ("alias.golden.example.", "A") => {
            vec![(None, "CNAME", dns::wire_name(www)), (Some(www), "A", a(7))]
        }
        ("many.golden.example.", "A") => (1..=40).map(|last| (None, "A", a(last))).collect(),
        ("txt.golden.example.", "TXT") => vec![(None, "TXT", b"\x09stub text".to_vec())],
        ("7.100.51.198.in-addr.arpa.", "PTR") => vec![(None, "PTR", dns::wire_name(www))],
        (
            "www.golden.example."
            | "alias.golden.example."
            | "many.golden.example."
            | "txt.golden.example."
            | "7.100.51.198.in-addr.arpa.",
            _,
        ) => Vec::new(),
        _ => return None,
    })
}

fn dns_answer(packet: &[u8], tcp: bool) -> Option<Vec<u8>> {
    let question_end = {
        let mut at = 12;
        while *packet.get(at)? != 0 {
            at += usize::from(packet[at]) + 1;
        }
        at + 5
    };
    let question = packet.get(12..question_end)?;
    // The message parser reads the question alone when the counts say that there is nothing else.
    let mut bare = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bare.extend(question);
    let parsed = dns::Message::parse(&bare).ok()?;
    let mut words = parsed.question[0].split(' ');
    let name = words.next()?.to_owned();
    let kind = words.nth(1)?.to_owned();
    let lower = name.to_lowercase();
    let (rcode, rows) = match lower.split('.').next()? {
        "servfail" => (2, Vec::new()),
        "refused" => (5, Vec::new()),
        "silent" => return None,
        _ => zone(&lower, &kind).map_or((3, Vec::new()), |rows| (0, rows)),
    };
    let mut rows: Vec<Vec<u8>> = rows
        .into_iter()
        .map(|(owner, kind, data)| {
            let mut row = dns::wire_name(owner.unwrap_or(&name));
            row.extend(dns::type_number(kind).to_be_bytes());
            row.extend(1_u16.to_be_bytes());
            row.extend(RECORD_TTL.to_be_bytes());
            row.extend((data.len() as u16).to_be_bytes());
            row.extend(data);
            row
        })
        .collect();
    let mut flags = 0x8180 | rcode;
    if !tcp && rows.iter().map(Vec::len).sum::<usize>() > UDP_RECORD_BYTES_MAX {
        rows.truncate(UDP_RECORDS_TRUNCATED);
        flags |= 0x200;
    }
    let mut reply = packet[..2].to_vec();
    for word in [flags, 1, rows.len() as u16, 0, 0] {
        reply.extend(word.to_be_bytes());
    }
    reply.extend(question);
    reply.extend(rows.concat());
    Some(reply)
}
