//! `/v1/operator/keyring`: the keys that gossip is sealed with, on all members.

use std::fmt::Write;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use muster_protocol::gossip::keyring::{Key, Tally};
use muster_protocol::http::Method;
use serde_json::Value;

use super::exchange::{Handled, Outcome, Request, Response};
use super::filter::quote::quoted;
use super::json::{JsonWriter, name};
use super::router::Route;
use super::{Edge, decode, query};
use crate::membership::{Keys, key_text};

/// The area's routes.
pub const ROUTES: &[Route] =
    &[Route::new("/v1/operator/keyring", &[Method::Get, Method::Post, Method::Put, Method::Delete], keyring)];

/// Members that may relay an answer, at most.
const RELAYS_MAX: i64 = 5;

/// One pool and its answers.
struct Pool {
    wan: bool,
    answers: Result<Tally, String>,
}

fn keyring(edge: &Rc<Edge>, request: &Request) -> Handled {
    let config = edge.config();
    let bad = |why: &str| Response::bad_request(format!("Bad request: {why}"));
    let key = match request.method {
        Method::Get => None,
        _ => Some(key(&request.body).map_err(|why| bad(&format!("Request decode failed: {why}")))?),
    };
    let relays = relays(request).map_err(|why| bad(&why))?;
    let local = local_only(request).map_err(|why| bad(&why))?;
    if local && request.method != Method::Get {
        return Err(bad("Invalid use of local-only: local-only can only be set for list requests"));
    }
    if !config.server {
        return Err(Response::internal("keyring operations must run against a server node"));
    }
    let keys = match key.map(|text| STANDARD.decode(text)).transpose() {
        Err(error) => return Err(Response::internal(undecodable(&config.datacenter, &error))),
        Ok(None) => Keys::List,
        Ok(Some(key)) => match request.method {
            Method::Post => Keys::Install(key.into()),
            Method::Put => Keys::Use(key.into()),
            _ => Keys::Remove(key.into()),
        },
    };
    let (edge, pretty) = (edge.clone(), query::pretty(&config, request));
    Ok(Outcome::later(async move {
        let mut pools = Vec::new();
        if !local {
            pools.push(Pool { wan: true, answers: edge.membership().wan_keyrings(keys.clone()).await });
        }
        pools.push(Pool { wan: false, answers: edge.membership().keyrings(keys.clone(), relays).await });
        verdict(&config.datacenter, &pools).map_err(Response::internal)?;
        Ok(match keys {
            Keys::List => Response::json_bytes(listed(&config.datacenter, &pools, pretty)),
            _ => Response::empty(200),
        })
    }))
}

fn key(body: &[u8]) -> Result<String, String> {
    let value = decode::body(body)?;
    let Value::Object(fields) = &value else { return Ok(String::new()) };
    let key = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("key"));
    Ok(key.and_then(|(_, key)| key.as_str()).unwrap_or_default().to_owned())
}

fn relays(request: &Request) -> Result<u8, String> {
    let Some(text) = request.query.filled("relay-factor") else { return Ok(0) };
    let parsed: Result<i64, _> = text.parse();
    let relays = parsed.map_err(|_| {
        format!("Error parsing relay factor: strconv.Atoi: parsing {}: invalid syntax", quoted(text))
    })?;
    let within = u8::try_from(relays).ok().filter(|_| relays <= RELAYS_MAX);
    within.ok_or_else(|| "Invalid relay-factor: Relay factor must be in range: [0, 5]".to_owned())
}

fn local_only(request: &Request) -> Result<bool, String> {
    match request.query.filled("local-only") {
        None | Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
        Some(text) => Err(format!(
            "Error parsing local-only: strconv.ParseBool: parsing {}: invalid syntax",
            quoted(text)
        )),
    }
}

fn undecodable(datacenter: &str, error: &base64::DecodeError) -> String {
    let place = match error {
        base64::DecodeError::InvalidByte(place, _) | base64::DecodeError::InvalidLastSymbol(place, _) => {
            *place
        }
        base64::DecodeError::InvalidLength(length) => *length,
        base64::DecodeError::InvalidPadding => 0,
    };
    let why = format!("illegal base64 data at input byte {place}");
    errors(&[format!("WAN error: {why}"), format!("{datacenter} (LAN) error: {why}")])
}

/// What went wrong, pool by pool and member by member.
fn verdict(datacenter: &str, pools: &[Pool]) -> Result<(), String> {
    let mut lines = Vec::new();
    for Pool { wan, answers } in pools {
        let pool = if *wan { "WAN".to_owned() } else { format!("{datacenter} (LAN)") };
        match answers {
            Err(why) => lines.push(format!("{pool} error: {why}")),
            Ok(tally) => {
                if let Err(why) = tally.verdict() {
                    lines.push(format!("{pool} error: {why}"));
                    lines.extend(tally.messages.iter().map(|(name, why)| format!("{name}: {why}")));
                }
            }
        }
    }
    if lines.is_empty() { Ok(()) } else { Err(errors(&lines)) }
}

/// As Consul prints a list of errors.
fn errors(lines: &[String]) -> String {
    let count = lines.len();
    let mut text = format!("{count} error{} occurred:\n", if count == 1 { "" } else { "s" });
    for line in lines {
        // Writing to a string does not fail.
        let _ = writeln!(text, "\t* {line}");
    }
    text.push('\n');
    text
}

fn listed(datacenter: &str, pools: &[Pool], pretty: bool) -> Vec<u8> {
    let mut w = JsonWriter::new(pretty);
    let answered = pools.iter().filter_map(|pool| Some((pool.wan, pool.answers.as_ref().ok()?)));
    w.array(answered, |w, (wan, tally)| {
        w.object(|w| {
            w.field(name!("WAN")).flag(wan);
            w.field(name!("Datacenter")).text(datacenter);
            w.field(name!("Segment")).text("");
            if !tally.messages.is_empty() {
                w.field(name!("Messages")).object(|w| {
                    tally.messages.iter().for_each(|(member, text)| w.key(member).text(text));
                });
            }
            let counted = |w: &mut JsonWriter, keys: &std::collections::BTreeMap<Key, usize>| {
                w.object(|w| keys.iter().for_each(|(key, n)| w.key(&key_text(key)).number(*n as u64)));
            };
            counted(w.field(name!("Keys")), &tally.keys);
            counted(w.field(name!("PrimaryKeys")), &tally.primary_keys);
            w.field(name!("NumNodes")).number(tally.nodes as u64);
        });
    });
    w.finish()
}
