//! The bodies of `/v1/catalog/register` and `/v1/catalog/deregister`, and the rules they must keep.

use super::decode::{self, Spot};
use super::exchange::Response;
use crate::store::command::{Deregister, Register};
use crate::store::model::{Check, CheckDefinition, Service, ServiceAddress, Status, Weights};

/// Reads and checks the body of a registration.
///
/// # Errors
/// Consul's answers: 400 for a body that cannot be read, 500 for one that breaks a rule.
pub fn register(body: &[u8], datacenter: &str) -> Result<Register, Response> {
    let value = decode::body(body).map_err(unreadable)?;
    let (mut register, given) = read_register(&Spot::top(&value)).map_err(unreadable)?;
    known(&given, datacenter)?;
    register.node.datacenter = datacenter.to_owned();
    complete(&mut register).map_err(Response::internal)?;
    Ok(register)
}

/// Reads and checks the body of a deregistration.
///
/// # Errors
/// As for [`register`].
pub fn deregister(body: &[u8], datacenter: &str) -> Result<Deregister, Response> {
    let value = decode::body(body).map_err(unreadable)?;
    let (deregister, given) = read_deregister(&Spot::top(&value)).map_err(unreadable)?;
    known(&given, datacenter)?;
    if deregister.node.is_empty() {
        return Err(Response::internal("Must provide node"));
    }
    Ok(deregister)
}

fn unreadable(reason: String) -> Response {
    Response::bad_request(format!("Request decode failed: {reason}"))
}

fn known(given: &str, datacenter: &str) -> Result<(), Response> {
    match given.is_empty() || given.eq_ignore_ascii_case(datacenter) {
        true => Ok(()),
        false => Err(Response::internal("No path to datacenter")),
    }
}

fn read_register(top: &Spot<'_>) -> Result<(Register, String), String> {
    const FIELDS: &[&str] = &[
        "Datacenter",
        "ID",
        "Node",
        "Address",
        "TaggedAddresses",
        "NodeMeta",
        "Service",
        "Check",
        "Checks",
        "SkipNodeUpdate",
        "Token",
    ];
    let mut register = Register::default();
    let mut datacenter = String::new();
    let mut single = None;
    for field in top.fields("RegisterRequest", FIELDS)? {
        let (name, spot) = field?;
        match name {
            "Datacenter" => datacenter = spot.text()?,
            "ID" => register.node.id = spot.text()?,
            "Node" => register.node.node = spot.text()?,
            "Address" => register.node.address = spot.text()?,
            "TaggedAddresses" => register.node.tagged_addresses = spot.text_map()?,
            "NodeMeta" => register.node.meta = spot.text_map()?,
            "Service" if spot.is_null() => register.service = None,
            "Service" => register.service = Some(read_service(&spot)?),
            "Check" if spot.is_null() => single = None,
            "Check" => single = Some(read_check(&spot)?),
            "Checks" => {
                let items = spot.items("structs.HealthChecks")?;
                register.checks = items.iter().map(read_check).collect::<Result<_, _>>()?;
            }
            "SkipNodeUpdate" => register.skip_node_update = spot.flag()?,
            _ => drop(spot.text()?),
        }
    }
    register.checks.extend(single);
    Ok((register, datacenter))
}

pub(super) fn read_service(spot: &Spot<'_>) -> Result<Service, String> {
    const FIELDS: &[&str] = &[
        "Kind",
        "ID",
        "Service",
        "Tags",
        "Address",
        "TaggedAddresses",
        "Meta",
        "Port",
        "Weights",
        "EnableTagOverride",
        "Proxy",
        "Connect",
        "CreateIndex",
        "ModifyIndex",
    ];
    let mut service = Service::default();
    for field in spot.fields("NodeService", FIELDS)? {
        let (name, spot) = field?;
        match name {
            "Kind" => service.kind = spot.text()?,
            "ID" => service.id = spot.text()?,
            "Service" => service.name = spot.text()?,
            "Tags" => service.tags = spot.texts()?,
            "Address" => service.address = spot.text()?,
            "TaggedAddresses" => {
                if let Some(entries) = spot.entries("map[string]structs.ServiceAddress")? {
                    let address = |(tag, spot): (&str, Spot<'_>)| Ok((tag.to_owned(), read_address(&spot)?));
                    service.tagged_addresses =
                        Some(entries.into_iter().map(address).collect::<Result<_, String>>()?);
                }
            }
            "Meta" => service.meta = spot.text_map()?,
            "Port" => service.port = spot.number()?,
            "Weights" => service.weights = read_weights(&spot)?,
            "EnableTagOverride" => service.enable_tag_override = spot.flag()?,
            "ModifyIndex" => service.modify_index = spot.unsigned("uint64")?,
            "CreateIndex" => drop(spot.unsigned("uint64")?),
            // Settings of the service mesh are taken and not kept.
            _ => drop(spot.entries("structs.ConnectProxyConfig")?),
        }
    }
    Ok(service)
}

fn read_address(spot: &Spot<'_>) -> Result<ServiceAddress, String> {
    let mut address = ServiceAddress::default();
    for field in spot.fields("ServiceAddress", &["Address", "Port"])? {
        match field? {
            ("Address", spot) => address.address = spot.text()?,
            (_, spot) => address.port = spot.number()?,
        }
    }
    Ok(address)
}

/// Weights out of range are not refused here, as they are by the agent: the usual ones take their place.
fn read_weights(spot: &Spot<'_>) -> Result<Weights, String> {
    let mut weights = Weights { passing: 0, warning: 0 };
    for field in spot.fields("Weights", &["Passing", "Warning"])? {
        match field? {
            ("Passing", spot) => weights.passing = spot.number()?,
            (_, spot) => weights.warning = spot.number()?,
        }
    }
    Ok(if weights.passing < 1 || weights.warning < 0 { Weights::default() } else { weights })
}

fn read_check(spot: &Spot<'_>) -> Result<Check, String> {
    check_of(spot, false)
}

/// A check as transactions take it: with the fields of the Go client's definitions (`IntervalDuration`), which registrations pass over.
pub(super) fn read_txn_check(spot: &Spot<'_>) -> Result<Check, String> {
    check_of(spot, true)
}

fn check_of(spot: &Spot<'_>, of_txn: bool) -> Result<Check, String> {
    const FIELDS: &[&str] = &[
        "Node",
        "CheckID",
        "Name",
        "Status",
        "Notes",
        "Output",
        "ServiceID",
        "ServiceName",
        "ServiceTags",
        "Type",
        "Definition",
        "CreateIndex",
        "ModifyIndex",
    ];
    let mut check = Check::default();
    for field in spot.fields("HealthCheck", FIELDS)? {
        let (name, spot) = field?;
        match name {
            "Node" => check.node = spot.text()?,
            "CheckID" => check.check_id = spot.text()?,
            "Name" => check.name = spot.text()?,
            "Status" => check.status = read_status(&spot.text()?)?,
            "Notes" => check.notes = spot.text()?,
            "Output" => check.output = spot.text()?,
            "ServiceID" => check.service_id = spot.text()?,
            "ServiceName" => check.service_name = spot.text()?,
            "ServiceTags" => check.service_tags = spot.texts()?,
            "Type" => check.kind = spot.text()?,
            "Definition" => check.definition = read_definition(&spot, of_txn)?,
            "ModifyIndex" => check.modify_index = spot.unsigned("uint64")?,
            _ => drop(spot.unsigned("uint64")?),
        }
    }
    Ok(check)
}

/// The store knows three states; another word, which Consul keeps as it is, is refused.
fn read_status(word: &str) -> Result<Status, String> {
    match word {
        "" => Ok(Status::Critical),
        word => Status::parse(word).ok_or_else(|| {
            format!(
                "check status {} is none of \"passing\", \"warning\", \"critical\"",
                super::filter::quote::quoted(word)
            )
        }),
    }
}

fn read_definition(spot: &Spot<'_>, of_txn: bool) -> Result<CheckDefinition, String> {
    let mut definition = CheckDefinition::default();
    // Unknown names are let pass here, as Consul does.
    for (name, spot) in spot.entries("structs.HealthCheckDefinition")?.unwrap_or_default() {
        let name = name.to_ascii_lowercase();
        let plain = name.strip_suffix("duration").filter(|_| of_txn);
        match plain.unwrap_or(&name) {
            "http" => definition.http = spot.text()?,
            "method" => definition.method = spot.text()?,
            "header" => {
                for (name, spot) in spot.entries("map[string][]string")?.unwrap_or_default() {
                    definition.header.insert(name.to_owned(), spot.texts()?);
                }
            }
            "body" => definition.body = spot.text()?,
            "tlsskipverify" => definition.tls_skip_verify = spot.flag()?,
            "tcp" => definition.tcp = spot.text()?,
            "interval" => definition.interval_ns = spot.duration()?,
            "timeout" => definition.timeout_ns = spot.duration()?,
            "deregistercriticalserviceafter" => {
                definition.deregister_critical_service_after_ns = spot.duration()?;
            }
            _ => {}
        }
    }
    Ok(definition)
}

fn read_deregister(top: &Spot<'_>) -> Result<(Deregister, String), String> {
    const FIELDS: &[&str] = &["Datacenter", "Node", "Address", "ServiceID", "CheckID", "Token"];
    let mut deregister = Deregister::default();
    let mut datacenter = String::new();
    for field in top.fields("DeregisterRequest", FIELDS)? {
        let (name, spot) = field?;
        match name {
            "Datacenter" => datacenter = spot.text()?,
            "Node" => deregister.node = spot.text()?,
            "ServiceID" => deregister.service_id = spot.text()?,
            "CheckID" => deregister.check_id = spot.text()?,
            _ => drop(spot.text()?),
        }
    }
    Ok((deregister, datacenter))
}

/// Fills in what may be left out and refuses what may not, in Consul's order.
fn complete(register: &mut Register) -> Result<(), String> {
    let node = &register.node;
    if node.node.is_empty() {
        return Err("Must provide node".into());
    }
    if node.address.is_empty() && !register.skip_node_update {
        return Err("Must provide address if SkipNodeUpdate is not set".into());
    }
    if !node.id.is_empty() {
        check_uuid(&node.id).map_err(|reason| format!("Bad node ID: {reason}"))?;
    }
    register.node.id.make_ascii_lowercase();
    if let Some(service) = &mut register.service {
        match (service.id.is_empty(), service.name.is_empty()) {
            (true, true) => return Err(no_index("service")),
            (true, false) => service.id = service.name.clone(),
            (false, true) => return Err("Must provide service name with ID".into()),
            (false, false) => {}
        }
        service.node = register.node.node.clone();
    }
    for check in &mut register.checks {
        if check.check_id.is_empty() {
            check.check_id = check.name.clone();
        }
        if check.check_id.is_empty() {
            return Err(format!("{} on node \"{}\"", no_index("check"), register.node.node));
        }
        if check.node.is_empty() {
            check.node = register.node.node.clone();
        }
        if check.kind.is_empty() {
            check.kind = kind(&check.definition).to_owned();
        }
    }
    Ok(())
}

fn no_index(table: &str) -> String {
    format!("failed inserting {table}: failed inserting {table}: object missing primary index")
}

fn kind(definition: &CheckDefinition) -> &'static str {
    match definition {
        definition if !definition.http.is_empty() => "http",
        definition if !definition.tcp.is_empty() => "tcp",
        _ => "",
    }
}

pub(super) fn check_uuid(id: &str) -> Result<(), &'static str> {
    let bytes = id.as_bytes();
    if bytes.len() != 36 {
        return Err("uuid string is wrong length");
    }
    let shaped = bytes.iter().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    if shaped { Ok(()) } else { Err("uuid is improperly formatted") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> (u16, String) {
        let response = register(body.as_bytes(), "dc1").expect_err(body);
        (response.status, String::from_utf8(response.body.to_vec()).expect("text"))
    }

    #[test]
    fn bodies_that_cannot_be_read() {
        for (body, reason) in [
            ("junk", "invalid character 'j' looking for beginning of value"),
            ("", "EOF"),
            ("{", "unexpected EOF"),
            ("[]", "json: cannot unmarshal array into Go value of type structs.RegisterRequest"),
            (r#"{"Node":"n","Bogus":1}"#, r#"json: unknown field "Bogus""#),
            (
                r#"{"Service":{"service":"s","enable_tag_override":true}}"#,
                r#"json: unknown field "enable_tag_override""#,
            ),
            (
                r#"{"Node":1}"#,
                "json: cannot unmarshal number into Go struct field RegisterRequest.Node of type string",
            ),
            (
                r#"{"Service":{"Meta":{"a":1}}}"#,
                "json: cannot unmarshal number into Go struct field NodeService.Service.Meta of type string",
            ),
            (r#"{"Check":{"Definition":{"Interval":"zz"}}}"#, "time: invalid duration \"zz\""),
            (r#"{"Check":{"Definition":{"Timeout":"3"}}}"#, "time: missing unit in duration \"3\""),
            (
                r#"{"Check":{"Namespace":"x"}}"#,
                "json: unknown field \"Namespace\" - Namespaces are a Consul Enterprise feature",
            ),
        ] {
            assert_eq!(refused(body), (400, format!("Request decode failed: {reason}")), "{body}");
        }
    }

    #[test]
    fn rules() {
        for (body, reason) in [
            ("{}", "Must provide node"),
            ("null", "Must provide node"),
            (r#"{"Node":"n"}"#, "Must provide address if SkipNodeUpdate is not set"),
            (r#"{"Node":"n","Address":"a","Datacenter":"nope"}"#, "No path to datacenter"),
            (r#"{"Node":"n","Address":"a","ID":"bad"}"#, "Bad node ID: uuid string is wrong length"),
            (r#"{"Node":"n","Address":"a","Service":{"ID":"x"}}"#, "Must provide service name with ID"),
            (
                r#"{"Node":"n","Address":"a","Service":{}}"#,
                "failed inserting service: failed inserting service: object missing primary index",
            ),
            (
                r#"{"Node":"n","Address":"a","Check":{}}"#,
                "failed inserting check: failed inserting check: object missing primary index on node \"n\"",
            ),
        ] {
            assert_eq!(refused(body), (500, reason.to_owned()), "{body}");
        }
        let response = deregister(b"{}", "dc1").expect_err("no node");
        assert_eq!((response.status, &*response.body), (500, &b"Must provide node"[..]));
        assert!(deregister(br#"{"Node":"d1","Address":"10.2.4.1"}"#, "dc1").is_ok());
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let body = br#"{"node":"n","ADDRESS":"a","Service":{"service":"s","Weights":{"Passing":2}},
            "Check":{"Name":"c","Definition":{"TCP":"x:1","Interval":5000000000,"Timeout":"1s"}},
            "Checks":[{"Name":"d","Status":"passing","Type":"ttl"}]} trailing"#;
        let register = register(body, "dc1").expect("valid");
        let service = register.service.expect("given");
        assert_eq!((service.id.as_str(), service.name.as_str()), ("s", "s"));
        assert_eq!(service.weights, Weights { passing: 2, warning: 0 });
        assert_eq!(register.node.datacenter, "dc1");
        let [d, c] = &register.checks[..] else { panic!("two checks") };
        assert_eq!((d.check_id.as_str(), d.kind.as_str(), d.status), ("d", "ttl", Status::Passing));
        assert_eq!((c.check_id.as_str(), c.kind.as_str(), c.status), ("c", "tcp", Status::Critical));
        assert_eq!((c.definition.interval_ns, c.definition.timeout_ns), (5_000_000_000, 1_000_000_000));
    }
}
