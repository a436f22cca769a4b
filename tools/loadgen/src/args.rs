//! The command line.

use std::time::Duration;

use crate::agent::{AGENTS_MAX, Load};

/// What the help says.
pub const USAGE: &str = "\
Usage: loadgen --servers HOST:PORT,... [--agents N] [--services S] [--checks C] [--http HOST:PORT,...] [--dns HOST:PORT]
               [--ramp SECONDS] [--steady SECONDS] [--flap RATE/s] [--storm] [--kill K] [--rejoin] [--loss SHARE]
               [--datacenter DC] [--json FILE]
       loadgen --consul URL [--agents N] ...      the same load through the HTTP catalog of a Consul server

  --servers     where servers gossip (LAN): as -retry-join of an agent
  --http        HTTP of the servers, for their metrics and what they know (127.0.0.1:8500); their processes are found by these ports
  --dns         DNS of a server (127.0.0.1:8600)
  --agents      how many (1000), each at an address of its own in 127.0.0.0/8; --services (3) and --checks (5) of each
  --ramp        all have started after so long (a second for every 50)
  --steady      nothing happens for so long, and is measured (30)
  --flap        then so many checks change a second, for 20 s
  --storm       then all agents change a check within one second, and back
  --kill        then so many end without a word; --rejoin: and start again
  --loss        so large a share (0 to 1) of the gossip packets to each agent is lost, all the time
  --json        writes the report there, too";

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Args {
    pub agents: u32,
    pub load: Load,
    pub http: Vec<String>,
    pub dns: String,
    pub ramp: Duration,
    pub steady: Duration,
    pub flap: f64,
    pub storm: bool,
    pub kill: u32,
    pub rejoin: bool,
    pub json: Option<String>,
    /// The other program, instead.
    pub consul: Option<String>,
}

/// Reads it.
///
/// # Errors
/// For the operator.
pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let load = Load { servers: Vec::new(), datacenter: "dc1".to_owned(), services: 3, checks: 5, loss: 0.0 };
    let mut args = Args {
        agents: 1000,
        load,
        http: vec!["127.0.0.1:8500".to_owned()],
        dns: "127.0.0.1:8600".to_owned(),
        ramp: Duration::ZERO,
        steady: Duration::from_secs(30),
        flap: 0.0,
        storm: false,
        kill: 0,
        rejoin: false,
        json: None,
        consul: None,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--servers" => args.load.servers = list(&value()?),
            "--http" => args.http = list(&value()?),
            "--dns" => args.dns = value()?,
            "--agents" => args.agents = number(&value()?)?,
            "--services" => args.load.services = number(&value()?)?,
            "--checks" => args.load.checks = number(&value()?)?,
            "--datacenter" => args.load.datacenter = value()?,
            "--ramp" => args.ramp = seconds(&value()?)?,
            "--steady" => args.steady = seconds(&value()?)?,
            "--flap" => args.flap = number(value()?.trim_end_matches("/s"))?,
            "--storm" => args.storm = true,
            "--kill" => args.kill = number(&value()?)?,
            "--loss" => args.load.loss = number(&value()?)?,
            "--rejoin" => args.rejoin = true,
            "--json" => args.json = Some(value()?),
            "--consul" => args.consul = Some(value()?),
            other => return Err(format!("what is {other}?")),
        }
    }
    let full = args.load.services > 0 && args.load.checks > 0;
    if !(1..=AGENTS_MAX).contains(&args.agents) || !full {
        return Err(format!("1 to {AGENTS_MAX} agents with at least a service and a check each"));
    }
    if args.load.servers.is_empty() && args.consul.is_none() {
        return Err("which servers?".to_owned());
    }
    if args.ramp.is_zero() {
        args.ramp = Duration::from_secs_f64(f64::from(args.agents) / 50.0);
    }
    if !(0.0..1.0).contains(&args.load.loss) {
        return Err("--loss is a share: 0.25 loses a quarter".to_owned());
    }
    if args.kill >= args.agents {
        return Err("--kill leaves at least one agent".to_owned());
    }
    Ok(args)
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    Ok(Duration::from_secs_f64(number::<f64>(text.trim_end_matches('s'))?.clamp(0.0, 1e6)))
}
