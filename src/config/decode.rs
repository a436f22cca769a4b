//! Decodes service and check definitions from JSON values, one table of fields for both styles.
//!
//! * [`Style::Api`] follows Go's JSON decoder: names without regard to case, strict types, unknown names refused, the
//!   few snake_case aliases that Consul's API has, lengths of time as text or nanoseconds.
//! * [`Style::File`] follows Consul's file reader: names without regard to case and underscores, strict types, a list
//!   of one object is that object (HCL writes blocks so), `null` is absence.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::definition::{CheckDefinition, DefinitionError, ServiceDefinition};
use super::{duration, gojson};
use crate::store::model::{ServiceAddress, StringMap, Weights};

/// Where a definition comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Body of an API request.
    Api,
    /// Block of a configuration file.
    File,
}

/// Why a value could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Key below the decoded block (`checks[1].ttl`), as written.
    pub key: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No such key.
    Unknown,
    /// Wrong type; the words say what was expected and found.
    Type {
        /// Go's name of the type that was expected.
        expected: &'static str,
        /// JSON's name of the type found.
        found: String,
    },
    /// Right type, wrong value: the whole text.
    Value(String),
}

impl Problem {
    /// The text Go's decoder has for it.
    fn go_text(&self) -> String {
        let field = self.key.split(['.', '[']).next().unwrap_or_default();
        match &self.fault {
            Fault::Unknown => {
                format!("json: unknown field {:?}", self.key.rsplit('.').next().unwrap_or_default())
            }
            Fault::Type { expected, found } if self.key.is_empty() => {
                format!("json: cannot unmarshal {found} into Go value of type {expected}")
            }
            Fault::Type { expected, found } => {
                format!("json: cannot unmarshal {found} into Go struct field .{field} of type {expected}")
            }
            Fault::Value(text) => text.clone(),
        }
    }

    /// Puts an outer key before the one it has.
    fn below(mut self, outer: &str) -> Problem {
        self.key = match self.key.as_str() {
            "" => outer.to_owned(),
            key if key.starts_with('[') => format!("{outer}{key}"),
            key => format!("{outer}.{key}"),
        };
        self
    }
}

/// Decodes a request body with `decode`; the error is Consul's whole text.
pub fn api<T: Default>(
    body: &[u8],
    decode: impl Fn(&Value, Style) -> Result<T, Problem>,
) -> Result<T, DefinitionError> {
    let fail = |text: String| DefinitionError(format!("Request decode failed: {text}"));
    match gojson::first_value(body).map_err(fail)? {
        Value::Null => Ok(T::default()),
        value => decode(&value, Style::Api).map_err(|problem| fail(problem.go_text())),
    }
}

/// Decodes a service.
pub fn service(value: &Value, style: Style) -> Result<ServiceDefinition, Problem> {
    let mut out = ServiceDefinition::default();
    for (key, value) in object(value, style)? {
        let at = Field { value, style };
        if value.is_null() {
            known(&SERVICE_FIELDS, key, style)?;
            continue;
        }
        service_field(&mut out, known(&SERVICE_FIELDS, key, style)?, at).map_err(|p| p.below(key))?;
    }
    // The single `check` comes first whatever the order of the keys, as in Consul.
    if let Some(position) = out.checks.iter().position(|c| c.service_id == SINGLE_CHECK) {
        out.checks[..=position].rotate_right(1);
        out.checks[0].service_id.clear();
        if out.checks[0].is_empty() {
            out.checks.remove(0);
        }
    }
    Ok(out)
}

/// Marks the check that came under `check` until all keys are read: no service ID can be this.
const SINGLE_CHECK: &str = "\0check";

/// Sets one field of a service.
fn service_field(out: &mut ServiceDefinition, name: &str, at: Field<'_>) -> Result<(), Problem> {
    match name {
        "kind" => out.kind = at.text()?,
        "id" => out.id = at.text()?,
        "name" => out.name = at.text()?,
        "tags" => out.tags = at.texts()?,
        "address" => out.address = at.text()?,
        "taggedaddresses" => out.tagged_addresses = tagged_addresses(at)?,
        "meta" => out.meta = at.text_map()?,
        "port" => out.port = at.int()?,
        "check" => {
            let mut check = service_check(at.value, at.style)?;
            SINGLE_CHECK.clone_into(&mut check.service_id);
            // A block that is written twice counts once, the last time.
            out.checks.retain(|c| c.service_id != SINGLE_CHECK);
            out.checks.push(check);
        }
        "checks" => {
            for (i, item) in at.list("[]*structs.CheckType")?.into_iter().enumerate() {
                let check = service_check(item, at.style).map_err(|p| p.below(&format!("[{i}]")))?;
                out.checks.push(check);
            }
        }
        "weights" => out.weights = Some(weights(at)?),
        "token" => out.token = at.text()?,
        "enabletagoverride" => out.enable_tag_override = at.flag()?,
        "proxy" => out.proxy = Some(at.value.clone()),
        "connect" => out.connect = Some(at.value.clone()),
        "namespace" => at.namespace()?,
        _ => unreachable!("SERVICE_FIELDS and service_field name the same fields"),
    }
    Ok(())
}

/// Decodes a check written inside a service.
fn service_check(value: &Value, style: Style) -> Result<CheckDefinition, Problem> {
    if value.is_null() {
        return Ok(CheckDefinition::default());
    }
    let fields: &[Name] = if style == Style::Api { &SERVICE_CHECK_FIELDS } else { &FILE_CHECK_FIELDS };
    let mut check = check_fields(value, style, fields)?;
    check.service_id.clear();
    Ok(check)
}

/// Decodes a check written by itself.
pub fn check(value: &Value, style: Style) -> Result<CheckDefinition, Problem> {
    let fields: &[Name] = if style == Style::Api { &CHECK_FIELDS } else { &FILE_CHECK_FIELDS };
    check_fields(value, style, fields)
}

/// Decodes a check whose names of its own are `own`.
fn check_fields(value: &Value, style: Style, own: &[Name]) -> Result<CheckDefinition, Problem> {
    let mut out = CheckDefinition::default();
    for (key, value) in object(value, style)? {
        let name = known(own, key, style).or_else(|_| known(&CHECK_FIELDS_COMMON, key, style))?;
        if !value.is_null() {
            check_field(&mut out, name, Field { value, style }).map_err(|p| p.below(key))?;
        }
    }
    Ok(out)
}

/// Sets one field of a check.
fn check_field(out: &mut CheckDefinition, name: &str, at: Field<'_>) -> Result<(), Problem> {
    match name {
        "id" => out.id = at.text()?,
        "name" => out.name = at.text()?,
        "notes" => out.notes = at.text()?,
        "serviceid" => out.service_id = at.text()?,
        "token" => out.token = at.text()?,
        "status" => out.status = at.text()?,
        "script" => out.script = at.text()?,
        "args" => out.args = at.texts()?,
        "http" => out.http = at.text()?,
        "method" => out.method = at.text()?,
        "header" => out.header = at.header()?,
        "body" => out.body = at.text()?,
        "disableredirects" => out.disable_redirects = at.flag()?,
        "tcp" => out.tcp = at.text()?,
        "tcpusetls" => out.tcp_use_tls = at.flag()?,
        "udp" => out.udp = at.text()?,
        "grpc" => out.grpc = at.text()?,
        "grpcusetls" => out.grpc_use_tls = at.flag()?,
        "h2ping" => out.h2ping = at.text()?,
        "h2pingusetls" => out.h2ping_use_tls = Some(at.flag()?),
        "osservice" => out.os_service = at.text()?,
        "dockercontainerid" => out.docker_container_id = at.text()?,
        "shell" => out.shell = at.text()?,
        "aliasnode" => out.alias_node = at.text()?,
        "aliasservice" => out.alias_service = at.text()?,
        "tlsservername" => out.tls_server_name = at.text()?,
        "tlsskipverify" => out.tls_skip_verify = at.flag()?,
        "interval" => out.interval_ns = at.duration()?,
        "timeout" => out.timeout_ns = at.duration()?,
        "ttl" => out.ttl_ns = at.duration()?,
        "deregistercriticalserviceafter" => out.deregister_critical_service_after_ns = at.duration()?,
        "outputmaxsize" => out.output_max_size = at.int()?,
        "successbeforepassing" => out.success_before_passing = at.int()?,
        "failuresbeforewarning" => out.failures_before_warning = at.int()?,
        "failuresbeforecritical" => out.failures_before_critical = at.int()?,
        "namespace" => at.namespace()?,
        _ => unreachable!("the field tables and check_field name the same fields"),
    }
    Ok(())
}

/// Decodes weights; the ones not given are 0 from the API (and refused by validation) and 1 from files.
fn weights(at: Field<'_>) -> Result<Weights, Problem> {
    let missing = if at.style == Style::File { 1 } else { 0 };
    let mut out = Weights { passing: missing, warning: missing };
    for (key, value) in object(at.value, at.style)? {
        let field = Field { value, style: at.style };
        match known(&[("passing", &[]), ("warning", &[])], key, at.style)? {
            "passing" => out.passing = field.int().map_err(|p| p.below(key))?,
            _ => out.warning = field.int().map_err(|p| p.below(key))?,
        }
    }
    Ok(out)
}

/// Decodes addresses by tag.
fn tagged_addresses(at: Field<'_>) -> Result<BTreeMap<String, ServiceAddress>, Problem> {
    let mut out = BTreeMap::new();
    for (tag, value) in object(at.value, at.style)? {
        let mut address = ServiceAddress::default();
        for (key, value) in object(value, at.style).map_err(|p| p.below(tag))? {
            let field = Field { value, style: at.style };
            let name = known(&[("address", &[]), ("port", &[])], key, at.style).map_err(|p| p.below(tag))?;
            let set = |p: Problem| p.below(key).below(tag);
            match name {
                "address" => address.address = field.text().map_err(set)?,
                _ => address.port = field.int().map_err(set)?,
            }
        }
        out.insert(tag.clone(), address);
    }
    Ok(out)
}

/// A name without case and underscores, and the spellings with underscores (or other words) that the API takes for it.
type Name = (&'static str, &'static [&'static str]);

/// Names of a service.
const SERVICE_FIELDS: [Name; 16] = [
    ("kind", &[]),
    ("id", &[]),
    ("name", &[]),
    ("tags", &[]),
    ("address", &[]),
    ("taggedaddresses", &["tagged_addresses"]),
    ("meta", &[]),
    ("port", &[]),
    ("check", &[]),
    ("checks", &[]),
    ("weights", &[]),
    ("token", &[]),
    ("enabletagoverride", &["enable_tag_override"]),
    ("proxy", &[]),
    ("connect", &[]),
    ("namespace", NEVER),
];

/// A field the API does not have: its name is taken from files only.
const NEVER: &[&str] = &["\0"];

/// Names a check of the API has by itself.
const CHECK_FIELDS: [Name; 2] = [("id", &[]), ("serviceid", &["service_id"])];

/// Names a check of the API has inside a service.
const SERVICE_CHECK_FIELDS: [Name; 2] = [("id", &["checkid"]), ("serviceid", &["service_id"])];

/// Names a check of a file has, inside a service or not.
const FILE_CHECK_FIELDS: [Name; 4] =
    [("id", &["checkid"]), ("serviceid", &[]), ("script", NEVER), ("namespace", NEVER)];

/// Names all checks have.
const CHECK_FIELDS_COMMON: [Name; 32] = [
    ("name", &[]),
    ("notes", &[]),
    ("token", &[]),
    ("status", &[]),
    ("args", &["scriptargs", "script_args"]),
    ("http", &[]),
    ("method", &[]),
    ("header", &[]),
    ("body", &[]),
    ("disableredirects", &[]),
    ("tcp", &[]),
    ("tcpusetls", &[]),
    ("udp", &[]),
    ("grpc", &[]),
    ("grpcusetls", &[]),
    ("h2ping", &[]),
    ("h2pingusetls", &[]),
    ("osservice", &[]),
    ("dockercontainerid", &["docker_container_id"]),
    ("shell", &[]),
    ("aliasnode", &[]),
    ("aliasservice", &[]),
    ("tlsservername", &[]),
    ("tlsskipverify", &["tls_skip_verify"]),
    ("interval", &[]),
    ("timeout", &[]),
    ("ttl", &[]),
    ("deregistercriticalserviceafter", &["deregister_critical_service_after"]),
    ("outputmaxsize", &[]),
    ("successbeforepassing", &[]),
    ("failuresbeforewarning", &[]),
    ("failuresbeforecritical", &[]),
];

/// Finds the field a key names.
fn known(names: &[Name], key: &str, style: Style) -> Result<&'static str, Problem> {
    let lower = key.to_ascii_lowercase();
    let plain = lower.replace('_', "");
    let hit = names.iter().find(|(name, others)| match style {
        Style::File => *name == plain || others.contains(&plain.as_str()),
        // `CheckID` replaces `ID` inside a service: the alias of an `id` is then its only name.
        Style::Api if *name == "id" && !others.is_empty() => others.contains(&lower.as_str()),
        Style::Api => (*name == lower && *others != NEVER) || others.contains(&lower.as_str()),
    });
    hit.map(|(name, _)| *name).ok_or_else(|| Problem { key: key.to_owned(), fault: Fault::Unknown })
}

/// The pairs of an object; in files a list of one object is that object (HCL writes blocks so).
fn object(value: &Value, style: Style) -> Result<&Map<String, Value>, Problem> {
    match value {
        Value::Object(map) => Ok(map),
        Value::Array(items) if style == Style::File && items.len() == 1 => object(&items[0], style),
        other => Err(wrong_type("map", other)),
    }
}

/// A fault of type at the value itself.
fn wrong_type(expected: &'static str, value: &Value) -> Problem {
    let found = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(n) if expected == "int" => format!("number {n}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    };
    Problem { key: String::new(), fault: Fault::Type { expected, found } }
}

/// One value on its way into a field.
#[derive(Clone, Copy)]
struct Field<'a> {
    /// The value; never null.
    value: &'a Value,
    /// How strict to be.
    style: Style,
}

impl<'a> Field<'a> {
    /// Text.
    fn text(self) -> Result<String, Problem> {
        self.value.as_str().map(str::to_owned).ok_or_else(|| wrong_type("string", self.value))
    }

    /// A whole number; files may write it with a fraction, which is dropped.
    fn int(self) -> Result<i64, Problem> {
        let dropped = || match self.style {
            Style::File => self.value.as_f64().map(|f| f as i64),
            Style::Api => None,
        };
        self.value.as_i64().or_else(dropped).ok_or_else(|| wrong_type("int", self.value))
    }

    /// A boolean.
    fn flag(self) -> Result<bool, Problem> {
        self.value.as_bool().ok_or_else(|| wrong_type("bool", self.value))
    }

    /// A length of time in nanoseconds: Go's text, or a number of nanoseconds. Go ignores other types in API bodies.
    fn duration(self) -> Result<i64, Problem> {
        match self.value {
            Value::String(text) => duration::parse(text)
                .map_err(|text| Problem { key: String::new(), fault: Fault::Value(text) }),
            Value::Number(n) => Ok(n.as_i64().unwrap_or_else(|| n.as_f64().unwrap_or_default() as i64)),
            _ if self.style == Style::Api => Ok(0),
            other => Err(wrong_type("duration such as \"10s\"", other)),
        }
    }

    /// A list; in files one object is a list of one.
    fn list(self, expected: &'static str) -> Result<Vec<&'a Value>, Problem> {
        match (self.value, self.style) {
            (Value::Array(items), _) => Ok(items.iter().collect()),
            (Value::Object(_), Style::File) => Ok(vec![self.value]),
            _ => Err(wrong_type(expected, self.value)),
        }
    }

    /// A list of texts.
    fn texts(self) -> Result<Vec<String>, Problem> {
        let items = self.list("[]string")?.into_iter().filter(|v| !v.is_null());
        items.map(|value| Field { value, ..self }.text()).collect()
    }

    /// Text by name.
    fn text_map(self) -> Result<StringMap, Problem> {
        let pairs = match self.value {
            // Several HCL blocks of the same name make one map.
            Value::Array(items) if self.style == Style::File && items.iter().all(Value::is_object) => {
                items.iter().filter_map(Value::as_object).flatten().collect::<Vec<_>>()
            }
            _ => object(self.value, self.style)
                .map_err(|_| wrong_type("map[string]string", self.value))?
                .iter()
                .collect(),
        };
        let text = |value| Field { value, ..self }.text();
        pairs.into_iter().map(|(k, v)| Ok((k.clone(), text(v).map_err(|p| p.below(k))?))).collect()
    }

    /// Header values by name.
    fn header(self) -> Result<BTreeMap<String, Vec<String>>, Problem> {
        let pairs = object(self.value, self.style)
            .map_err(|_| wrong_type("map[string][]string", self.value))?
            .iter()
            .map(|(name, value)| Ok((name.clone(), Field { value, ..self }.texts()?)));
        pairs.collect()
    }

    /// The enterprise namespace: absent or `default`.
    fn namespace(self) -> Result<(), Problem> {
        match self.text()?.as_str() {
            "" | "default" => Ok(()),
            other => Err(Problem {
                key: String::new(),
                fault: Fault::Value(format!("namespaces are not available: got {other:?}")),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service_error(body: &str) -> String {
        let decoded = ServiceDefinition::from_api(body.as_bytes());
        decoded.and_then(|s| s.validate()).expect_err(body).0
    }

    fn check_error(body: &str) -> String {
        let decoded = CheckDefinition::from_api(body.as_bytes());
        decoded.and_then(|c| c.validate()).expect_err(body).0
    }

    /// Texts asked of Consul 1.8.7.
    #[test]
    fn service_bodies_are_refused_in_consuls_words() {
        let decode = |text: &str| format!("Request decode failed: {text}");
        let go = |text: &str| decode(&format!("json: cannot unmarshal {text}"));
        for (body, text) in [
            ("{}", "Missing service name".to_owned()),
            ("null", "Missing service name".to_owned()),
            ("", decode("EOF")),
            (r#"{"Name":1}"#, go("number into Go struct field .Name of type string")),
            (r#"{"Name":"a","Port":"8"}"#, go("string into Go struct field .Port of type int")),
            (r#"{"Name":"a","Port":1.5}"#, go("number 1.5 into Go struct field .Port of type int")),
            (r#"{"Name":"a","Tags":"x"}"#, go("string into Go struct field .Tags of type []string")),
            (r#"{"Name":"a","Tags":[1]}"#, go("number into Go struct field .Tags of type string")),
            (r#"{"Name":"a","Meta":{"a":1}}"#, go("number into Go struct field .Meta of type string")),
            (
                r#"{"Name":"a","EnableTagOverride":"yes"}"#,
                go("string into Go struct field .EnableTagOverride of type bool"),
            ),
            (
                r#"{"Name":"a","Check":{"TTL":"1s","TCP":5}}"#,
                go("number into Go struct field .Check of type string"),
            ),
            (r#"{"Name":"a","Bogus":1}"#, decode(r#"json: unknown field "Bogus""#)),
            (r#"{"Name":"a","Namespace":"x"}"#, decode(r#"json: unknown field "Namespace""#)),
            (r#"{"Name":"a","check":{"Script":"x"}}"#, decode(r#"json: unknown field "Script""#)),
            (r#"{"Name":"a","Check":{"id":"x","TTL":"1s"}}"#, decode(r#"json: unknown field "id""#)),
            (r#"{"Name":"a","Check":{"TTL":"x"}}"#, decode(r#"time: invalid duration "x""#)),
            (r#"{"Name":"a","Address":"::"}"#, "Invalid service address".to_owned()),
            (
                r#"{"Name":"a","Weights":{"Warning":1}}"#,
                "Invalid Weights: Passing must be greater than 0".to_owned(),
            ),
            (
                r#"{"Name":"a","Weights":{"Passing":70000,"Warning":1}}"#,
                "Invalid Weights: DNS Weight must be between 0 and 65535".to_owned(),
            ),
            (
                r#"{"Name":"a","Check":{"TTL":"10s","Status":"foo"}}"#,
                "Status for checks must 'passing', 'warning', 'critical'".to_owned(),
            ),
            (
                r#"{"Name":"a","Meta":{"a b":"1"}}"#,
                "Invalid Service Meta: Couldn't load metadata pair ('a b', '1'): Key contains invalid characters"
                    .to_owned(),
            ),
            (
                r#"{"Name":"a","Checks":[{"TTL":"10s"},{}]}"#,
                "Invalid check: TTL must be > 0 for TTL checks".to_owned(),
            ),
        ] {
            assert_eq!(service_error(body), text, "{body}");
        }
    }

    #[test]
    fn check_bodies_are_refused_in_consuls_words() {
        for (body, text) in [
            (r#"{"Name":"v","CheckID":"x"}"#, r#"Request decode failed: json: unknown field "CheckID""#),
            (r#"{"Name":"v","TTL":"10"}"#, r#"Request decode failed: time: missing unit in duration "10""#),
            (r#"{"Name":"v","TTL":"-10s"}"#, "TTL must be > 0 for TTL checks"),
            (r#"{"Name":"v","TCP":"x:1"}"#, "Interval must be > 0 for Script, HTTP, or TCP checks"),
            (r#"{"Name":"v","TTL":"1s","Interval":"1s"}"#, "Interval and TTL cannot both be specified"),
            (r#"{"Name":"v","TTL":"1s","AliasService":"x"}"#, "TTL must be not be set for Alias checks"),
            (r#"{"Name":"v","TTL":"1s","OutputMaxSize":-1}"#, "MaxOutputMaxSize must be positive"),
        ] {
            assert_eq!(check_error(body), text, "{body}");
        }
    }

    #[test]
    fn the_single_check_comes_first_and_ids_number_from_one() {
        let body = br#"{"Name":"m","Checks":[{"TTL":"20s","Name":"second"},{"CheckID":"named","TTL":"9s"}],
            "Check":{"TTL":"30s"}}"#;
        let service = ServiceDefinition::from_api(body).expect("decodes");
        let ids: Vec<_> = (0..3).map(|i| service.check_id(i)).collect();
        assert_eq!(ids, ["service:m:1", "service:m:2", "named"]);
        assert_eq!(service.checks[0].ttl_ns, 30 * duration::SECOND_NS);
    }

    #[test]
    fn a_single_empty_check_is_none() {
        let service = ServiceDefinition::from_api(br#"{"Name":"a","Check":{"TTL":true}}"#).expect("decodes");
        assert!(service.checks.is_empty());
    }

    #[test]
    fn names_follow_go_in_bodies() {
        let body = br#"{"NAME":"a","CHECK":{"ttl":1500000000.0,"tls_skip_verify":true,"service_id":"q",
            "deregister_critical_service_after":"90s"},"tagged_addresses":{"wan":{"ADDRESS":"1.2.3.4","port":5}}}"#;
        let service = ServiceDefinition::from_api(body).expect("decodes");
        let check = &service.checks[0];
        assert_eq!(
            (check.ttl_ns, check.tls_skip_verify, check.service_id.as_str()),
            (1_500_000_000, true, "")
        );
        assert_eq!(check.deregister_critical_service_after_ns, 90 * duration::SECOND_NS);
        assert_eq!(
            service.tagged_addresses["wan"],
            ServiceAddress { address: "1.2.3.4".to_owned(), port: 5 }
        );
    }

    #[test]
    fn files_may_write_blocks_and_know_the_talks_script() {
        let block = serde_json::json!({
            "Name": "web", "port": 8080.0, "tags": null, "enableTagOverride": true, "weights": [{"warning": 3}],
            "check": [{"script": "curl localhost", "interval": "10s", "failures_before_critical": 2.0}],
            "checks": {"serviceID": "ignored", "ttl": 1000, "checkid": "x"},
        });
        let service = ServiceDefinition::from_config(&block).expect("decodes");
        assert_eq!((service.port, service.tags.len()), (8080, 0));
        assert_eq!(service.weights, Some(Weights { passing: 1, warning: 3 }));
        assert_eq!(service.checks[0].script, "curl localhost");
        assert_eq!(service.checks[0].failures_before_critical, 2);
        assert_eq!((service.checks[1].id.as_str(), service.checks[1].ttl_ns), ("x", 1000));
        assert!(service.enable_tag_override);
        assert_eq!(service.validate(), Ok(()));
    }

    #[test]
    fn faults_in_files_name_the_key() {
        let key = |block: Value| ServiceDefinition::from_config(&block).expect_err("refused").key;
        assert_eq!(key(serde_json::json!({"name": "a", "bogus": 1})), "bogus");
        assert_eq!(key(serde_json::json!({"checks": [{}, {"ttl": "x"}]})), "checks[1].ttl");
        assert_eq!(key(serde_json::json!({"weights": {"other": 1}})), "weights.other");
        assert_eq!(key(serde_json::json!({"port": "8080"})), "port");
        assert_eq!(key(serde_json::json!({"tags": "one"})), "tags");
    }
}
