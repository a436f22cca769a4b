//! Expressions and their outcomes, as recorded from Consul 1.8.7.

use proptest::prelude::*;

use super::ast::{Expr, Match, Op};
use super::parse::parse;
use super::schema::{AGENT_SERVICE, CATALOG_SERVICE, HEALTH_CHECK, NODE, SERVICE_ENTRY};
use super::*;
use crate::store::model::{Check, Node, Service, ServiceAddress, Status};

fn service() -> Service {
    Service {
        id: "f1".into(),
        name: "fa".into(),
        tags: vec!["x".into(), "y".into()],
        meta: Some([("k".to_owned(), "1".to_owned()), ("a b".to_owned(), "v".to_owned())].into()),
        tagged_addresses: Some(
            [("wan".to_owned(), ServiceAddress { address: "198.51.100.1".into(), port: 80 })].into(),
        ),
        port: 8080,
        ..Service::default()
    }
}

fn holds(expression: &str) -> bool {
    Filter::compile(expression, AGENT_SERVICE).expect(expression).expect("not empty").matches(&service())
}

#[test]
fn tests_of_fields() {
    for expression in [
        "Service == fa",
        "Service == \"fa\"",
        "Service == `fa`",
        "Service==fa",
        "(Service == fa)",
        "not Service == fb",
        "not not Service == fa",
        "Service != fb and Port == 8080",
        "Service == fb or Port == 8080",
        "Port == \"0x1f90\"",
        "Port != 1",
        "x in Tags",
        "\"x\" in Tags and z not in Tags",
        "Tags contains x",
        "Tags not contains z",
        "Tags is not empty",
        "k in Meta",
        "Meta contains k",
        "Meta.k == 1",
        "Meta[\"a b\"] == v",
        "Meta.none != 1",
        "Meta is not empty",
        "ID matches \"f[12]\"",
        "ID not matches \"^x\"",
        "a in Service",
        "Service contains fa",
        "EnableTagOverride == false",
        "EnableTagOverride != T",
        "TaggedAddresses.wan.Port == 80",
        "TaggedAddresses.lan.Port != 80",
        "wan in TaggedAddresses",
        "Weights.Passing == 1",
        "Proxy.DestinationServiceName == \"\"",
        "Proxy.Upstreams is empty",
        "Kind == \"\"",
        "Connect.Native == false",
        // What a map does not hold matches every pattern: so does Consul.
        "Meta.none matches \"x\"",
        "Service == fb and Port == 1 or Service == fa",
        " \tService == fa\n",
    ] {
        assert!(holds(expression), "{expression}");
    }
    for expression in [
        "Service == fb",
        "not Service == fa",
        "Service == fa and Port == 1",
        "Service == fb and (Port == 8080 or Service == fa)",
        "z in Tags",
        "Tags is empty",
        "Meta.none == 1",
        "Proxy.Upstreams.DestinationName != x",
        "ID matches \"^x\"",
    ] {
        assert!(!holds(expression), "{expression}");
    }
    assert!(Filter::compile("", AGENT_SERVICE).expect("empty is fine").is_none());
}

#[test]
fn rows_of_other_answers() {
    let node =
        Node { node: "h1".into(), meta: Some([("n".to_owned(), "1".to_owned())].into()), ..Node::default() };
    let service = service();
    let serf = Check { check_id: "serfHealth".into(), status: Status::Passing, ..Check::default() };
    let own = Check { check_id: "own".into(), status: Status::Warning, ..Check::default() };
    let checks = vec![&serf, &own];
    let entry = ServiceEntry { node: &node, service: &service, checks: &checks };
    let chosen = |expression: &str| {
        Filter::compile(expression, SERVICE_ENTRY).expect(expression).expect("not empty").matches(&entry)
    };
    assert!(chosen("Checks.Status == warning and Node.Meta.n == 1 and Service.Port == 8080"));
    // Both hold: a test on a list asks for any of its members.
    assert!(chosen("Checks.Status != warning and Checks is not empty"));
    assert!(!chosen("Checks.Status == critical"));
    let row = CatalogService { node: &node, service: &service };
    let chosen = |expression: &str| {
        Filter::compile(expression, CATALOG_SERVICE).expect(expression).expect("not empty").matches(&row)
    };
    assert!(chosen("ServicePort == 8080 and NodeMeta.n == 1 and x in ServiceTags and Node == h1"));
    assert!(chosen("ServiceName == fa and ServiceTaggedAddresses.wan.Address == \"198.51.100.1\""));
    assert!(chosen("ServiceWeights.Warning == 1 and ServiceKind == \"\" and ServiceConnect.Native != true"));
    let chosen = Filter::compile("CheckID == serfHealth", HEALTH_CHECK).expect("valid").expect("not empty");
    assert!(chosen.matches(&serf) && !chosen.matches(&own));
    let chosen = Filter::compile("Node matches \"h.\"", NODE).expect("valid").expect("not empty");
    assert!(chosen.matches(&node));
}

#[test]
fn messages() {
    for (expression, message) in [
        ("Bogus == 1", "Selector \"Bogus\" is not valid"),
        ("Meta.k.z == 1", "Selector \"Meta.k.z\" is not valid"),
        ("CreateIndex == 1", "Selector \"CreateIndex\" is not valid"),
        (
            "Service ==",
            "1:11 (10): no match found, expected: \"-\", \"0\", \"\\\"\", \"`\", [ \\t\\r\\n], [1-9] or [a-zA-Z]",
        ),
        (
            "Port == abc",
            "Failed to coerce value \"abc\" for selector \"Port\": strconv.ParseInt: parsing \"abc\": invalid syntax",
        ),
        (
            "Port == 1.5",
            "Failed to coerce value \"1.5\" for selector \"Port\": strconv.ParseInt: parsing \"1.5\": invalid syntax",
        ),
        (
            "Port == 99999999999999999999",
            "Failed to coerce value \"99999999999999999999\" for selector \"Port\": strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
        ),
        (
            "EnableTagOverride == maybe",
            "Failed to coerce value \"maybe\" for selector \"EnableTagOverride\": strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
        ("(Service == a", "1:14 (13): rule \"grouping\": Unmatched parentheses"),
        ("Service == 1.2.3.4", "1:15 (14): rule \"number\": Invalid number literal"),
        ("Service == 01", "1:13 (12): rule \"number\": Invalid number literal"),
        ("Service == \"abc", "1:16 (15): rule \"string\": Unterminated string literal"),
        ("Service == \"a\\qb\"", "1:12 (11): rule \"string\": invalid syntax"),
        ("Meta[\"k\"", "1:9 (8): rule \"index\": Unclosed index expression"),
        ("Meta[k]==1", "1:6 (5): rule \"index\": Invalid index"),
        ("\"x\" not in \"y\"", "1:12 (11): rule \"match\": Invalid selector"),
        ("Tags == x", "Invalid match operator \"Equal\" for selector \"Tags\""),
        ("Port matches \"a\"", "Invalid match operator \"Matches\" for selector \"Port\""),
        ("Service is empty", "Invalid match operator \"Is Empty\" for selector \"Service\""),
        ("a in", "1:5 (4): no match found, expected: [ \\t\\r\\n]"),
        ("Service == a or", "1:16 (15): no match found, expected: [ \\t\\r\\n]"),
        (
            "Service = a",
            "1:9 (8): no match found, expected: \"!=\", \"==\", \"contains\", \"in\", \"is\", \"matches\", \"not\" or [ \\t\\r\\n]",
        ),
        ("Service == a b", "1:14 (13): no match found, expected: \"and\", \"or\", [ \\t\\r\\n] or EOF"),
        (
            "Service == a)",
            "1:13 (12): no match found, expected: \".\", \"[\", [ \\t\\r\\n], [a-zA-Z0-9_] or EOF",
        ),
        (
            " ",
            "1:2 (1): no match found, expected: \"(\", \"-\", \"0\", \"\\\"\", \"`\", \"not\", [ \\t\\r\\n], [1-9] or [a-zA-Z]",
        ),
        (
            "()",
            "1:2 (1): no match found, expected: \"(\", \"-\", \"0\", \"\\\"\", \"`\", \"not\", [ \\t\\r\\n], [1-9] or [a-zA-Z]",
        ),
        (
            "not",
            "1:4 (3): no match found, expected: \"!=\", \".\", \"==\", \"[\", [ \\t\\r\\n] or [a-zA-Z0-9_]",
        ),
        ("Service contains -", "1:19 (18): no match found, expected: \"0\" or [1-9]"),
    ] {
        let error = Filter::compile(expression, AGENT_SERVICE).expect_err(expression);
        let expected = format!("Failed to create boolean expression evaluator: {message}");
        assert_eq!(error.to_string(), expected, "{expression}");
    }
}

/// Expressions for `/v1/catalog/nodes` and what Consul 1.8.7 said of them; `None` where it took them.
const RECORDED: &[(&str, Option<&str>)] = &[
    (
        "(",
        Some(
            "1:2 (1): no match found, expected: \"(\", \"-\", \"0\", \"\\\"\", \"`\", \"not\", [ \\t\\r\\n], [1-9] or [a-zA-Z]",
        ),
    ),
    ("a == b", Some("Selector \"a\" is not valid")),
    ("Node == \"x\" and", Some("1:16 (15): no match found, expected: [ \\t\\r\\n]")),
    (
        "Meta[\"k",
        Some("1:8 (7): rule \"string\": Unterminated string literal\n1:6 (5): rule \"index\": Invalid index"),
    ),
    ("Meta[\"k\"] == 1", None),
    ("Meta[\"k\"", Some("1:9 (8): rule \"index\": Unclosed index expression")),
    ("Meta[`k`]==1", None),
    ("Meta[\"k\"].x == 1", Some("Selector \"Meta.k.x\" is not valid")),
    ("Node is", Some("1:8 (7): no match found, expected: [ \\t\\r\\n]")),
    ("Node is not", Some("1:12 (11): no match found, expected: [ \\t\\r\\n]")),
    ("Node not", Some("1:9 (8): no match found, expected: [ \\t\\r\\n]")),
    ("Node not in", Some("1:12 (11): no match found, expected: [ \\t\\r\\n]")),
    (
        "x not in Meta and (y in Meta or z in Meta",
        Some("1:42 (41): rule \"grouping\": Unmatched parentheses"),
    ),
    ("((Node == a)", Some("1:13 (12): rule \"grouping\": Unmatched parentheses")),
    ("(Node == a))", Some("1:12 (11): no match found, expected: [ \\t\\r\\n] or EOF")),
    ("not (Node == a)", None),
    (
        "not(Node == a)",
        Some("1:4 (3): no match found, expected: \"!=\", \".\", \"==\", \"[\", [ \\t\\r\\n] or [a-zA-Z0-9_]"),
    ),
    ("not  not Node == a", None),
    (
        "Node matches `[`",
        Some("Failed to compile regular expression \"[\": error parsing regexp: missing closing ]: `[`"),
    ),
    ("Node == \"é\" x", Some("1:13 (13): no match found, expected: \"and\", \"or\", [ \\t\\r\\n] or EOF")),
    ("Node == a\n b", Some("2:2 (11): no match found, expected: \"and\", \"or\", [ \\t\\r\\n] or EOF")),
    (
        "\nNode",
        Some("2:5 (5): no match found, expected: \"!=\", \".\", \"==\", \"[\", [ \\t\\r\\n] or [a-zA-Z0-9_]"),
    ),
    ("Node == -", Some("1:10 (9): no match found, expected: \"0\" or [1-9]")),
    ("Node == -1a", Some("1:11 (10): rule \"number\": Invalid number literal")),
    ("Node == 1.", Some("1:10 (9): rule \"number\": Invalid number literal")),
    ("Node == 1.2 ", None),
    ("Node==1and", Some("1:8 (7): rule \"number\": Invalid number literal")),
    ("Node == 1)", Some("1:10 (9): no match found, expected: \".\", [ \\t\\r\\n], [0-9] or EOF")),
    ("\"Node\" == a", Some("1:8 (7): no match found, expected: \"in\", \"not\" or [ \\t\\r\\n]")),
    ("1 == 2", Some("1:3 (2): no match found, expected: \"in\", \"not\" or [ \\t\\r\\n]")),
    ("1 in Meta", None),
    ("-1 not in Meta", None),
    ("\"a\" in Meta.k", None),
    ("Meta contains \"a\" or \"b\"", Some("1:25 (24): no match found, expected: [ \\t\\r\\n]")),
    ("Meta contains a or b in Meta", None),
    ("Node==\"a\"and Node==\"b\"", Some("1:10 (9): no match found, expected: [ \\t\\r\\n] or EOF")),
    (
        "Node==\"a\" and Node==\"b\"or Node==c",
        Some("1:24 (23): no match found, expected: [ \\t\\r\\n] or EOF"),
    ),
    ("Node != `a", Some("1:11 (10): rule \"string\": Unterminated string literal")),
    ("\"a\" is empty", Some("1:5 (4): no match found, expected: \"in\", \"not\" or [ \\t\\r\\n]")),
    ("\"a\\q\" in Meta", Some("1:1 (0): rule \"string\": invalid syntax")),
    (
        "\"a\\q\" in Meta and \"b\\z\" in Meta",
        Some("1:1 (0): rule \"string\": invalid syntax\n1:19 (18): rule \"string\": invalid syntax"),
    ),
    (
        "[",
        Some(
            "1:1 (0): no match found, expected: \"(\", \"-\", \"0\", \"\\\"\", \"`\", \"not\", [ \\t\\r\\n], [1-9] or [a-zA-Z]",
        ),
    ),
    ("Node.", Some("1:6 (5): no match found, expected: [a-zA-Z]")),
    ("Node..a == 1", Some("1:6 (5): no match found, expected: [a-zA-Z]")),
    ("Node == a.b.c", None),
    ("Node == a[\"x\"]", None),
    ("ID == \"\\u00e9\"", None),
];

#[test]
fn recorded_outcomes() {
    for (expression, outcome) in RECORDED {
        let message = Filter::compile(expression, NODE).err().map(|error| error.to_string());
        let expected =
            outcome.map(|message| format!("Failed to create boolean expression evaluator: {message}"));
        assert_eq!(message, expected, "{expression}");
    }
}

#[test]
fn limits_are_named() {
    let long = format!("Service == \"{}\"", "x".repeat(FILTER_BYTES_MAX));
    let error = Filter::compile(&long, AGENT_SERVICE).expect_err("too long").to_string();
    assert!(error.contains("exceeds the limit of 16384 bytes"), "{error}");
    for opening in ["(", "not "] {
        let deep = opening.repeat(FILTER_DEPTH_MAX + 1) + "Service == a";
        let error = Filter::compile(&deep, AGENT_SERVICE).expect_err("too deep").to_string();
        assert!(error.contains("nests deeper than 64 levels"), "{error}");
    }
    let unclosed = "(".repeat(FILTER_DEPTH_MAX) + "Service == a";
    let error = Filter::compile(&unclosed, AGENT_SERVICE).expect_err("unclosed").to_string();
    assert!(error.contains("Unmatched parentheses"), "{error}");
    let wide = vec!["Service == a"; 1000].join(" or ");
    assert!(Filter::compile(&wide, AGENT_SERVICE).is_ok());
    let heavy = Filter::compile("Service matches \"(a{1000}){1000}\"", AGENT_SERVICE);
    assert!(heavy.expect_err("too heavy").to_string().contains("Failed to compile regular expression"));
}

fn tests() -> impl Strategy<Value = Expr> {
    let part = prop_oneof!["[a-zA-Z][a-zA-Z0-9_]{0,5}", "[ -~é\r\n]{0,6}"];
    let selector = ("[a-zA-Z][a-zA-Z0-9_]{0,5}", proptest::collection::vec(part, 0..3)).prop_map(
        |(first, rest): (String, Vec<String>)| {
            let mut selector = vec![first];
            selector.extend(rest);
            selector
        },
    );
    let op = prop_oneof![
        Just(Op::Equal),
        Just(Op::NotEqual),
        Just(Op::In),
        Just(Op::NotIn),
        Just(Op::IsEmpty),
        Just(Op::IsNotEmpty),
        Just(Op::Matches),
        Just(Op::NotMatches),
    ];
    (selector, op, "\\PC{0,8}|[`\"\\\\\n\r\t ]{0,4}").prop_map(|(selector, op, value)| {
        let value = (!matches!(op, Op::IsEmpty | Op::IsNotEmpty)).then_some(value);
        Expr::Match(Match { selector, op, value })
    })
}

fn expressions() -> impl Strategy<Value = Expr> {
    tests().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expr::or),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expr::and),
            inner.prop_map(Expr::negate),
        ]
    })
}

proptest! {
    #[test]
    fn printing_and_parsing_agree(expr in expressions()) {
        let text = expr.to_string();
        prop_assert_eq!(parse(&text), Ok(expr), "{}", text);
    }

    #[test]
    fn any_text_is_answered(text in "\\PC{0,40}|[a-z0-9 ()\"`=!.\\[\\]\n-]{0,40}|(not |\\(|a|==| in | and | or |\"|1|\\.|\\)){0,20}") {
        let _ = parse(&text);
        let _ = Filter::compile(&text, SERVICE_ENTRY);
    }
}
