//! Golden transcripts: the agent must answer as a recorded Consul 1.8.7 did.
//!
//! `tests/golden/*.jsonl` holds the recordings, one file per area, and `tests/golden/envs.json` the agents that each
//! case needs. Every area is one test. `tests/golden/SKIPPED.txt` names the cases that do not pass, the step at which, and
//! the reason.
//!
//! Environment: `MUSTER_GOLDEN_BINARY` runs another binary (then nothing is skipped), `MUSTER_TEST_RUNTIME` picks the
//! driver (`glommio`, `epoll`), `MUSTER_GOLDEN_CASE` a prefix of case names, `MUSTER_GOLDEN_SLACK` a factor for upper
//! bounds of time, `MUSTER_GOLDEN_VERBOSE` shows why skipped cases do not pass.

#[path = "golden/case.rs"]
mod case;
#[path = "golden/env.rs"]
mod env;
#[path = "golden/matching.rs"]
mod matching;
#[path = "golden/replay.rs"]
mod replay;
mod support;

macro_rules! areas {
    ($($test:ident: $area:literal,)*) => {
        $(#[test]
        fn $test() {
            replay::area($area);
        })*

        /// The areas with a test of their own.
        const TESTED: &[&str] = &[$($area),*];
    };
}

areas! {
    acl_off: "acl-off",
    agent: "agent",
    agent_check: "agent-check",
    agent_service: "agent-service",
    blocking: "blocking",
    catalog: "catalog",
    consistency: "consistency",
    coordinate: "coordinate",
    dns_addr: "dns-addr",
    dns_config: "dns-config",
    dns_limits: "dns-limits",
    dns_node: "dns-node",
    dns_service: "dns-service",
    dns_zone: "dns-zone",
    event: "event",
    files: "files",
    health: "health",
    http: "http",
    kv: "kv",
    lan: "lan",
    lock: "lock",
    noleader: "noleader",
    noserver: "noserver",
    operator: "operator",
    session: "session",
    snapshot: "snapshot",
    status: "status",
    trio: "trio",
    txn: "txn",
}

/// Areas whose rooms are not built yet, each with the feature that it waits for.
const LATER: &[(&str, &str)] = &[
    ("acl-auth", "ACL"),
    ("acl-boot", "ACL"),
    ("acl-enforce", "ACL"),
    ("acl-legacy", "ACL"),
    ("acl-policy", "ACL"),
    ("acl-token", "ACL"),
    ("dns-query", "prepared queries"),
    ("query", "prepared queries"),
    ("wan", "WAN gossip"),
];

#[test]
fn every_recording_is_tested_or_named_as_later() {
    let mut found: Vec<String> = std::fs::read_dir(case::folder())
        .expect("the folder of recordings")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".jsonl").map(str::to_owned))
        .collect();
    found.sort();
    let mut named: Vec<&str> = LATER.iter().map(|(area, _)| *area).chain(TESTED.iter().copied()).collect();
    named.sort_unstable();
    assert_eq!(found, named);
    for area in &found {
        case::cases(area); // every recording is understood whole, those for later too
    }
}

#[test]
fn every_listed_case_exists() {
    let names: Vec<String> = TESTED.iter().flat_map(|area| case::cases(area)).map(|case| case.name).collect();
    for listed in case::skipped().keys() {
        assert!(names.contains(listed), "{listed} is listed, but there is no such case");
    }
}

mod matcher {
    //! The matcher must find differences: a comparison that never fails proves nothing.

    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::matching::{Bindings, Rules, match_json, match_text};

    fn differs(expected: Value, actual: Value, rules: Rules) -> bool {
        !match_json(&expected, &actual, &mut Bindings::new(BTreeMap::new()), rules, "$").is_empty()
    }

    #[test]
    fn values_compare_by_value() {
        let plain = Rules::default();
        assert!(!differs(json!({"a": 1, "b": null}), json!({"b": null, "a": 1.0}), plain));
        assert!(differs(json!({"a": 1}), json!({"a": 1, "b": 2}), plain));
        assert!(differs(json!({"a": 1, "b": 2}), json!({"a": 1}), plain));
        assert!(differs(json!([]), json!(null), plain));
        assert!(differs(json!([1, 2]), json!([2, 1]), plain));
        assert!(!differs(json!([1, 2]), json!([2, 1]), Rules { unordered: true, ..plain }));
        assert!(!differs(json!({"a": 1}), json!({"a": 1, "b": 2}), Rules { subset: true, ..plain }));
        assert!(!differs(json!([2]), json!([1, 2]), Rules { contains: true, ..plain }));
        assert!(differs(json!([3]), json!([1, 2]), Rules { contains: true, ..plain }));
    }

    #[test]
    fn labels_bind_once_and_indexes_keep_their_order() {
        let plain = Rules::default();
        assert!(!differs(json!(["{{index:1}}", "{{index:2}}"]), json!([5, 7]), plain));
        assert!(differs(json!(["{{index:1}}", "{{index:2}}"]), json!([7, 5]), plain));
        assert!(differs(json!(["{{index:1}}", "{{index:1}}"]), json!([5, 7]), plain));
        assert!(!differs(json!(["{{index:x2}}", "{{index:x1}}"]), json!([5, 7]), plain));
        let backtrack = json!([{"n": "{{int:1}}"}, {"n": "{{int:1}}", "m": 1}]);
        let actual = json!([{"n": 2, "m": 1}, {"n": 2}]);
        assert!(!differs(backtrack, actual, Rules { unordered: true, ..plain }));
    }

    #[test]
    fn text_fits_its_placeholders_and_nothing_else() {
        let mut bindings = Bindings::new(BTreeMap::from([("a.http".to_owned(), json!(8500))]));
        assert_eq!(
            match_text("at 127.0.0.1:{{a.http}}: {{word:1}}", "at 127.0.0.1:8500: x", &mut bindings),
            Ok(())
        );
        assert!(match_text("{{word:1}}", "y", &mut bindings).is_err());
        assert!(match_text("{{int}}", "12 ", &mut bindings).is_err());
        assert_eq!(bindings.fill("{{word:1}}{{fill:z:3}}"), "xzzz");
    }
}
