//! What happens to the fleet, part by part, and what each part cost.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use muster::runtime::random::Rng;
use muster::runtime::{blocking, task, time};
use muster::store::model::Status;

use crate::agent;
use crate::args::Args;
use crate::dns::{self, Prober};
use crate::figures::{Part, Report, Samples};
use crate::fleet::{Fleet, Taken, until};
use crate::http::Client;
use crate::meter::{self, Look, Server};

/// All have registered, or it is a failure.
const REGISTERED_WITHIN: Duration = Duration::from_secs(300);
/// What came of the start is over by then: late joins, anti-entropy, first exchanges of states.
const SETTLE: Duration = Duration::from_secs(15);
const FLAPPING: Duration = Duration::from_secs(20);
/// A storm is over by then.
const STORM_WITHIN: Duration = Duration::from_secs(60);
/// The dead are known by then.
const KNOWN_WITHIN: Duration = Duration::from_secs(120);
/// Questions over DNS, a second; fewer of them where the servers' cost at rest is measured, of which they would be the larger part.
const DNS_RATE: u32 = 100;
const DNS_RATE_AT_REST: u32 = 10;

struct Scenario {
    args: Args,
    fleet: Fleet,
    servers: Vec<Server>,
    prober: Prober,
    report: Report,
    random: Rng,
}

/// Runs all of it.
///
/// # Errors
/// For the operator: an agent did not start, or the servers did not take all.
pub async fn run(args: Args) -> Result<Report, String> {
    let servers: Vec<Server> = args.http.iter().map(|http| Server::new(http)).collect();
    let load = format!(
        "{} agents with {} services and {} checks each, {} % of their gossip lost, against {}",
        args.agents,
        args.load.services,
        args.load.checks,
        args.load.loss * 100.0,
        args.load.servers.join(", ")
    );
    let report = Report { load, servers: servers.iter().map(Server::name).collect(), parts: Vec::new() };
    let name = format!("{}.service.consul", agent::service(0));
    let prober = Prober::start(args.dns.clone(), name, DNS_RATE);
    let fleet = Fleet::new(args.agents, args.load.clone());
    let random = Rng::seeded();
    let mut scenario = Scenario { args, fleet, servers, prober, report, random };
    scenario.all().await?;
    Ok(scenario.report)
}

impl Scenario {
    async fn all(&mut self) -> Result<(), String> {
        self.register().await?;
        self.steady().await;
        if self.args.flap > 0.0 {
            self.flap().await;
        }
        if self.args.storm {
            self.storm("storm", Status::Critical).await;
            self.storm("storm back", Status::Passing).await;
        }
        if self.args.kill > 0 {
            self.kill().await?;
        }
        Ok(())
    }

    async fn look(&mut self) -> Look {
        let mut servers = std::mem::take(&mut self.servers);
        let looked = blocking::run(move || {
            let look = meter::look(&mut servers);
            (servers, look)
        });
        let (servers, look) = looked.await.expect("a look does not panic");
        self.servers = servers;
        look
    }

    async fn begin(&mut self, name: &str) -> Look {
        eprintln!("{name}: {} agents run", self.fleet.running());
        drop(self.prober.take());
        self.look().await
    }

    async fn end(&mut self, name: &str, before: Look, mut part: Part) {
        part.dns = self.prober.take();
        let after = self.look().await;
        part.name = name.to_owned();
        part.spent = meter::between(&before, &after);
        part.numbers.push(("agents that are taken for failed and run", self.fleet.slandered() as f64));
        eprintln!("{}", part.text());
        self.report.parts.push(part);
    }

    /// How many instances of the first service pass, by the first server.
    async fn passing(&self) -> usize {
        let http = self.args.http[0].clone();
        let path = format!("/v1/health/service/{}?passing", agent::service(0));
        let asked = blocking::run(move || Client::new(&http).get(&path)).await;
        asked.ok().and_then(Result::ok).and_then(|rows| rows.as_array().map(Vec::len)).unwrap_or(0)
    }

    async fn register(&mut self) -> Result<(), String> {
        let before = self.begin("registration").await;
        let (began, count) = (Instant::now(), self.fleet.count());
        self.fleet.start(0..count, self.args.ramp).await?;
        let started = began.elapsed().as_secs_f64();
        let mut seen = 0;
        let registered = until(REGISTERED_WITHIN, async || {
            let passing = self.passing().await;
            if passing != seen {
                eprintln!("{:>6.1} s: {passing} of {count} pass", began.elapsed().as_secs_f64());
                seen = passing;
            }
            passing >= count as usize
        });
        let all = registered.await.map(|_| began.elapsed().as_secs_f64());
        let known = until(REGISTERED_WITHIN, async || self.fleet.aware(count as usize) == count as usize);
        let known = known.await.map(|_| began.elapsed().as_secs_f64());
        let mut part = Part::default();
        part.numbers.push(("all agents were started after, s", started));
        part.numbers.extend(all.map(|at| ("all services were passing after, s", at)));
        part.numbers.extend(known.map(|at| ("all agents knew all members after, s", at)));
        self.end("registration", before, part).await;
        match (all, known) {
            (Some(_), Some(_)) => Ok(()),
            (None, _) => Err(format!("only {seen} of {count} agents are in the catalog")),
            (_, None) => Err("not all agents know all members".to_owned()),
        }
    }

    async fn steady(&mut self) {
        time::sleep(SETTLE).await;
        self.prober.pace(DNS_RATE_AT_REST);
        let before = self.begin("steady state").await;
        let asked = self.fleet.asked();
        self.live(self.args.steady).await;
        let now = self.fleet.asked();
        let seconds = self.args.steady.as_secs_f64() * f64::from(self.fleet.count());
        let mut part = Part::default();
        part.numbers.push(("requests of all agents to servers", (now.requests - asked.requests) as f64));
        let bytes = now.bytes_out + now.bytes_in - asked.bytes_out - asked.bytes_in;
        part.numbers.push(("bytes between an agent and its server, a second", bytes as f64 / seconds));
        self.end("steady state", before, part).await;
        self.prober.pace(DNS_RATE);
    }

    /// Lets time pass, and says every few seconds what is to be seen.
    async fn live(&mut self, span: Duration) {
        let until = time::now() + span;
        let mut before = self.look().await;
        while time::now() < until {
            time::sleep_until(until.min(time::now() + Duration::from_secs(5))).await;
            let after = self.look().await;
            let spent = meter::between(&before, &after);
            let cpu: Vec<String> =
                spent.cpu.iter().map(|cpu| cpu.map_or("?".to_owned(), |cpu| format!("{cpu:.1} %"))).collect();
            eprintln!(
                "       servers' CPU {}; {:.0} RPCs, {:.0} log writes; {:.0} packets/s",
                cpu.join(", "),
                spent.rpcs,
                spent.log_writes,
                spent.packets
            );
            before = after;
        }
    }

    async fn flap(&mut self) {
        let name = format!("{} flaps a second", self.args.flap);
        let before = self.begin(&name).await;
        let taken = Rc::<RefCell<Taken>>::default();
        // There and back, so that all is as before at the end.
        let pairs = (self.args.flap * FLAPPING.as_secs_f64() / 2.0) as u32;
        let mut flips = Vec::new();
        for place in 0..pairs {
            let n = self.random.below(self.fleet.count().into()) as u32;
            let check = place as usize % self.args.load.checks;
            let there = (FLAPPING - Duration::from_secs(1)).mul_f64(f64::from(place) / f64::from(pairs));
            for (after, status) in
                [(there, Status::Warning), (there + Duration::from_secs(1), Status::Passing)]
            {
                flips.push(self.fleet.flip(n, check, after, status, taken.clone()));
            }
        }
        self.live(FLAPPING).await;
        finished(flips).await;
        let part = part_of(&taken);
        self.end(&name, before, part).await;
    }

    async fn storm(&mut self, name: &str, status: Status) {
        let before = self.begin(name).await;
        let taken = Rc::<RefCell<Taken>>::default();
        let count = self.fleet.count();
        let flip = |n: u32| {
            let after = Duration::from_secs(1).mul_f64(f64::from(n) / f64::from(count));
            self.fleet.flip(n, 0, after, status, taken.clone())
        };
        let flips: Vec<_> = (0..count).map(flip).collect();
        finished(flips).await;
        // What is still under way of the storm belongs to it.
        time::sleep(Duration::from_secs(1)).await;
        let mut part = part_of(&taken);
        let expected = if status == Status::Passing { count as usize } else { 0 };
        let visible = until(STORM_WITHIN, async || self.passing().await == expected).await;
        part.numbers.push(("all is as it was told", f64::from(u8::from(visible.is_some()))));
        self.end(name, before, part).await;
    }

    async fn kill(&mut self) -> Result<(), String> {
        let name = format!("{} agents killed", self.args.kill);
        let before = self.begin(&name).await;
        let mut all: Vec<u32> = (0..self.fleet.count()).collect();
        self.random.shuffle(&mut all);
        let gone: Vec<u32> = all.into_iter().take(self.args.kill as usize).collect();
        let began = Instant::now();
        gone.iter().for_each(|n| self.fleet.kill(*n));
        let looking = task::spawn(self.watch_dns(&gone, true, began));
        let known = until(KNOWN_WITHIN, async || self.fleet.believers(&gone) == 0);
        let known = known.await.map(|_| began.elapsed().as_secs_f64());
        let mut part =
            dns_part("from its end until it is out of DNS, s", looking.await.ok_or("DNS was not watched")??);
        part.numbers.extend(known.map(|at| ("until all others knew of all, s", at)));
        self.end(&name, before, part).await;
        if self.args.rejoin {
            self.rejoin(&gone).await?;
        }
        Ok(())
    }

    async fn rejoin(&mut self, gone: &[u32]) -> Result<(), String> {
        let before = self.begin("rejoin").await;
        let began = Instant::now();
        self.fleet.start(gone.iter().copied(), Duration::from_secs(1)).await?;
        let part =
            dns_part("from the first start until it is in DNS, s", self.watch_dns(gone, false, began).await?);
        self.end("rejoin", before, part).await;
        Ok(())
    }

    fn watch_dns(
        &self,
        which: &[u32],
        gone: bool,
        began: Instant,
    ) -> impl Future<Output = Result<Vec<Option<Duration>>, String>> + use<> {
        let server = self.args.dns.clone();
        let name = |n: &u32| format!("{}.{}.service.consul", agent::tag(*n), agent::service(0));
        let names: Vec<String> = which.iter().map(name).collect();
        let looking = blocking::run(move || dns::until(&server, &names, gone, KNOWN_WITHIN, began));
        async move {
            let looked = looking.await.map_err(|panicked| panicked.to_string())?;
            looked.map_err(|error| format!("DNS cannot be asked: {error}"))
        }
    }
}

async fn finished(flips: Vec<task::Task<()>>) {
    for flip in flips {
        flip.await;
    }
}

fn part_of(taken: &RefCell<Taken>) -> Part {
    let taken = std::mem::take(&mut *taken.borrow_mut());
    Part {
        samples: vec![("from a check's change until the catalog has it, s", taken.samples)],
        numbers: vec![("changes that were refused", taken.refused as f64)],
        ..Part::default()
    }
}

fn dns_part(name: &'static str, took: Vec<Option<Duration>>) -> Part {
    let missed = took.iter().filter(|took| took.is_none()).count();
    let samples: Samples = took.into_iter().flatten().map(|took| took.as_secs_f64()).collect();
    let numbers = vec![("of which it was never seen", missed as f64)];
    Part { samples: vec![(name, samples)], numbers, ..Part::default() }
}
