//! The same load on a Consul server, through its HTTP catalog: nodes, services and checks as agents would have registered them, the same storm of
//! changes. What its agents' gossip would cost is not in it, so the comparison flatters it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent;
use crate::args::Args;
use crate::dns::Prober;
use crate::figures::{Part, Report, Samples};
use crate::http::Client;
use crate::meter::{self, Server};

/// Connections that put at a time.
const WRITERS: usize = 8;

/// Runs it.
///
/// # Errors
/// The server does not take what it is told.
pub fn run(url: &str, args: &Args) -> Result<Report, String> {
    let http = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut servers = vec![Server::new(&http)];
    let load = format!("the load of {} agents through the HTTP catalog of {url}", args.agents);
    let mut report = Report { load, servers: vec![servers[0].name()], parts: Vec::new() };
    let prober = Prober::start(args.dns.clone(), format!("{}.service.consul", agent::service(0)), 100);
    let mut part = |name: &str, doing: &mut dyn FnMut() -> Result<Samples, String>| {
        eprintln!("{name}");
        drop(prober.take());
        let before = meter::look(&mut servers);
        let samples = doing()?;
        let dns = prober.take();
        let spent = meter::between(&before, &meter::look(&mut servers));
        let samples = vec![("from a change until it is answered, s", samples)];
        report.parts.push(Part { name: name.to_owned(), spent, dns, samples, numbers: Vec::new() });
        Ok::<(), String>(())
    };
    let flips = |status: &'static str| {
        let one = move |n: u32| flip(n, status);
        put_all(&http, args.agents, &one, Some(Duration::from_secs(1)))
    };
    part("registration", &mut || put_all(&http, args.agents, &|n| registration(n, args), None))?;
    part("steady state", &mut || {
        thread::sleep(args.steady);
        Ok(Samples::default())
    })?;
    if args.storm {
        part("storm", &mut || flips("critical"))?;
        part("storm back", &mut || flips("passing"))?;
    }
    Ok(report)
}

fn node(n: u32) -> Value {
    json!({"Node": agent::name(n), "Address": agent::address(n).to_string()})
}

fn registration(n: u32, args: &Args) -> Vec<Value> {
    let of = |s: usize| {
        let own = (0..args.load.checks).filter(|c| c % args.load.services == s).map(|c| {
            json!({"CheckID": agent::check(c), "Name": format!("check {c} of the load"),
                   "ServiceID": agent::service(s), "Status": "passing"})
        });
        let mut body = node(n);
        body["Service"] = json!({"ID": agent::service(s), "Service": agent::service(s),
                                 "Tags": [agent::tag(n)], "Port": 9000 + s});
        body["Checks"] = own.collect();
        body
    };
    (0..args.load.services).map(of).collect()
}

fn flip(n: u32, status: &str) -> Vec<Value> {
    let mut body = node(n);
    body["SkipNodeUpdate"] = json!(true);
    body["Check"] = json!({"CheckID": agent::check(0), "Name": "check 0 of the load",
                           "ServiceID": agent::service(0), "Status": status, "Output": "told by the load"});
    vec![body]
}

/// Puts what each agent has to say, as fast as it goes or spread over a time; how long each took from when it was due.
fn put_all(
    http: &str,
    agents: u32,
    said: &(dyn Fn(u32) -> Vec<Value> + Sync),
    spread: Option<Duration>,
) -> Result<Samples, String> {
    let (next, taken) = (AtomicUsize::new(0), Mutex::new((Samples::default(), None)));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut client = Client::new(http);
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed) as u32;
                    if n >= agents {
                        return;
                    }
                    let share = f64::from(n) / f64::from(agents);
                    let due = spread.map_or_else(|| began.elapsed(), |spread| spread.mul_f64(share));
                    thread::sleep(due.saturating_sub(began.elapsed()));
                    let told = said(n).iter().try_for_each(|body| client.put("/v1/catalog/register", body));
                    let mut taken = taken.lock().expect("no writer panics");
                    match told {
                        Ok(()) => taken.0.push((began.elapsed() - due).as_secs_f64()),
                        Err(error) => taken.1 = Some(error.to_string()),
                    }
                }
            });
        }
    });
    match taken.into_inner().expect("no writer panics") {
        (samples, None) => Ok(samples),
        (_, Some(why)) => Err(why),
    }
}
