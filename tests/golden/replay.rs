//! Replays the cases of an area and reports what differs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::case::{self, Body, Case, Dns, Http, Raw, Skipped, Step};
use super::env::Env;
use super::matching::{self, Bindings, Rules};
use super::support::http::{self, Reply, Request};
use super::support::{dns, ports, process};

const START_LIMIT: Duration = Duration::from_secs(40);
/// Of an environment whose cases are all known not to pass.
const START_LIMIT_SKIPPED: Duration = Duration::from_secs(8);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const AWAIT_LIMIT: Duration = Duration::from_secs(90);
const RAW_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const DNS_TIMEOUT: Duration = Duration::from_secs(5);
const LEAD_DEFAULT: Duration = Duration::from_millis(200);
const REASONS_SHOWN_MAX: usize = 8;

/// Replays every case of `area`, prints a summary, and panics when one does not behave as the lists say it should.
pub fn area(area: &str) {
    let mut report = Report::default();
    let skipped = if process::is_foreign() { BTreeMap::new() } else { case::skipped() };
    let environments = case::environments();
    let mut groups: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for case in case::cases(area) {
        assert_eq!(case.area, area, "{} is in the file of another area", case.name);
        if chosen(&case.name) {
            groups.entry(case.env.clone()).or_default().push(case);
        }
    }
    for (name, cases) in groups {
        group(&environments[&name], &cases, &skipped, &mut report);
    }
    report.conclude(area);
}

/// `MUSTER_GOLDEN_CASE=prefix` runs the cases whose name starts so.
fn chosen(name: &str) -> bool {
    std::env::var("MUSTER_GOLDEN_CASE").is_ok_and(|prefix| !name.starts_with(&prefix)).eq(&false)
}

/// `MUSTER_GOLDEN_SLACK=2` doubles upper bounds of time, for a machine that is busy with other things.
fn slack() -> f64 {
    std::env::var("MUSTER_GOLDEN_SLACK").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0)
}

#[derive(Default)]
struct Report {
    passed: usize,
    skipped: usize,
    failures: Vec<String>,
}

impl Report {
    fn add(&mut self, case: &Case, outcome: Result<(), Mismatch>, skipped: Option<&Skipped>) {
        let outcome = match (outcome, skipped) {
            (Err(Mismatch { step, why }), Some(known)) if step != known.step => {
                let place =
                    known.step.map_or("the start of its agents".into(), |step| format!("step {step}"));
                self.failures.push(format!("{} is known to differ at {place}, but\n{why}", case.name));
                return;
            }
            (outcome, _) => outcome.map_err(|mismatch| mismatch.why),
        };
        match (outcome, skipped) {
            (Ok(()), None) => self.passed += 1,
            (Ok(()), Some(_)) => {
                let name = &case.name;
                self.failures
                    .push(format!("{name} passes now: remove it from the list tests/golden/SKIPPED.txt"));
            }
            (Err(why), None) => self.failures.push(format!("{} [env {}]\n{why}", case.name, case.env)),
            (Err(why), Some(Skipped { reason, .. })) => {
                self.skipped += 1;
                if std::env::var_os("MUSTER_GOLDEN_VERBOSE").is_some() {
                    say(&format!("skipped {} ({reason})\n{why}", case.name));
                }
            }
        }
    }

    fn conclude(self, area: &str) {
        let Report { passed, skipped, failures } = self;
        say(&format!("golden {area:<14} {passed:3} passed {:3} failed {skipped:3} skipped", failures.len()));
        assert!(failures.is_empty(), "{} of area {area} differ:\n\n{}", failures.len(), failures.join("\n"));
    }
}

/// Straight to standard error: the test harness hides what a passing test prints.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn group(spec: &case::EnvSpec, cases: &[Case], skipped: &BTreeMap<String, Skipped>, report: &mut Report) {
    let all_skipped = cases.iter().all(|case| skipped.contains_key(&case.name));
    let limit = if all_skipped { START_LIMIT_SKIPPED } else { START_LIMIT };
    let mut env: Option<Env> = None;
    let mut refused: Option<String> = None;
    for case in cases {
        if env.is_none() && refused.is_none() {
            match Env::start(spec, limit).or_else(|_| Env::start(spec, limit)) {
                Ok(started) => env = Some(started),
                Err(why) => refused = Some(format!("  environment {} did not start: {why}", spec.name)),
            }
        }
        let outcome = match (&mut env, &refused) {
            (Some(env), _) => Replay::new(env).case(case),
            (None, why) => Err(Mismatch { step: None, why: why.clone().unwrap_or_default() }),
        };
        let dead = env.as_mut().map(Env::dead).unwrap_or_default();
        if outcome.is_err() || case.dirty || !dead.is_empty() {
            env = None;
        }
        let outcome = outcome.map_err(|Mismatch { step, why }| Mismatch {
            step,
            why: [vec![why], dead].concat().join("\n  "),
        });
        report.add(case, outcome, skipped.get(&case.name));
    }
}

/// Where a case differs, and how. No step: its agents did not start.
struct Mismatch {
    step: Option<usize>,
    why: String,
}

struct Waiting {
    line: String,
    reply: Receiver<io::Result<Reply>>,
}

/// One case on the agents of a running environment.
struct Replay<'a> {
    env: &'a mut Env,
    bindings: Bindings,
    waiting: BTreeMap<String, Waiting>,
}

impl Replay<'_> {
    fn new(env: &mut Env) -> Replay<'_> {
        let mut bindings = Bindings::new(env.variables.clone());
        bindings.commits_merge = env.registers_itself();
        Replay { env, bindings, waiting: BTreeMap::new() }
    }

    fn case(mut self, case: &Case) -> Result<(), Mismatch> {
        for (number, step) in case.steps.iter().enumerate() {
            let why = self.step(step);
            if !why.is_empty() {
                let mut text = format!("  step {}: {}", number + 1, self.line(step));
                for reason in why.iter().take(REASONS_SHOWN_MAX) {
                    let _ = write!(text, "\n     {reason}");
                }
                if why.len() > REASONS_SHOWN_MAX {
                    let _ = write!(text, "\n     ... and {} more", why.len() - REASONS_SHOWN_MAX);
                }
                return Err(Mismatch { step: Some(number + 1), why: text });
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Vec<String> {
        if let Some(ms) = step.sleep_ms {
            std::thread::sleep(Duration::from_millis(ms));
        } else if let Some(agent) = &step.agent_stop {
            self.env.stop_agent(agent, signal_number(step.signal.as_deref()));
        } else if let Some(agent) = &step.agent_start {
            if let Err(error) = self.env.start_agent(agent) {
                return vec![format!("starting {agent}: {error}")];
            }
        } else if let (Some(label), Some(http)) = (&step.start, &step.http) {
            self.start(label, http);
            std::thread::sleep(step.lead_ms.map_or(LEAD_DEFAULT, Duration::from_millis));
        } else if let Some(label) = &step.wait {
            return self.wait(label, step);
        } else {
            return self.retry(step);
        }
        Vec::new()
    }

    fn start(&mut self, label: &Value, http: &Http) {
        let (sender, reply) = channel();
        let (request, port) = (self.request(http), self.http_port(http));
        std::thread::spawn(move || sender.send(request.send(port)));
        let line = format!("await {}", self.http_line(http));
        self.waiting.insert(label.to_string(), Waiting { line, reply });
    }

    fn wait(&mut self, label: &Value, step: &Step) -> Vec<String> {
        let waiting = &self.waiting[&label.to_string()];
        match waiting.reply.recv_timeout(AWAIT_LIMIT) {
            Err(_) => vec!["no reply: still waiting".into()],
            Ok(Err(error)) => vec![format!("no reply: {error}")],
            Ok(Ok(reply)) => self.judge(step, &reply),
        }
    }

    /// Asks until the reply fits, at most as long as the step allows.
    fn retry(&mut self, step: &Step) -> Vec<String> {
        let limit = Duration::from_millis(step.retry_ms).mul_f64(slack());
        let start = Instant::now();
        loop {
            let before = self.bindings.clone();
            let why = self.attempt(step);
            if why.is_empty() || start.elapsed() >= limit {
                return why;
            }
            self.bindings = before;
            std::thread::sleep(RETRY_PAUSE);
        }
    }

    fn attempt(&mut self, step: &Step) -> Vec<String> {
        if let Some(http) = &step.http {
            match self.request(http).send(self.http_port(http)) {
                Ok(reply) => self.judge(step, &reply),
                Err(error) => vec![format!("no reply: {error}")],
            }
        } else if let Some(raw) = &step.raw {
            self.raw(raw, step).unwrap_or_else(|error| vec![format!("no reply: {error}")])
        } else if let Some(dns) = &step.dns {
            self.dns(dns, step)
        } else {
            vec!["a step of an unknown kind".into()]
        }
    }

    /// Compares an HTTP reply and the time it took.
    fn judge(&mut self, step: &Step, reply: &Reply) -> Vec<String> {
        let Some(expect) = &step.expect else { return vec!["a step without an expectation".into()] };
        let mut why = matching::match_reply(expect, reply, &mut self.bindings, Rules::from(step));
        if let Some((least, most)) = step.elapsed_ms {
            let ms = reply.elapsed.as_millis() as u64;
            if ms < least || ms as f64 > most as f64 * slack() {
                why.push(format!("time: want {least}..{most} ms, took {ms}"));
            }
        }
        why
    }

    fn raw(&mut self, raw: &Raw, step: &Step) -> io::Result<Vec<String>> {
        let Some(expect) = &step.expect else { return Ok(vec!["a step without an expectation".into()]) };
        let text = self.bindings.fill(&raw.text);
        let bytes: Vec<u8> = text.chars().map(|char| u8::try_from(char).expect("latin-1")).collect();
        let mut stream = TcpStream::connect(("127.0.0.1", self.env.port("a", "http")))?;
        stream.set_read_timeout(Some(RAW_TIMEOUT))?;
        stream.write_all(&bytes)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut replies = raw.methods.iter().map_while(|method| http::read_reply(&mut reader, method).ok());
        let mut why = Vec::new();
        for (number, want) in expect.replies.iter().enumerate() {
            match (want, replies.next()) {
                (None, None) => {}
                (None, Some(_)) => why.push(format!("reply {number}: want none")),
                (Some(_), None) => why.push(format!("reply {number}: none came")),
                (Some(want), Some(reply)) => {
                    let reasons = matching::match_reply(want, &reply, &mut self.bindings, Rules::from(step));
                    why.extend(reasons.into_iter().map(|reason| format!("reply {number}: {reason}")));
                }
            }
        }
        stream.set_read_timeout(Some(CLOSE_TIMEOUT))?;
        let closed = matches!(stream.read(&mut [0]), Ok(0));
        if closed != expect.closed {
            why.push(format!("connection closed afterwards: want {}, got {closed}", expect.closed));
        }
        Ok(why)
    }

    fn dns(&mut self, dns: &Dns, step: &Step) -> Vec<String> {
        let Some(expect) = &step.expect else { return vec!["a step without an expectation".into()] };
        let port = self.env.port(dns.agent.as_deref().unwrap_or("a"), "dns");
        let (packet, id) = match &dns.raw {
            Some(hex) => {
                let packet = dns::from_hex(&self.bindings.fill(hex));
                let id = packet.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes));
                (packet, id)
            }
            None => {
                let id = ports::random() as u16;
                (self.question(dns).encode(id), Some(id))
            }
        };
        let timeout = dns.timeout_ms.map_or(DNS_TIMEOUT, Duration::from_millis);
        let reply = dns::exchange(port, &packet, dns.transport.as_deref() == Some("tcp"), timeout);
        match reply.map(|bytes| dns::Message::parse(&bytes)) {
            Some(Err(why)) => vec![format!("bad DNS message: {why}")],
            Some(Ok(message)) => matching::match_dns(expect, Some(&message), &mut self.bindings, id),
            None => matching::match_dns(expect, None, &mut self.bindings, id),
        }
    }

    fn question(&self, dns: &Dns) -> dns::Question {
        let edns = dns.edns.as_ref().map(|edns| dns::Edns {
            size: edns.size.unwrap_or(4096),
            version: edns.version,
            dnssec_ok: edns.dnssec_ok,
            rcode_high: 0,
            options: edns.options.iter().map(|option| (option.code, dns::from_hex(&option.hex))).collect(),
        });
        dns::Question {
            name: self.bindings.fill(dns.name.as_deref().unwrap_or(".")),
            kind: dns::type_number(dns.kind.as_deref().unwrap_or("A")),
            class: dns::class_number(dns.class.as_deref().unwrap_or("IN")),
            rd: dns.rd.unwrap_or(true),
            cd: dns.cd,
            ad: dns.ad,
            opcode: dns.opcode,
            edns,
        }
    }

    fn http_port(&self, http: &Http) -> u16 {
        self.env.port(http.agent.as_deref().unwrap_or("a"), "http")
    }

    fn request(&self, http: &Http) -> Request {
        let fill = |text: &String| self.bindings.fill(text);
        Request {
            method: http.method.clone(),
            path: fill(&http.path),
            headers: http.headers.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
            body: http.body.as_ref().map(|body| self.body(body)).unwrap_or_default(),
            chunked: http.chunked,
        }
    }

    fn body(&self, body: &Body) -> Vec<u8> {
        match body {
            Body::Json(value) => self.bindings.fill_json(value).to_string().into_bytes(),
            Body::Text(text) => self.bindings.fill(text).into_bytes(),
            Body::B64(text) => BASE64_STANDARD.decode(text).expect("base64 in a recording"),
            Body::Fill(text, count) => text.repeat(*count).into_bytes(),
            Body::JsonFill(template, text, count) => {
                template.replace("@@", &text.repeat(*count)).into_bytes()
            }
        }
    }

    fn line(&self, step: &Step) -> String {
        if let Some(label) = &step.wait {
            return self.waiting[&label.to_string()].line.clone();
        }
        match (&step.http, &step.dns) {
            (Some(http), _) => self.http_line(http),
            (_, Some(Dns { raw: Some(hex), .. })) => format!("DNS raw {hex:.60}"),
            (_, Some(dns)) => {
                let name = self.bindings.fill(dns.name.as_deref().unwrap_or("."));
                format!("DNS {name} {}", dns.kind.as_deref().unwrap_or("A"))
            }
            _ => "raw HTTP".into(),
        }
    }

    fn http_line(&self, http: &Http) -> String {
        let agent = http.agent.as_ref().map(|agent| format!(" @{agent}")).unwrap_or_default();
        format!("{} {}{agent}", http.method, self.bindings.fill(&http.path))
    }
}

fn signal_number(name: Option<&str>) -> i32 {
    match name {
        None | Some("SIGKILL") => libc::SIGKILL,
        Some("SIGTERM") => libc::SIGTERM,
        Some("SIGINT") => libc::SIGINT,
        Some("SIGHUP") => libc::SIGHUP,
        Some(other) => panic!("no number for the signal {other}"),
    }
}
