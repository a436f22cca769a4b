//! `/v1/agent/explain/service/NAME`: which agent owns each instance, whether the catalog has it as it is there, which checks decide, why it is
//! or is not in the answers, and what will remove it and when.
//!
//! The catalog's part is what any server tells (from what is kept here if none does); what only the owner knows comes from this agent's own
//! registry, so it is there for its own instances only; who is alive comes from gossip.

use std::rc::Rc;
use std::time::Duration;

use muster_protocol::http::Method;
use serde_json::{Value, json};

use super::Edge;
use super::agent_check::refusal;
use super::agent_self::document;
use super::exchange::{Handled, Outcome, Request, Response};
use super::json::{JsonWriter, service_entry};
use super::operator::await_fresh;
use super::query;
use super::router::Route;
use crate::agent::door::Explained;
use crate::agent::local::{NODE_MAINTENANCE, SERVICE_MAINTENANCE};
use crate::agent::registry::explain::{Known, KnownCheck};
use crate::config::{Config, duration};
use crate::edge::fresh::Freshness;
use crate::membership::{Member, MemberStatus, Roster};
use crate::runtime::time;
use crate::store::model::{Check, Status};
use crate::upstream::Ask;

/// The area's routes.
pub const ROUTES: &[Route] = &[Route::new("/v1/agent/explain/service/", &[Method::Get], service)];

/// The longest list of instances that is taken from a server.
const LIST_MAX: usize = 64 << 20;

fn service(edge: &Rc<Edge>, request: &Request) -> Handled {
    query::no_namespace(request)?;
    let name = request.rest_str().into_owned();
    if name.is_empty() {
        return Err(Response::bad_request("Missing service name"));
    }
    let id = request.query.filled("id").map(str::to_owned);
    let (edge, request) = (edge.clone(), request.clone());
    Ok(Outcome::later(async move {
        let own = edge.agent().explain(name.as_str()).await.map_err(|refused| refusal(&refused))?;
        let (instances, doubt) = instances(&edge, &name).await;
        let (config, roster) = (edge.config(), edge.roster());
        let facts = Facts { config: &config, roster: &roster, own: &own, now: time::unix_now() };
        let mut shown: Vec<Value> = Vec::new();
        for row in &instances {
            let instance = Instance::of(row);
            if id.as_ref().is_none_or(|id| *id == instance.id) {
                shown.push(facts.explain(&instance));
            }
        }
        for known in &own.services {
            let here = instances
                .iter()
                .map(Instance::of)
                .any(|row| row.id == known.id && row.node.eq_ignore_ascii_case(&config.node_name));
            if !here && id.as_ref().is_none_or(|id| *id == known.id) {
                shown.push(facts.explain(&Instance::unknown(known, &name, &config.node_name)));
            }
        }
        let answer = json!({"Service": name, "Doubt": doubt, "Instances": shown});
        Ok(document(&edge, &request, &answer))
    }))
}

/// The instances that the catalog has, as `/v1/health/service` shows them, and why they may be out of date.
async fn instances(edge: &Rc<Edge>, name: &str) -> (Vec<Value>, Option<String>) {
    let doubt = match edge.upstream() {
        Some(upstream) => {
            let asked = upstream.request(Ask::get(format!("/v1/health/service/{}", query::escape(name))));
            match asked.await {
                Ok(answer) if answer.status == 200 => match answer.body.whole(LIST_MAX).await {
                    Ok(body) => return (rows_of(&body), None),
                    Err(why) => Some(why.to_string()),
                },
                Ok(answer) => Some(format!("a server answered with status {}", answer.status)),
                Err(why) => Some(why.to_string()),
            }
        }
        None => {
            let refused = await_fresh(edge, Freshness::Leader).await.err();
            refused.map(|refused| String::from_utf8_lossy(&refused.body).into_owned())
        }
    };
    let state = edge.state();
    let mut w = JsonWriter::new(false);
    w.array(state.instances(name), |w, it| {
        service_entry(w, it.node, it.service, it.checks().map(|check| &**check));
    });
    (rows_of(&w.finish()), doubt)
}

fn rows_of(body: &[u8]) -> Vec<Value> {
    match serde_json::from_slice(body) {
        Ok(Value::Array(rows)) => rows,
        _ => Vec::new(),
    }
}

/// An instance as the catalog shows it.
struct Instance<'a> {
    node: String,
    id: String,
    name: String,
    address: String,
    port: i64,
    /// Index of its last change; nothing if the catalog does not have it.
    index: Option<u64>,
    checks: Vec<SeenCheck<'a>>,
}

struct SeenCheck<'a> {
    id: String,
    name: String,
    status: Status,
    of_node: bool,
    output: String,
    deregister_after: Option<String>,
    known: Option<&'a KnownCheck>,
}

impl<'a> Instance<'a> {
    fn of(row: &Value) -> Instance<'a> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (node, service) = (&row["Node"], &row["Service"]);
        let own = text(&service["Address"]);
        let checks = row["Checks"].as_array().into_iter().flatten().map(|check| SeenCheck {
            id: text(&check["CheckID"]),
            name: text(&check["Name"]),
            status: check["Status"].as_str().and_then(Status::parse).unwrap_or_default(),
            of_node: text(&check["ServiceID"]).is_empty(),
            output: text(&check["Output"]),
            deregister_after: check["Definition"]["DeregisterCriticalServiceAfter"]
                .as_str()
                .map(str::to_owned),
            known: None,
        });
        Instance {
            node: text(&node["Node"]),
            id: text(&service["ID"]),
            name: text(&service["Service"]),
            address: if own.is_empty() { text(&node["Address"]) } else { own },
            port: service["Port"].as_i64().unwrap_or_default(),
            index: service["ModifyIndex"].as_u64(),
            checks: checks.collect(),
        }
    }

    /// One that this agent has and the catalog does not.
    fn unknown(known: &'a Known, name: &str, node: &str) -> Instance<'a> {
        Instance {
            node: node.to_owned(),
            id: known.id.clone(),
            name: name.to_owned(),
            address: String::new(),
            port: 0,
            index: None,
            checks: known.checks.iter().map(SeenCheck::of).collect(),
        }
    }

    fn worst(&self) -> Status {
        self.checks.iter().map(|check| check.status).max().unwrap_or(Status::Passing)
    }

    fn in_maintenance(&self) -> bool {
        self.checks.iter().any(|check| is_maintenance(&check.id))
    }
}

impl<'a> SeenCheck<'a> {
    fn of(known: &'a KnownCheck) -> SeenCheck<'a> {
        let row: &Check = &known.row;
        SeenCheck {
            id: row.check_id.clone(),
            name: row.name.clone(),
            status: row.status,
            of_node: row.service_id.is_empty(),
            output: row.output.clone(),
            deregister_after: None,
            known: Some(known),
        }
    }
}

fn is_maintenance(check: &str) -> bool {
    check == NODE_MAINTENANCE || check.starts_with(SERVICE_MAINTENANCE)
}

/// What all instances are judged by.
struct Facts<'a> {
    config: &'a Config,
    roster: &'a Roster,
    own: &'a Explained,
    now: Duration,
}

impl Facts<'_> {
    fn explain(&self, instance: &Instance<'_>) -> Value {
        let is_here = instance.node.eq_ignore_ascii_case(&self.config.node_name);
        let known = self.own.services.iter().find(|known| is_here && known.id == instance.id);
        let worst = instance.worst();
        let checks: Vec<Value> = instance
            .checks
            .iter()
            .map(|check| {
                let of_it = |known: &&KnownCheck| known.row.check_id == check.id;
                let times = check.known.or(known.and_then(|known| known.checks.iter().find(of_it)));
                show_check(check, times, worst)
            })
            .collect();
        json!({
            "Node": instance.node,
            "ID": instance.id,
            "Service": instance.name,
            "Address": instance.address,
            "Port": instance.port,
            "InCatalog": instance.index.is_some(),
            "ModifyIndex": instance.index,
            "Owner": self.owner(instance, is_here),
            "Sync": is_here.then(|| self.sync(known)),
            "Checks": checks,
            "Answers": self.answers(instance),
            "Removal": self.removal(instance, known, is_here),
        })
    }

    fn owner(&self, instance: &Instance<'_>, is_here: bool) -> Value {
        let member = self.roster.named(&instance.node);
        let status = match member {
            Some(member) => member.status.as_str(),
            None if is_here => "alive",
            None => "unknown",
        };
        json!({
            "Agent": instance.node,
            "Here": is_here,
            "Member": member.is_some() || is_here,
            "Status": status,
            "SinceSeconds": member.map(|member| self.now.saturating_sub(member.since).as_secs()),
            "Evidence": member.and_then(|member| self.evidence(member)),
        })
    }

    /// On what grounds a member is suspected or has failed, in words.
    fn evidence(&self, member: &Member) -> Option<String> {
        let evidence = member.evidence.as_ref()?;
        let mut words = Vec::new();
        if let Some(by) = &evidence.suspected_by {
            words.push(format!("{by} got no answer"));
        }
        if !evidence.confirmed_by.is_empty() {
            words.push(format!("confirmed by {}", evidence.confirmed_by.join(", ")));
        }
        if let Some(by) = &evidence.declared_by {
            words.push(format!("declared failed by {by}"));
        }
        if let Some(at) = evidence.last_ack {
            words.push(format!("last answered this agent {} ago", rough(self.now.saturating_sub(at))));
        }
        (!words.is_empty()).then(|| words.join("; "))
    }

    fn sync(&self, known: Option<&Known>) -> Value {
        json!({
            "Registered": known.is_some(),
            "Source": known.map(|known| known.source.as_str()),
            "Lacking": known.map(|known| known.lacking.clone()).unwrap_or_default(),
            "LastSyncSecondsAgo": self.own.synced_ago.map(|ago| ago.as_secs()),
        })
    }

    fn answers(&self, instance: &Instance<'_>) -> Value {
        let worst = instance.worst();
        let of = |status: Status| -> Vec<&str> {
            instance
                .checks
                .iter()
                .filter(|check| check.status == status)
                .map(|check| check.id.as_str())
                .collect()
        };
        let decided = match worst {
            Status::Passing if instance.checks.is_empty() => {
                "it has no checks, which counts as passing".to_owned()
            }
            Status::Passing => "all its checks pass".to_owned(),
            _ if instance.in_maintenance() => "it is in maintenance".to_owned(),
            status => format!(
                "{} {}",
                of(status).join(", "),
                match status {
                    Status::Warning => "warns",
                    _ => "is critical",
                }
            ),
        };
        let only_passing = self.config.dns.only_passing;
        let answer = |included: bool, why: &str| match instance.index {
            Some(_) => json!({"Included": included, "Why": why}),
            None => json!({"Included": false, "Why": "the catalog does not have it"}),
        };
        let in_dns = worst == Status::Passing || (worst == Status::Warning && !only_passing);
        let dns = match worst {
            Status::Warning if only_passing => format!("{decided}, and dns_config.only_passing is set"),
            Status::Warning => format!("{decided}, which DNS passes over"),
            _ => decided.clone(),
        };
        json!({
            "DNS": answer(in_dns, &dns),
            "Passing": answer(worst == Status::Passing, &decided),
            "Catalog": answer(true, "whatever its health"),
        })
    }

    /// What will take the instance away, or out of the answers.
    fn removal(&self, instance: &Instance<'_>, known: Option<&Known>, is_here: bool) -> Vec<Value> {
        let mut out = Vec::new();
        let mut add = |what: &str, left: Option<Duration>, why: String| {
            out.push(json!({"What": what, "InSeconds": left.map(|left| left.as_secs()), "Why": why}));
        };
        for check in known.iter().flat_map(|known| &known.checks).filter(|c| !c.row.service_id.is_empty()) {
            let id = &check.row.check_id;
            if let Some(left) = check.ttl_left {
                add(
                    "turns critical",
                    Some(left),
                    format!("check {id} is not told of before its TTL is over"),
                );
            }
            let Some(after) = check.deregister_after else { continue };
            match check.critical_for {
                Some(been) => add(
                    "is deregistered",
                    Some(after.saturating_sub(been)),
                    format!("check {id} has been critical for {} of {}", rough(been), rough(after)),
                ),
                None => add(
                    "is deregistered",
                    None,
                    format!("check {id} is critical for {} (it is not now)", rough(after)),
                ),
            }
        }
        if !is_here {
            for check in &instance.checks {
                let Some(after) = &check.deregister_after else { continue };
                let now = if check.status == Status::Critical {
                    "it is now; since when its agent knows"
                } else {
                    "it is not now"
                };
                add("is deregistered", None, format!("check {} is critical for {after} ({now})", check.id));
            }
        }
        if is_here && known.is_none() {
            add(
                "is deregistered",
                None,
                "this agent does not know it: the next comparison with the catalog removes it".to_owned(),
            );
        }
        self.removal_of_node(instance, is_here, &mut add);
        if instance.in_maintenance() {
            add("stays out of the answers", None, "maintenance is on, until `maint -disable`".to_owned());
        }
        out
    }

    fn removal_of_node(
        &self,
        instance: &Instance<'_>,
        is_here: bool,
        add: &mut impl FnMut(&str, Option<Duration>, String),
    ) {
        let Some(member) = self.roster.named(&instance.node) else {
            if !is_here && !self.roster.is_empty() {
                let text =
                    "no agent of this name is known: only who registered it, or an operator, takes it away";
                add("is deregistered", None, text.to_owned());
            }
            return;
        };
        let node = &instance.node;
        match member.status {
            MemberStatus::Alive => {}
            MemberStatus::Failed => {
                let (since, limit) =
                    (self.now.saturating_sub(member.since), self.config.gossip.reconnect_timeout);
                add(
                    "is deregistered with its node",
                    Some(limit.saturating_sub(since)),
                    format!("{node} failed {} ago, and is reaped after {}", rough(since), rough(limit)),
                );
            }
            MemberStatus::Leaving | MemberStatus::Left => add(
                "is deregistered with its node",
                Some(Duration::ZERO),
                format!("{node} has left: the leader removes it"),
            ),
        }
    }
}

fn show_check(check: &SeenCheck<'_>, times: Option<&KnownCheck>, worst: Status) -> Value {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
    json!({
        "CheckID": check.id,
        "Name": check.name,
        "Status": check.status.as_str(),
        "Of": if check.of_node { "node" } else { "service" },
        "Decides": check.status == worst && worst != Status::Passing,
        "Output": check.output,
        "Every": times.and_then(|times| times.every).map(rough),
        "TTLSecondsLeft": seconds(times.and_then(|times| times.ttl_left)),
        "CriticalSeconds": seconds(times.and_then(|times| times.critical_for)),
    })
}

/// A length of time for people: whole seconds.
fn rough(time: Duration) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX / 1_000_000_000);
    duration::format(seconds.saturating_mul(1_000_000_000))
}
