//! The language against what Go's own implementation gives, and what it must refuse.
//!
//! `tests/fixtures/templates/language.jsonl` has the outputs of Go 1.19 (with `parseJSON`, `split` and sprig's `list`, `dict`
//! and `sub` as functions), and our errors where Go has one; `functions.jsonl` has those of sprig 3.2, yaml.v2 and BurntSushi's TOML.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::*;

/// A world without anything in it but what a test says.
#[derive(Default)]
struct World {
    known: BTreeMap<Dependency, Value>,
    environment: BTreeMap<&'static str, &'static str>,
    time_ns: i128,
    written: Vec<FileToWrite>,
    /// How often it may be asked whether the execution is to end, before it is.
    asks_left: Option<Cell<u32>>,
}

impl Host for World {
    fn environment(&self, name: &str) -> Option<String> {
        self.environment.get(name).map(|value| (*value).to_owned())
    }

    fn unix_time_ns(&self) -> i128 {
        self.time_ns
    }

    fn recall(&mut self, dependency: &Dependency) -> Option<Value> {
        self.known.get(dependency).cloned()
    }

    fn is_ending(&self) -> bool {
        let Some(left) = &self.asks_left else { return false };
        left.replace(left.get().saturating_sub(1)) == 0
    }

    fn write_file(&mut self, file: &FileToWrite) -> Result<(), String> {
        self.written.push(file.clone());
        Ok(())
    }
}

/// The stack of a test is small.
fn limits() -> Limits {
    Limits {
        output_max: 1 << 20,
        value_max: 1 << 20,
        steps_max: 1_000_000,
        bytes_max: 48 << 20,
        depth_max: 200,
    }
}

fn rendered(world: &mut World, text: &str) -> Result<String, String> {
    let template = Template::parse("t", text, Options::default()).map_err(|error| error.to_string())?;
    let output = template.execute(world, limits()).output.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(rendered(&mut World::default(), text).as_deref(), Ok(expected), "{text}");
}

/// Holds a table of templates against what they give.
fn check_table(world: &mut World, table: &str) {
    let mut wrong = Vec::new();
    for line in table.lines() {
        let row: Json = serde_json::from_str(line).expect("a row of the table is JSON");
        let template = row["template"].as_str().expect("a row has a template");
        let got = rendered(world, template);
        let expected = match row["output"].as_str() {
            Some(output) => Ok(output.to_owned()),
            None => Err(row["error"].as_str().expect("a row has an output or an error").to_owned()),
        };
        if got != expected {
            wrong.push(format!("{template:?}\n  expected {expected:?}\n  got      {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.lines().count(), wrong.join("\n"));
}

#[test]
fn the_language_is_gos() {
    check_table(&mut World::default(), include_str!("../../tests/fixtures/templates/language.jsonl"));
}

#[test]
fn functions_are_those_of_the_libraries() {
    let mut world = World { time_ns: 1_700_000_000_123_456_789, ..World::default() };
    check_table(&mut world, include_str!("../../tests/fixtures/templates/functions.jsonl"));
}

/// A world in which an agent has answered.
fn answered(all: &[(Dependency, &str)]) -> World {
    let known = all
        .iter()
        .map(|(dependency, body)| {
            let value = dependency.answer(Some(body.as_bytes())).expect("an answer");
            (dependency.clone(), value)
        })
        .collect();
    World { known, ..World::default() }
}

fn service(text: &str) -> Dependency {
    Dependency::service(text, false).expect("a service")
}

const WEB: &str = r#"[
  {"Node": {"Node": "n2", "ID": "id2", "Address": "10.0.0.2", "Meta": {"rack": "b"}, "TaggedAddresses": {"lan": "10.0.0.2"}},
   "Service": {"ID": "web2", "Service": "web", "Tags": ["v2", "blue"], "Address": "", "Port": 81, "Meta": {"shard": "2"},
     "Weights": {"Passing": 3, "Warning": 1}, "TaggedAddresses": {"wan": {"Address": "1.2.3.4", "Port": 9}}},
   "Checks": [{"CheckID": "c", "Status": "warning", "ServiceID": "web2", "Output": "slow"}]},
  {"Node": {"Node": "n1", "ID": "id1", "Address": "10.0.0.1", "Meta": null},
   "Service": {"ID": "web1", "Service": "web", "Tags": null, "Address": "10.9.9.9", "Port": 80, "Meta": {"shard": "10"}},
   "Checks": [{"CheckID": "serfHealth", "Status": "passing"}]}
]"#;

#[test]
fn instances_have_the_fields_of_consul_template() {
    let mut world = answered(&[(service("web|any"), WEB), (service("web"), WEB)]);
    for (text, expected) in [
        (
            r#"{{range service "web|any"}}{{.Node}}/{{.ID}}/{{.Name}} {{.Address}}:{{.Port}} {{.Status}} {{.Tags}};{{end}}"#,
            "n1/web1/web 10.9.9.9:80 passing [];n2/web2/web 10.0.0.2:81 warning [blue v2];",
        ),
        (r#"{{range service "web"}}{{.ID}}{{end}}"#, "web1"),
        (
            r#"{{with index (service "web|any") 1}}{{.NodeID}} {{.NodeAddress}} {{.NodeMeta.rack}} {{.NodeTaggedAddresses.lan}} {{.ServiceMeta.shard}} {{.Weights.Passing}} {{.ServiceTaggedAddresses.wan.Port}} {{(index .Checks 0).Output}} {{.Checks.AggregatedStatus}}{{end}}"#,
            "id2 10.0.0.2 b 10.0.0.2 2 3 9 slow warning",
        ),
        (
            r#"{{range service "web|any"}}{{if .Tags | contains "blue"}}{{.ID}}{{end}}{{if .Tags.Contains "v2"}}!{{end}}{{if in .Tags "v3"}}?{{end}}{{end}}"#,
            "web2!",
        ),
        (r#"{{range service "web|any"}}[{{.Tags | join ","}}]{{end}}"#, "[][blue,v2]"),
        (
            r#"{{range $tag, $all := service "web|any" | byTag}}{{$tag}}={{range $all}}{{.ID}}{{end}} {{end}}"#,
            "blue=web2 v2=web2 ",
        ),
        (
            r#"{{range $port, $all := service "web|any" | byPort}}{{$port}}={{len $all}} {{end}}"#,
            "80=1 81=1 ",
        ),
        (
            r#"{{range $key, $all := service "web|any" | byMeta "shard|int,none"}}{{$key}} {{end}}"#,
            "00002__no_none_ 00010__no_none_ ",
        ),
        (r#"{{range service "web" "any"}}{{.ID}} {{end}}"#, "web1 web2 "),
        (r#"{{service ""}}"#, "[]"),
        (r#"{{range service "web|any"}}{{.NodeMeta.rack}},{{end}}"#, ",b,"),
        (
            r#"{{(index (service "web|any") 0).Nope}}"#,
            "error: can't evaluate field Nope in type *dependency.HealthService",
        ),
        (r#"{{service "a b"}}"#, "error: health.service: invalid format: \"a b\""),
        (r#"{{service "web|odd"}}"#, "error: health.service: invalid filter: \"odd\" in \"web|odd\""),
        (
            r#"{{service "web?ns=other"}}"#,
            "error: health.service: ns=other is not supported: there is only the default",
        ),
        (
            r#"{{secret "x"}}"#,
            "error: Vault is not supported: put the secret into a file and read it with `file`",
        ),
        (r#"{{plugin "x"}}"#, "error: plugins are not allowed: -allow-plugins permits them"),
    ] {
        check_in(&mut world, text, expected);
    }
}

#[track_caller]
fn check_in(world: &mut World, text: &str, expected: &str) {
    match (rendered(world, text), expected.strip_prefix("error: ")) {
        (Ok(got), None) => assert_eq!(got, expected, "{text}"),
        (Err(got), Some(expected)) => assert!(got.ends_with(expected), "{text}: {got}"),
        (got, _) => panic!("{text}: expected {expected:?}, got {got:?}"),
    }
}

#[test]
fn keys_nodes_and_services_are_there() {
    let pairs = r#"[{"Key": "conf/", "Value": null}, {"Key": "conf/a", "Value": "MQ==", "Flags": 7, "CreateIndex": 5},
      {"Key": "conf/b/c", "Value": "Mg=="}, {"Key": "conf/b/d/e", "Value": "/w=="}]"#;
    let node = r#"{"Node": {"Node": "n1", "Address": "10.0.0.1", "Meta": {"a": "b"}},
      "Services": {"y": {"ID": "y", "Service": "web", "Port": 1, "Tags": ["t"]}, "x": {"ID": "x", "Service": "api", "Port": 2}}}"#;
    let key = |text: &str| Dependency::key(text).expect("a key");
    let mut world = answered(&[
        (Dependency::keys("conf").expect("keys"), pairs),
        (key("a"), r#"[{"Key": "a", "Value": "b25l"}]"#),
        (Dependency::node("").expect("a node"), node),
        (
            Dependency::nodes("").expect("nodes"),
            r#"[{"Node": "b", "Address": "2"}, {"Node": "a", "Address": "1"}]"#,
        ),
        (Dependency::services("").expect("services"), r#"{"web": ["b", "a"], "consul": []}"#),
        (Dependency::Datacenters { ignore_failing: false }, r#"["dc2", "dc1"]"#),
    ]);
    world.known.insert(key("none"), Value::Nil);
    world.environment.insert("FOO", "bar");
    for (text, expected) in [
        (
            r#"{{range ls "conf"}}{{.Key}}:{{.Value}}:{{.Path}}:{{.Flags}}:{{.CreateIndex}} {{end}}"#,
            "a:1:conf/a:7:5 ",
        ),
        (r#"{{range tree "conf"}}{{.Key}}={{.Value}} {{end}}"#, "a=1 b/c=2 b/d/e=\u{fffd} "),
        (r#"{{with tree "conf" | explode}}{{.a}} {{.b.c}} {{len .b.d}}{{end}}"#, "1 2 1"),
        (
            r#"{{range $k, $v := tree "conf" | byKey}}{{$k}}{{range $v}} {{.Key}}={{.Value}}{{end}}{{end}}"#,
            "b c=2 d/e=\u{fffd}",
        ),
        (
            r#"{{key "a"}} {{keyOrDefault "a" "x"}} {{keyOrDefault "none" "x"}} {{keyExists "a"}} {{keyExists "none"}}"#,
            "one one x true false",
        ),
        (
            r#"{{with node}}{{.Node.Node}} {{.Node.Meta.a}} {{range .Services}}{{.Service}}:{{.Port}} {{end}}{{end}}"#,
            "n1 b api:2 web:1 ",
        ),
        (r#"{{range nodes}}{{.Node}}{{.Address}}{{end}}"#, "a1b2"),
        (r#"{{range services}}{{.Name}}{{.Tags}}{{end}}"#, "consul[]web[a b]"),
        (r#"{{range datacenters}}{{.}}{{end}}"#, "dc1dc2"),
        (r#"{{env "FOO"}} {{env "NO"}}{{envOrDefault "NO" "d"}} {{mustEnv "FOO"}}"#, "bar d bar"),
        (r#"{{mustEnv "NO"}}"#, "error: required environment variable NO is empty"),
        (
            r#"{{scratch.Set "a" 1}}{{scratch.SetX "a" 2}}{{scratch.Get "a"}}{{scratch.Key "a"}}{{scratch.Key "b"}}{{scratch.MapSet "m" "y" 1}}{{scratch.MapSetX "m" "y" 5}}{{scratch.MapSet "m" "x" 2}}{{scratch.MapValues "m"}}{{scratch.Get "m"}}"#,
            "1truefalse[2 1]map[x:2 y:1]",
        ),
        (r#"{{scratch.Set "a" 1}}{{scratch.MapSet "a" "b" 1}}"#, "error: \"a\" is not a map"),
        (
            r#"{{define "t"}}<{{.}}>{{end}}{{$x := executeTemplate "t" 5}}{{$x}}{{executeTemplate "t"}}"#,
            "<5><<no value>>",
        ),
        (
            r#"{{range loop 3}}{{.}}{{end}} {{range $i := loop 5 8}}{{$i}}{{end}} {{range loop "2"}}x{{end}}"#,
            "012 567 xx",
        ),
        (r#"{{range 3}}{{.}}{{end}} {{range $i := 2}}{{$i}}{{end}}"#, "012 01"),
        (
            r#"{{add 1 2}} {{subtract 2 5}} {{multiply 2 3}} {{divide 2 10}} {{modulo 2 5}} {{minimum 2 5}} {{maximum 2 5}} {{10 | divide 4}} {{add 1.5 2}}"#,
            "3 3 6 5 1 2 5 2 3.5",
        ),
        (r#"{{divide 0 1}}"#, "error: divide: division by zero"),
        (
            r#"{{"a,b,c" | split "," | join "-"}} {{splitN "," 2 "a,b,c"}} {{(splitToMap "," "=" "a=1,b=2").b}}"#,
            "a-b-c [a b,c] 2",
        ),
        (
            r#"{{indent 2 "a\n\nb"}}|{{trim "!" "!a!"}} {{trimPrefix "a" "ab"}} {{trimSuffix "b" "ab"}} {{trimSpace " a "}}"#,
            "  a\n\n  b|a b a a",
        ),
        (
            r#"{{toLower "Ab"}}{{toUpper "Ab"}} {{toTitle "foo bar-baz"}} {{replaceAll "a" "b" "aac"}}"#,
            "abAB Foo Bar-Baz bbc",
        ),
        (r#"{{regexMatch "^a.c$" "abc"}} {{regexReplaceAll "(\\w)b" "${1}x" "ab cb"}}"#, "true ax cx"),
        (
            r#"{{sha256Hex "a"}} {{md5sum "a"}} {{hmacSHA256Hex "m" "k"}}"#,
            "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb 0cc175b9c0f1b6a831c399e269772661 a9e5acf7bd6cc2e25ffaaff0ec8e32ddef1d8f9e2a3d2b8b8da3e5d9c8f6bc32",
        ),
        (
            r#"{{base64Encode "hi?"}} {{base64Decode "aGk/"}} {{base64URLEncode "hi?"}} {{base64URLDecode "aGk_"}}"#,
            "aGk/ hi? aGk_ hi?",
        ),
        (
            r#"{{parseBool "t"}} {{parseInt "-5"}} {{parseUint "5"}} {{parseFloat "1.5"}} {{parseBool ""}}"#,
            "true -5 5 1.5 false",
        ),
        (r#"{{parseInt "x"}}"#, "error: parseInt: strconv.ParseInt: parsing \"x\": invalid syntax"),
        (
            r#"{{containsAll (sprig_list "a") (split "," "a,b")}} {{containsAny (sprig_list "z") (split "," "a,b")}} {{containsNone (sprig_list "z") (split "," "a,b")}} {{containsNotAll (sprig_list "a" "z") (split "," "a,b")}}"#,
            "true false true true",
        ),
        (
            r#"{{$m := parseJSON "{\"a\":1,\"c\":{\"x\":1}}"}}{{mergeMap $m (parseJSON "{\"a\":2,\"b\":3,\"c\":{\"y\":2}}")}}"#,
            "map[a:1 b:3 c:map[x:1 y:2]]",
        ),
        (r#"{{(scratch.MapSet "e" "foo/bar" "a")}}{{scratch.Get "e" | explodeMap}}"#, "map[foo:map[bar:a]]"),
        (r#"{{timestamp "unix"}} {{timestamp}}"#, "0 1970-01-01T00:00:00Z"),
    ] {
        if text.contains("hmacSHA256Hex") {
            let got = rendered(&mut world, text).expect("digests");
            assert!(got.starts_with(&expected[..97]), "{got}");
            continue;
        }
        check_in(&mut world, text, expected);
    }
}

#[test]
fn what_is_missing_is_told_and_waited_for() {
    let template = |text: &str| Template::parse("t", text, Options::default()).expect("parses");
    let mut world = World::default();
    let text = r#"{{range services}}{{range service .Name}}{{.Address}}{{end}}{{end}}{{key "a"}}"#;
    let first = template(text).execute(&mut world, limits());
    let names = |all: &std::collections::BTreeSet<Dependency>| -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    };
    assert_eq!(names(&first.missing), ["kv.get(a)", "catalog.services"]);
    let services = Dependency::services("").expect("services");
    world.known.insert(services.clone(), services.answer(Some(br#"{"web": []}"#)).expect("an answer"));
    world.known.insert(Dependency::key("a").expect("a key"), Value::Nil);
    let second = template(text).execute(&mut world, limits());
    // A key that must be there is missing as long as it is not.
    assert_eq!(names(&second.missing), ["kv.get(a)", "health.service(web|passing)"]);
    assert_eq!(second.used.len(), 3);
    // Empty where it must not be.
    let keys = Dependency::keys("p").expect("keys");
    world.known.insert(keys.clone(), keys.answer(None).expect("nothing"));
    assert_eq!(
        names(&template(r#"{{safeLs "p"}}{{ls "p"}}"#).execute(&mut world, limits()).missing),
        ["kv.list(p)"]
    );
    assert!(template(r#"{{ls "p"}}{{safeTree ""}}"#).execute(&mut world, limits()).missing.is_empty());
    // Nothing is written beside the output while something is missing.
    template(r#"{{key "zz"}}{{"x" | writeToFile "/f" "" "" "0600"}}"#).execute(&mut world, limits());
    assert!(world.written.is_empty());
    template(r#"{{"x" | writeToFile "/f" "" "" "0600" "append,newline"}}"#).execute(&mut world, limits());
    assert_eq!(
        (world.written[0].mode, world.written[0].appends, world.written[0].content.as_slice()),
        (0o600, true, &b"x\n"[..])
    );
}

#[test]
fn questions_are_those_of_the_api() {
    let question = |dependency: Dependency| {
        let question = dependency.question().expect("a question");
        let query: Vec<String> = question.query.iter().map(|(k, v)| format!("{k}={v}")).collect();
        (dependency.to_string(), question.path, query.join("&"))
    };
    let row = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(
        question(service("v1.2.web@dc2~_agent|passing,warning")),
        row(
            "health.service(v1.2.web@dc2~_agent|passing,warning)",
            "/v1/health/service/web",
            "dc=dc2&near=_agent&tag=v1.2"
        )
    );
    assert_eq!(
        question(service("web")),
        row("health.service(web|passing)", "/v1/health/service/web", "passing=1")
    );
    assert_eq!(
        question(Dependency::key("/a/b?ns=default@dc1").expect("a key")),
        row("kv.get(a/b@dc1)", "/v1/kv/a/b", "dc=dc1")
    );
    assert_eq!(
        question(Dependency::nodes("@dc1~n").expect("nodes")),
        row("catalog.nodes(@dc1~n)", "/v1/catalog/nodes", "dc=dc1&near=n")
    );
    assert_eq!(
        question(Dependency::node("n.x").expect("a node")),
        row("catalog.node(n.x)", "/v1/catalog/node/n.x", "")
    );
}

#[test]
fn errors_name_line_and_column() {
    let at = |text: &str| rendered(&mut World::default(), text).expect_err(text);
    assert_eq!(at("a\n  é {{ nosuch }}"), "template: t:2:8: function \"nosuch\" not defined");
    assert_eq!(
        at("x\n{{define \"in\"}}\n{{index (split \",\" \"a\") 5}}{{end}}{{template \"in\"}}"),
        "template: t:3:3: executing \"in\" at <index (split \",\" \"a\") 5>: error calling index: index out of range: 5"
    );
}

#[test]
fn a_key_that_is_not_there_may_be_an_error() {
    let strict = Options { missing_key_is_error: true, ..Options::default() };
    for (text, part) in [
        (r#"{{(parseJSON "{}").a}}"#, "map has no entry for key \"a\""),
        ("{{.a}}", "nil data; no entry for key \"a\""),
    ] {
        let template = Template::parse("t", text, strict.clone()).expect("parses");
        let why = template.execute(&mut World::default(), limits()).output.expect_err(text).to_string();
        assert!(why.ends_with(part), "{why}");
    }
}

#[test]
fn delimiters_and_denied_functions() {
    let options = Options {
        left: "<<".into(),
        right: ">>".into(),
        denied: vec!["sprig_*".into()],
        ..Options::default()
    };
    let template = Template::parse("t", "{{x}}<<- 1 ->> <<\"a\" | toUpper>><</* c */>>", options.clone())
        .expect("parses");
    assert_eq!(template.execute(&mut World::default(), limits()).output.expect("renders"), b"{{x}}1A");
    let template = Template::parse("t", "<<sprig_list>>", options).expect("parses");
    assert!(
        template
            .execute(&mut World::default(), limits())
            .output
            .is_err_and(|e| e.text.contains("function is disabled"))
    );
}

#[test]
fn what_would_never_end_ends() {
    for (text, part) in [
        ("{{range loop 100000000}}{{end}}", "steps"),
        ("{{define \"r\"}}{{template \"r\"}}{{end}}{{template \"r\"}}", "depth"),
        ("{{sprig_repeat 9223372036854775807 \"a\"}}", "longer than"),
        ("{{indent 1000000 \"a\\nb\\nc\"}}", "longer than"),
        ("{{$x := \"aaaaaaaaaaaaaaaa\"}}{{range loop 64}}{{$x = print $x $x}}{{end}}", "longer than"),
        ("{{$x := sprig_list 1}}{{range loop 64}}{{$x = sprig_list $x $x}}{{end}}{{$x}}", "too long"),
        (
            "{{$x := sprig_list 1}}{{range loop 40}}{{$x = sprig_list $x $x}}{{end}}{{toJSON $x}}",
            "longer than",
        ),
        ("{{range loop 300000}}aaaaaaaaaa{{end}}", "too long"),
        ("{{$d := sprig_dict}}{{sprig_set $d \"a\" $d}}", "cannot hold itself"),
        ("{{sprig_untilStep 0 9223372036854775807 1}}", "longer than"),
        ("{{replaceAll \"\" (sprig_repeat 100000 \"a\") (sprig_repeat 100000 \"b\")}}", "longer than"),
        ("{{0x1p-2147483648}}", "bad number syntax"),
        (
            "{{$x := sprig_list 1}}{{range loop 28}}{{$x = sprig_list $x $x $x $x}}{{end}}{{scratch.MapSet \"m\" \"k\" $x}}",
            "cannot hold itself",
        ),
        (
            "{{$m := sprig_dict}}{{range loop 28}}{{$m = sprig_dict \"a\" $m \"b\" $m}}{{end}}{{mergeMap $m $m}}",
            "nested too deeply",
        ),
        (
            "{{regexReplaceAll \".*\" (sprig_repeat 100000 \"$0\") (sprig_repeat 100000 \"a\")}}",
            "longer than",
        ),
        ("{{regexReplaceAll \"(a{1000}){1000}\" \"\" \"a\"}}", "error parsing regexp"),
    ] {
        let why = rendered(&mut World::default(), text).expect_err(text);
        assert!(why.contains(part), "{text}: {why}");
    }
    let deep = format!("{}1{}", "(".repeat(1000), ")".repeat(1000));
    assert!(
        rendered(&mut World::default(), &format!("{{{{{deep}}}}}")).is_err_and(|why| why.contains("nested"))
    );
    let deep = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(
        rendered(&mut World::default(), &format!("{{{{parseYAML `{deep}`}}}}"))
            .is_err_and(|why| why.contains("nested"))
    );
}

#[test]
fn what_functions_read_and_make_has_its_price() {
    let big = "{{$big := sprig_repeat 100000 \"a\"}}";
    let list = "{{$list := sprig_until 3000}}";
    for (text, part) in [
        // Each call reads as much as thousands of steps cost, and gives next to nothing.
        (format!("{big}{{{{range loop 100000}}}}{{{{$h := sha256Hex $big}}}}{{{{end}}}}"), "steps"),
        (format!("{big}{{{{range loop 100000}}}}{{{{$h := regexMatch \"^b\" $big}}}}{{{{end}}}}"), "steps"),
        (
            format!("{big}{{{{range loop 100000}}}}{{{{$h := sprig_contains \"b\" $big}}}}{{{{end}}}}"),
            "steps",
        ),
        (
            format!(
                "{big}{{{{range $i := loop 2000}}}}{{{{$h := regexMatch (print \"a{{9}}\" $i) \"\"}}}}{{{{end}}}}"
            ),
            "steps",
        ),
        (format!("{list}{{{{$h := containsAll $list $list}}}}"), "steps"),
        (format!("{list}{{{{$h := sprig_uniq $list}}}}"), "steps"),
        (format!("{list}{{{{range loop 200000}}}}{{{{$h := in $list 3000}}}}{{{{end}}}}"), "steps"),
        (
            format!(
                "{list}{{{{$d := sprig_dict}}}}{{{{range $list}}}}{{{{$_ := sprig_set $d (print .) 1}}}}{{{{end}}}}{{{{range loop 90000}}}}{{{{range $d}}}}{{{{break}}}}{{{{end}}}}{{{{end}}}}"
            ),
            "steps",
        ),
        // What is kept is bounded, wherever it is kept.
        (
            "{{range $i := loop 1000}}{{scratch.Set (print $i) (sprig_repeat 1000000 \"a\")}}{{end}}"
                .to_owned(),
            "makes more than 50331648 bytes",
        ),
        (
            "{{$json := print \"[\" (sprig_repeat 40000 \"[],\") \"0]\"}}{{range $i := loop 100}}{{scratch.Set (print $i) (parseJSON $json)}}{{end}}"
                .to_owned(),
            "makes more than",
        ),
        (
            format!(
                "{big}{{{{range $i := loop 1000}}}}{{{{scratch.Set (print $i) (split \"\" (sprig_trunc 30000 $big))}}}}{{{{end}}}}"
            ),
            "makes more than",
        ),
        (
            format!(
                "{{{{define \"t\"}}}}{{{{range loop 100}}}}{}{{{{end}}}}{{{{end}}}}{{{{range $i := loop 300}}}}{{{{scratch.Set (print $i) (executeTemplate \"t\")}}}}{{{{end}}}}",
                "x".repeat(9_000)
            ),
            "makes more than",
        ),
        (
            "{{parseJSON (print \"[\" (sprig_repeat 40000 \"0,\") \"0]\") | len}}{{parseJSON (print \"[\" (sprig_repeat 340000 \"[],\") \"0]\") | len}}"
                .to_owned(),
            "makes more than",
        ),
        (format!("{big}{{{{split \"\" $big | len}}}}"), "longer than"),
    ] {
        let why = rendered(&mut World::default(), &text).expect_err(&text);
        assert!(why.contains(part), "{text}: {why}");
    }
    // What only looks at one place of something long costs little, however often it does.
    let lookups = "{{range loop 60000}}{{$h := len $big}}{{$h = index $list 2999}}{{$h = sprig_substr 0 5 $big}}{{end}}{{len $list}}";
    check(&format!("{big}{list}{lookups}"), "3000");
}

#[test]
fn what_sprig_has_is_there_or_says_why_not() {
    for (text, why) in [
        ("{{sprig_urlParse \":x\"}}", "unable to parse url: parse \":x\": missing protocol scheme"),
        ("{{sprig_urlParse \"http://h:x/\"}}", "parse \"http://h:x/\": invalid port \":x\" after host"),
        ("{{sprig_urlParse \"%zz\"}}", "parse \"%zz\": invalid URL escape \"%zz\""),
        ("{{sprig_urlParse \"1a:b\"}}", "first path segment in URL cannot contain colon"),
        (
            "{{sprig_urlJoin (sprig_dict \"path\" 1)}}",
            "unable to parse path key, must be of type string, but int found",
        ),
        ("{{sprig_divf 1 0}}", "decimal division by 0"),
        (
            "{{sprig_genCA \"x\" 365}}",
            "templates make no keys, certificates and passwords: make them elsewhere and read them with `file`",
        ),
        ("{{sprig_shuffle \"abc\"}}", "not supported: a file would change each time it is rendered"),
        ("{{sprig_toDate \"2006\" \"2020\"}}", "dates are not supported: `timestamp` shows the time"),
        ("{{sprig_semver \"1.2.3\"}}", "versions are not supported"),
        ("{{sprig_mustRegexMatch \"(\" \"a\"}}", "error parsing regexp: unclosed group: `(`"),
    ] {
        check_in(&mut World::default(), text, &format!("error: {why}"));
    }
}

#[test]
fn an_execution_hears_that_it_must_end() {
    let template = |text: &str| Template::parse("t", text, Options::default()).expect("parses");
    let mut world = World { asks_left: Some(Cell::new(3)), ..World::default() };
    let why = template("{{range loop 900000}}{{end}}").execute(&mut world, limits()).output;
    let why = why.expect_err("it is ended").to_string();
    assert!(why.ends_with("ended before it was done"), "{why}");
    // What is done at once is not asked for.
    let mut world = World { asks_left: Some(Cell::new(0)), ..World::default() };
    assert!(template("{{range loop 90}}{{end}}").execute(&mut world, limits()).output.is_ok());
}

#[test]
fn maps_that_a_template_made_may_change() {
    check(
        "{{printf \"%.70000f\" 1.0 | len}} {{printf \"%.70000e\" 1.5 | len}} {{printf \"%.70000g\" 1.5}}",
        "70002 70006 1.5",
    );
    check("{{timestamp (print \".\" (sprig_repeat 70000 \"0\")) | len}}", "70001");
    check("{{scratch.Set \"s\" scratch}}{{scratch.Key \"s\"}}", "true");
    check("{{eq 0x1p-1060 0.0}}", "false");
    let chain: String = (0..60).map(|i| format!("{{{{else if eq 3 {i}}}}}{i}")).collect();
    check(&format!("{{{{if false}}}}{chain}{{{{end}}}}"), "3");
    // However deep they are, they go away.
    check("{{$x := sprig_list 1}}{{range loop 100000}}{{$x = sprig_list $x}}{{end}}{{len $x}}", "1");
    check(
        "{{$x := sprig_dict}}{{$y := $x}}{{range loop 100000}}{{$z := sprig_dict}}{{$_ := sprig_set $y \"a\" $z}}{{$y = $z}}{{end}}{{len $x}}",
        "1",
    );
    check(
        "{{$d := sprig_dict \"a\" 1}}{{range $k, $v := $d}}{{$_ := sprig_set $d \"b\" 2}}{{$k}}{{end}}{{len $d}}",
        "a2",
    );
}
