//! Handlers of the areas over a state built by commands: requests in, answers out, as recorded from Consul 1.8.7.

use std::rc::Rc;

use bytes::Bytes;
use muster_protocol::http::{Headers, Method};
use serde_json::{Value, json};

use super::exchange::{Handled, Outcome, Peer, Request, Response};
use super::query::Query;
use super::router::Found;
use super::{Edge, catalog_body, routes};
use crate::agent::{LocalState, door};
use crate::config::{Config, flags, sources};
use crate::consensus::{self, Encoded};
use crate::runtime::publish::Published;
use crate::store::command::{CatalogOp, Command, KvOp};
use crate::store::model::KvEntry;
use crate::store::topic::Topic;
use crate::store::{State, Touched};

/// A state under construction.
#[derive(Default)]
struct Built {
    state: State,
}

impl Built {
    fn apply(mut self, command: &Command) -> Built {
        let index = self.state.index() + 1;
        self.state.apply(index, Encoded::of(command).command(), &mut Touched::new());
        self
    }

    fn register(self, body: &Value) -> Built {
        let register = catalog_body::register(body.to_string().as_bytes(), "dc1").expect("a valid body");
        self.apply(&Command::Catalog(CatalogOp::Register(Box::new(register))))
    }

    fn put(self, key: &[u8], value: &str) -> Built {
        let entry = KvEntry { key: key.to_vec(), value: value.into(), ..KvEntry::default() };
        self.apply(&Command::Kv(KvOp::Set(entry)))
    }

    fn edge(self, flags: &[&str]) -> Rc<Edge> {
        let (proposals, state, _) = consensus::open("127.0.0.1:8300".to_owned());
        state.store(self.state);
        let local = Published::new(LocalState::default());
        let config = Published::new(config(flags));
        Rc::new(Edge::new(config, state, proposals, local, door().0))
    }
}

fn config(flags: &[&str]) -> Config {
    let words: Vec<String> = ["-bind=127.0.0.1", "-datacenter=dc1", "-data-dir=unused"]
        .iter()
        .chain(flags)
        .map(|w| (*w).to_owned())
        .collect();
    let parsed = flags::parse(&sources::agent_flags(), &words).expect("flags");
    sources::Sources::from_flags(&parsed).expect("flags of keys").load().expect("a valid configuration")
}

fn handle(edge: &Rc<Edge>, method: Method, target: &str) -> Handled {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let router = routes();
    let Found::Route(route) = router.find(path.as_bytes()) else { panic!("no route for {path}") };
    let request = Request {
        method,
        path: Bytes::copy_from_slice(path.as_bytes()),
        pattern: route.pattern,
        query: Query::parse(query.as_bytes()).expect("a query"),
        headers: Headers::default(),
        body: Bytes::new(),
        spool: None,
        peer: Peer::Unix,
    };
    (route.handler)(edge, &request)
}

fn get(edge: &Rc<Edge>, target: &str) -> Response {
    match handle(edge, Method::Get, target) {
        Ok(Outcome::Read(read)) => (read.render)(&edge.state()),
        Ok(Outcome::Reply(response)) | Err(response) => response,
        Ok(_) => panic!("{target} is a read"),
    }
}

fn body(response: &Response) -> &str {
    std::str::from_utf8(&response.body).expect("text")
}

fn answer(edge: &Rc<Edge>, target: &str) -> Value {
    let response = get(edge, target);
    assert_eq!(response.status, 200, "{target}: {}", body(&response));
    serde_json::from_slice(&response.body).expect("JSON")
}

/// The named field of each row.
fn column(rows: &Value, name: &str) -> Vec<String> {
    let cell = |row: &Value| name.split('.').fold(row.clone(), |value, part| value[part].clone());
    rows.as_array().expect("rows").iter().map(|row| cell(row).as_str().unwrap_or("?").to_owned()).collect()
}

/// Three instances in three states of health.
fn three() -> Built {
    [("h1", "passing"), ("h2", "warning"), ("h3", "critical")].iter().enumerate().fold(
        Built::default(),
        |built, (n, (node, status))| {
            built.register(&json!({
                "Node": node, "Address": format!("10.3.0.{n}"), "NodeMeta": {"n": (n + 1).to_string()},
                "Service": {"Service": "hs", "Port": 101 + n, "Tags": [format!("t{}", n + 1), "all"]},
                "Checks": [
                    {"CheckID": "serfHealth", "Name": "Serf", "Status": "passing"},
                    {"CheckID": "service:hs", "Name": "svc", "Status": status, "ServiceID": "hs", "Output": "out"},
                ],
            }))
        },
    )
}

#[test]
fn health_of_a_service() {
    let edge = three().edge(&[]);
    let nodes = |query: &str| column(&answer(&edge, &format!("/v1/health/service/hs{query}")), "Node.Node");
    for (query, expected) in [
        ("", &["h1", "h2", "h3"][..]),
        ("?passing", &["h1"]),
        ("?passing=1", &["h1"]),
        ("?passing=false", &["h1", "h2", "h3"]),
        ("?tag=t2", &["h2"]),
        ("?tag=T2&tag=all", &["h2"]),
        ("?tag=t2&tag=t1", &[]),
        ("?tag=", &[]),
        ("?tag=t2&passing", &[]),
        ("?node-meta=n:3", &["h3"]),
        ("?node-meta=n:3&node-meta=x:1", &[]),
        ("?filter=Service.Port+==+102", &["h2"]),
        ("?filter=Checks.Status+==+warning+or+Node.Meta.n+==+1", &["h1", "h2"]),
    ] {
        assert_eq!(nodes(query), expected, "{query}");
    }
    assert_eq!(answer(&edge, "/v1/health/service/none"), json!([]));
    let refused = get(&edge, "/v1/health/service/hs?passing=maybe");
    assert_eq!((refused.status, body(&refused)), (400, "Invalid value for ?passing"));
    let refused = get(&edge, "/v1/health/service/");
    assert_eq!((refused.status, body(&refused)), (400, "Missing service name"));
    let refused = get(&edge, "/v1/health/service/hs?filter=Nope+==+1");
    let text = "Failed to create boolean expression evaluator: Selector \"Nope\" is not valid";
    assert_eq!((refused.status, body(&refused)), (500, text));
    assert!(refused.headers.contains(&("X-Consul-Index".into(), "1".to_owned())));
    let refused = get(&edge, "/v1/health/service/hs?dc=nope");
    assert_eq!((refused.status, body(&refused)), (500, "No path to datacenter"));
}

#[test]
fn a_health_row_to_the_letter() {
    let edge = three().edge(&[]);
    let expected = concat!(
        r#"[{"Node":{"ID":"","Node":"h1","Address":"10.3.0.0","Datacenter":"dc1","TaggedAddresses":null,"Meta":{"n":"1"},"#,
        r#""CreateIndex":1,"ModifyIndex":1},"Service":{"ID":"hs","Service":"hs","Tags":["t1","all"],"Address":"","Meta":null,"#,
        r#""Port":101,"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"MeshGateway":{},"Expose":{}},"#,
        r#""Connect":{},"CreateIndex":1,"ModifyIndex":1},"Checks":[{"Node":"h1","CheckID":"serfHealth","Name":"Serf","#,
        r#""Status":"passing","Notes":"","Output":"","ServiceID":"","ServiceName":"","ServiceTags":[],"Type":"","#,
        r#""Definition":{},"CreateIndex":1,"ModifyIndex":1},{"Node":"h1","CheckID":"service:hs","Name":"svc","#,
        r#""Status":"passing","Notes":"","Output":"out","ServiceID":"hs","ServiceName":"hs","ServiceTags":["t1","all"],"#,
        r#""Type":"","Definition":{},"CreateIndex":1,"ModifyIndex":1}]}]"#,
    );
    assert_eq!(body(&get(&edge, "/v1/health/service/hs?passing")), expected);
}

#[test]
fn checks_by_service_state_and_node() {
    let edge = three().edge(&[]);
    let nodes = |target: &str| column(&answer(&edge, target), "Node");
    for (target, expected) in [
        ("/v1/health/checks/hs", &["h1", "h2", "h3"][..]),
        ("/v1/health/checks/hs?node-meta=n:2", &["h2"]),
        ("/v1/health/checks/hs?filter=Status+!=+critical", &["h1", "h2"]),
        ("/v1/health/checks/none", &[]),
        ("/v1/health/state/warning", &["h2"]),
        ("/v1/health/state/critical", &["h3"]),
        ("/v1/health/state/passing?filter=ServiceName+==+hs", &["h1"]),
        ("/v1/health/state/any?node-meta=n:1", &["h1", "h1"]),
        ("/v1/health/state/bogus", &[]),
        ("/v1/health/node/h3?filter=CheckID+==+serfHealth", &["h3"]),
        ("/v1/health/node/none", &[]),
        ("/v1/health/connect/hs", &[]),
    ] {
        assert_eq!(nodes(target), expected, "{target}");
    }
    assert_eq!(body(&get(&edge, "/v1/health/state/")), "Missing check state");
    assert_eq!(body(&get(&edge, "/v1/health/node/")), "Missing node name");
}

#[test]
fn only_what_is_fit_for_work() {
    let edge = three()
        .register(&json!({"Node": "h1", "Address": "10.3.0.0", "Service": {"Service": "bare"}}))
        .edge(&[]);
    assert_eq!(column(&answer(&edge, "/v1/services/hs"), "Node"), ["h1"]);
    assert_eq!(column(&answer(&edge, "/v1/services/bare"), "ServiceID"), ["bare"]);
    assert_eq!(answer(&edge, "/v1/services/none"), json!([]));
    let sick = json!({"Node": "h1", "Address": "10.3.0.0", "Check": {"Name": "disk", "Status": "critical"}});
    let edge = three().register(&sick).edge(&[]);
    assert_eq!(answer(&edge, "/v1/services/hs"), json!([]));
}

#[test]
fn catalog_lists() {
    let edge = three().register(&json!({"Node": "N1", "Address": "a"})).edge(&[]);
    assert_eq!(column(&answer(&edge, "/v1/catalog/nodes"), "Node"), ["h1", "h2", "h3", "N1"]);
    assert_eq!(column(&answer(&edge, "/v1/catalog/nodes?node-meta=n:2"), "Node"), ["h2"]);
    assert_eq!(answer(&edge, "/v1/catalog/services"), json!({"hs": ["all", "t1", "t2", "t3"]}));
    assert_eq!(answer(&edge, "/v1/catalog/services?node-meta=n:2"), json!({"hs": ["all", "t2"]}));
    assert_eq!(column(&answer(&edge, "/v1/catalog/service/hs?tag=t3"), "Node"), ["h3"]);
    assert_eq!(column(&answer(&edge, "/v1/catalog/service/hs?filter=ServicePort+==+101"), "Node"), ["h1"]);
    assert_eq!(answer(&edge, "/v1/catalog/datacenters"), json!(["dc1"]));
    assert_eq!(answer(&edge, "/v1/catalog/connect/hs"), json!([]));
    assert_eq!(answer(&edge, "/v1/catalog/node/none"), Value::Null);
    assert_eq!(answer(&edge, "/v1/catalog/node-services/none"), json!({"Node": null, "Services": null}));
    assert_eq!(answer(&edge, "/v1/catalog/node/n1")["Services"], json!({}));
    assert_eq!(answer(&edge, "/v1/catalog/node-services/n1")["Services"], Value::Null);
    assert_eq!(answer(&edge, "/v1/catalog/node-services/n1?filter=ID+==+x")["Services"], json!([]));
    assert_eq!(answer(&edge, "/v1/catalog/node/h1")["Services"]["hs"]["Port"], json!(101));
    assert_eq!(column(&answer(&edge, "/v1/catalog/node-services/h1")["Services"], "ID"), ["hs"]);
}

#[test]
fn keys_and_values() {
    let built = ["g/k/", "g/k/a", "g/k/b/1", "g/k/b/2", "g/k/d-1", "g/k/d-2"]
        .iter()
        .fold(Built::default(), |built, key| built.put(key.as_bytes(), "x"));
    let edge = built.put(b"a\xffb", "").edge(&[]);
    let all = json!(["g/k/", "g/k/a", "g/k/b/1", "g/k/b/2", "g/k/d-1", "g/k/d-2"]);
    for (target, expected) in [
        ("/v1/kv/g?keys", all.clone()),
        ("/v1/kv/g/k/?keys&separator=/", json!(["g/k/", "g/k/a", "g/k/b/", "g/k/d-1", "g/k/d-2"])),
        ("/v1/kv/g/k/?keys&seperator=-", json!(["g/k/", "g/k/a", "g/k/b/1", "g/k/b/2", "g/k/d-"])),
        ("/v1/kv/g/k?keys&separator=/", json!(["g/k/"])),
        ("/v1/kv/g/k/?keys&separator=zzz", all.clone()),
        ("/v1/kv/a?keys", json!(["a\u{fffd}b"])),
    ] {
        assert_eq!(answer(&edge, target), expected, "{target}");
    }
    assert_eq!(column(&answer(&edge, "/v1/kv/g/k/d?recurse"), "Key"), ["g/k/d-1", "g/k/d-2"]);
    assert_eq!(answer(&edge, "/v1/kv/g/k/a")[0]["Value"], json!("eA=="));
    let raw = get(&edge, "/v1/kv/g/k/a?raw");
    assert_eq!(body(&raw), "x");
    for header in [
        ("Content-Type", "text/plain"),
        ("Content-Security-Policy", "sandbox"),
        ("X-Content-Type-Options", "nosniff"),
    ] {
        assert!(raw.headers.contains(&(header.0.into(), header.1.to_owned())), "{header:?}");
    }
    for target in ["/v1/kv/none", "/v1/kv/none?keys", "/v1/kv/none?recurse", "/v1/kv/none?raw"] {
        assert_eq!(get(&edge, target), Response::empty(404), "{target}");
    }
    assert_eq!(get(&edge, "/v1/kv/"), Response::bad_request("Missing key name"));
    assert_eq!(answer(&Built::default().edge(&[]), "/v1/kv/?keys"), json!([]));
}

#[test]
fn writes_that_are_refused_at_once() {
    let edge = Built::default().edge(&[]);
    for (method, target, status, text) in [
        (Method::Put, "/v1/kv/", 400, "Missing key name"),
        (Method::Put, "/v1/kv/x?cas=0&acquire=abc", 400, "Conflicting flags: acquire=abc&cas=0"),
        (
            Method::Put,
            "/v1/kv/x?release=abc&cas=1&flags=3",
            400,
            "Conflicting flags: cas=1&flags=3&release=abc",
        ),
        (Method::Delete, "/v1/kv/x?recurse&cas=1", 400, "Conflicting flags: cas=1&recurse="),
        (Method::Put, "/v1/kv/x?cas=abc", 500, "strconv.ParseUint: parsing \"abc\": invalid syntax"),
        (Method::Put, "/v1/kv/x?cas=", 500, "strconv.ParseUint: parsing \"\": invalid syntax"),
        (Method::Delete, "/v1/kv/x?cas=-1", 500, "strconv.ParseUint: parsing \"-1\": invalid syntax"),
        (
            Method::Put,
            "/v1/kv/x?flags=99999999999999999999",
            500,
            "strconv.ParseUint: parsing \"99999999999999999999\": value out of range",
        ),
        (Method::Put, "/v1/kv/x?acquire=", 500, "missing session"),
        (Method::Put, "/v1/kv/x?release=", 500, "missing session"),
        (
            Method::Put,
            "/v1/kv/x?acquire=abc",
            500,
            "failed session lookup: index error: UUID must be 36 characters",
        ),
        (
            Method::Put,
            "/v1/kv/x?stale&consistent",
            400,
            "Cannot specify ?stale with ?consistent, conflicting semantics.",
        ),
        (Method::Put, "/v1/kv/x?dc=nope", 500, "No path to datacenter"),
        (Method::Put, "/v1/catalog/deregister", 400, "Request decode failed: EOF"),
    ] {
        let Err(refused) = handle(&edge, method, target) else { panic!("{target} was taken") };
        assert_eq!((refused.status, body(&refused)), (status, text), "{target}");
    }
}

#[test]
fn overviews() {
    let edge = three()
        .register(&json!({
            "Node": "h1", "Address": "10.3.0.0",
            "Service": {"ID": "hs2", "Service": "hs", "Meta": {"external-source": "nomad"}},
        }))
        .register(&json!({"Node": "bare", "Address": "a"}))
        .edge(&[]);
    let services = answer(&edge, "/v1/internal/ui/services");
    let expected = json!([{
        "Name": "hs", "Tags": ["all", "t1", "t2", "t3"], "Nodes": ["h1", "h1", "h2", "h3"], "InstanceCount": 4,
        "ChecksPassing": 5, "ChecksWarning": 1, "ChecksCritical": 1, "ExternalSources": ["nomad"],
        "GatewayConfig": {},
    }]);
    assert_eq!(services, expected);
    assert_eq!(
        column(&answer(&edge, "/v1/internal/ui/nodes?filter=Checks.Status+==+warning"), "Node"),
        ["h2"]
    );
    let bare = json!({"ID": "", "Node": "bare", "Address": "a", "TaggedAddresses": null, "Meta": null, "Services": [], "Checks": []});
    assert_eq!(answer(&edge, "/v1/internal/ui/node/bare"), bare);
    assert_eq!(get(&edge, "/v1/internal/ui/node/none"), Response::empty(404));
}

#[test]
fn layout_and_cache_headers() {
    let edge = three().edge(&["-dev"]);
    let services = get(&edge, "/v1/catalog/services?node-meta=n:1");
    let expected = "{\n    \"hs\": [\n        \"all\",\n        \"t1\"\n    ]\n}\n";
    assert_eq!(body(&services), expected);
    let ask = || {
        let response = get(&edge, "/v1/health/service/hs?cached&tag=only-this-test");
        response
            .headers
            .iter()
            .filter(|(name, _)| matches!(&**name, "X-Cache" | "Age"))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(ask(), [("X-Cache".into(), "MISS".to_owned())]);
    assert_eq!(ask(), [("X-Cache".into(), "HIT".to_owned()), ("Age".into(), "0".to_owned())]);
}

#[test]
fn removals_move_the_index_of_the_other_table_too() {
    let remove = |built: Built, body: &Value| {
        let deregister = catalog_body::deregister(body.to_string().as_bytes(), "dc1").expect("a valid body");
        built.apply(&Command::Catalog(CatalogOp::Deregister(deregister)))
    };
    let indexes = |built: &Built| {
        (built.state.topic_index(&Topic::Services), built.state.topic_index(&Topic::CheckState(None)))
    };
    let built = Built::default()
        .register(&json!({"Node": "n", "Address": "a", "Check": {"Name": "c"}}))
        .register(&json!({"Node": "n", "Address": "a", "Service": {"Service": "s"}}));
    assert_eq!(indexes(&built), (2, 1));
    let built = remove(built, &json!({"Node": "n", "ServiceID": "s"}));
    assert_eq!(indexes(&built), (3, 3));
    let built = remove(built, &json!({"Node": "n", "CheckID": "c"}));
    assert_eq!(indexes(&built), (4, 4));
}

#[test]
fn rows_of_this_agent_s_node_go_first_when_asked_near_to_it() {
    let edge = three().edge(&["-node=h2"]);
    for near in ["_agent", "H2"] {
        let order = |path: &str, name: &str| column(&answer(&edge, &format!("{path}?near={near}")), name);
        assert_eq!(order("/v1/catalog/nodes", "Node"), ["h2", "h1", "h3"]);
        assert_eq!(order("/v1/catalog/service/hs", "Node"), ["h2", "h1", "h3"]);
        assert_eq!(order("/v1/health/service/hs", "Node.Node"), ["h2", "h1", "h3"]);
        assert_eq!(order("/v1/health/checks/hs", "Node"), ["h2", "h1", "h3"]);
        assert_eq!(order("/v1/health/state/any", "Node"), ["h2", "h2", "h1", "h1", "h3", "h3"]);
    }
    for near in ["h3", "nobody", ""] {
        let nodes = answer(&edge, &format!("/v1/catalog/nodes?near={near}"));
        assert_eq!(column(&nodes, "Node"), ["h1", "h2", "h3"]);
    }
    let Ok(Outcome::Read(read)) = handle(&edge, Method::Get, "/v1/catalog/nodes?near=_ip") else {
        panic!("a read")
    };
    assert!(!read.cacheable);
}

#[test]
fn answers_narrowed_by_node_metadata_change_with_the_nodes() {
    let edge = three().edge(&[]);
    for target in
        ["/v1/health/checks/hs", "/v1/health/state/passing", "/v1/health/state/any", "/v1/catalog/services"]
    {
        let target = format!("{target}?node-meta=n:1");
        let Ok(Outcome::Read(read)) = handle(&edge, Method::Get, &target) else { panic!("a read") };
        let before = edge.state();
        let after = Built { state: (*before).clone() }.register(&json!({
            "Node": "h1", "Address": "10.3.0.0", "NodeMeta": {"n": "other"},
        }));
        assert_ne!((read.render)(&before).body, (read.render)(&after.state).body, "{target}");
        assert!(after.state.last_change(&read.topic) > before.last_change(&read.topic), "{target}");
    }
}

#[test]
fn agents_are_told_what_has_changed_if_they_speak_of_this_cluster() {
    let edge = three().edge(&[]);
    let read = |query: &str| match handle(&edge, Method::Get, &format!("/v1/internal/rpc/view/{query}")) {
        Ok(Outcome::Read(read)) => {
            Ok((read.options.wait.map(|wait| wait.index), (read.render)(&edge.state())))
        }
        Err(refusal) => Err(refusal.status),
        Ok(_) => panic!("{query} is a read"),
    };
    let length = |query: &str| read(query).map(|(_, response)| response.body.len());
    let everything = length("service?format=1&name=hs");
    assert!(everything > Ok(1000));
    // This server is in no cluster yet: its history has no name.
    let (wait, response) = read("service?format=1&name=hs&history=&since=3&index=3&wait=10m").expect("told");
    assert_eq!(wait, Some(3));
    assert!(
        response.body.len() < 500 && response.headers.iter().any(|(name, _)| *name == "X-Muster-History")
    );
    let other = read("service?format=1&name=hs&history=other&since=3&index=3&wait=10m").expect("told");
    assert_eq!((other.0, Ok(other.1.body.len())), (None, everything));
    for refused in
        ["service?name=hs", "service?name=hs&format=2", "service?format=1", "node?format=1&name=h1&since=x"]
    {
        assert_eq!(length(refused), Err(400), "{refused}");
    }
    assert!(length("node?format=1&name=H1") > Ok(100) && length("names?format=1") > Ok(10));
    assert_eq!(get(&edge, "/v1/internal/rpc/address?ip=10.3.0.1").body, "node h2");
    assert_eq!(get(&edge, "/v1/internal/rpc/address?ip=10.9.9.9").body, "");
    assert_eq!(get(&edge, "/v1/internal/rpc/address?ip=ten").status, 400);
}

#[test]
fn members_of_a_segment_are_refused_as_in_consul() {
    let edge = Built::default().edge(&[]);
    let text = "Network segments are not supported in this version of Consul";
    assert_eq!(get(&edge, "/v1/agent/members?segment=x"), Response::internal(text));
    assert_eq!(get(&edge, "/v1/agent/members?segment=").status, 200);
}
