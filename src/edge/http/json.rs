//! JSON bodies as Consul writes them: field names, their order, `null` against empty, Go's escapes, and the
//! four-space layout of `?pretty`. Rows are written straight into the answer's bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::duration;
use crate::store::model::{
    Check, CheckDefinition, KvEntry, Node, Service, ServiceAddress, ServiceCheck, Session, StringMap, Weights,
};

/// Frames the name of a field for [`JsonWriter::field`], at compile time. The name must need no escapes.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}
pub(crate) use name;

/// Writes one JSON document.
pub struct JsonWriter {
    out: Vec<u8>,
    pretty: bool,
    depth: usize,
    /// Nothing has been written into the innermost object or array yet.
    fresh: bool,
}

impl JsonWriter {
    /// An empty document; `pretty` spreads it over lines.
    pub fn new(pretty: bool) -> JsonWriter {
        JsonWriter { out: Vec::with_capacity(512), pretty, depth: 0, fresh: true }
    }

    /// The document's bytes; the pretty form ends with a newline.
    pub fn finish(mut self) -> Vec<u8> {
        if self.pretty {
            self.out.push(b'\n');
        }
        self.out
    }

    /// An object whose fields `fields` writes.
    pub fn object(&mut self, fields: impl FnOnce(&mut JsonWriter)) {
        self.nest(b'{', b'}', fields);
    }

    /// An array of what `item` writes for each of `items`.
    pub fn array<T>(&mut self, items: impl IntoIterator<Item = T>, mut item: impl FnMut(&mut JsonWriter, T)) {
        self.nest(b'[', b']', |w| {
            for value in items {
                w.next();
                item(w, value);
            }
        });
    }

    /// A field of an object: its name, framed by [`name!`]; the value is to follow.
    pub fn field(&mut self, framed: &'static str) -> &mut JsonWriter {
        debug_assert!(framed.starts_with(",\""), "{framed} is not framed by name!");
        let framed = framed.as_bytes();
        if self.pretty {
            self.next();
            self.out.extend_from_slice(&framed[1..]);
            self.out.push(b' ');
        } else {
            self.out.extend_from_slice(&framed[usize::from(self.fresh)..]);
            self.fresh = false;
        }
        self
    }

    /// An entry of an object by a key that is any text; the value is to follow.
    pub fn key(&mut self, key: &str) -> &mut JsonWriter {
        self.next();
        self.text(key);
        self.out.extend_from_slice(if self.pretty { b": " } else { b":" });
        self
    }

    /// `null`.
    pub fn null(&mut self) {
        self.out.extend_from_slice(b"null");
    }

    /// `true` or `false`.
    pub fn flag(&mut self, value: bool) {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// A whole number.
    pub fn number(&mut self, value: impl Into<i128>) {
        let value: i128 = value.into();
        assert!(value.unsigned_abs() <= u128::from(u64::MAX), "numbers of the API have 64 bits");
        let mut rest = value.unsigned_abs() as u64;
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            self.out.push(b'-');
        }
        self.out.extend_from_slice(&digits[at..]);
    }

    /// A number with a fraction.
    pub fn float(&mut self, value: f64) {
        // Infinite and undefined numbers are none in JSON; no row has them.
        let value = if value.is_finite() { value } else { 0.0 };
        self.out.extend_from_slice(value.to_string().as_bytes());
    }

    /// Text, escaped as Go's `encoding/json` does for HTML.
    pub fn text(&mut self, text: &str) {
        self.out.push(b'"');
        self.escaped(text);
        self.out.push(b'"');
    }

    /// Octets as text; what is not UTF-8 becomes `\ufffd`.
    pub fn octets(&mut self, octets: &[u8]) {
        self.out.push(b'"');
        for chunk in octets.utf8_chunks() {
            self.escaped(chunk.valid());
            for _ in chunk.invalid() {
                self.out.extend_from_slice(b"\\ufffd");
            }
        }
        self.out.push(b'"');
    }

    /// Octets in base64; `null` when there are none.
    pub fn base64(&mut self, octets: &[u8]) {
        if octets.is_empty() {
            return self.null();
        }
        self.out.push(b'"');
        let start = self.out.len();
        let length = octets.len().div_ceil(3) * 4;
        self.out.resize(start + length, 0);
        let written = STANDARD.encode_slice(octets, &mut self.out[start..]);
        assert_eq!(written, Ok(length), "base64 needs four characters for each three bytes");
        self.out.push(b'"');
    }

    fn nest(&mut self, open: u8, close: u8, inside: impl FnOnce(&mut JsonWriter)) {
        self.out.push(open);
        self.depth += 1;
        self.fresh = true;
        inside(self);
        self.depth -= 1;
        if !self.fresh {
            self.line();
        }
        self.fresh = false;
        self.out.push(close);
    }

    fn next(&mut self) {
        if !self.fresh {
            self.out.push(b',');
        }
        self.line();
        self.fresh = false;
    }

    fn line(&mut self) {
        if self.pretty {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + 4 * self.depth, b' ');
        }
    }

    fn escaped(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut start = 0;
        for (at, &byte) in bytes.iter().enumerate().skip(plain_blocks(bytes)) {
            if PLAIN[byte as usize] {
                continue;
            }
            if byte == 0xe2 {
                // U+2028 and U+2029 end lines in JavaScript; they are E2 80 A8 and E2 80 A9.
                if let Some([0x80, last @ (0xa8 | 0xa9)]) = bytes.get(at + 1..at + 3) {
                    self.out.extend_from_slice(&bytes[start..at]);
                    self.out.extend_from_slice(if *last == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                    start = at + 3;
                }
                continue;
            }
            self.out.extend_from_slice(&bytes[start..at]);
            start = at + 1;
            match byte {
                b'"' => self.out.extend_from_slice(b"\\\""),
                b'\\' => self.out.extend_from_slice(b"\\\\"),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                b'\t' => self.out.extend_from_slice(b"\\t"),
                other => {
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    self.out.extend_from_slice(b"\\u00");
                    self.out.push(HEX[usize::from(other >> 4)]);
                    self.out.push(HEX[usize::from(other & 15)]);
                }
            }
        }
        self.out.extend_from_slice(&bytes[start..]);
    }
}

/// How many bytes at the start need no escapes, in whole blocks that are looked at in one go.
fn plain_blocks(bytes: &[u8]) -> usize {
    const BLOCK: usize = 16;
    let plain = |block: &&[u8]| {
        !block.iter().fold(false, |found, &byte| {
            found
                | (byte < 0x20)
                | (byte == b'"')
                | (byte == b'\\')
                | (byte == b'<')
                | (byte == b'>')
                | (byte == b'&')
                | (byte == 0xe2)
        })
    };
    BLOCK * bytes.chunks_exact(BLOCK).take_while(plain).count()
}

/// Bytes that need no second look inside a string.
static PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 0x20 {
        plain[byte] = false;
        byte += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain[b'<' as usize] = false;
    plain[b'>' as usize] = false;
    plain[b'&' as usize] = false;
    plain[0xe2] = false;
    plain
};

/// What can be written as a JSON value.
pub trait Json {
    /// Writes it.
    fn write(&self, w: &mut JsonWriter);
}

/// A whole document.
pub fn document(pretty: bool, value: &(impl Json + ?Sized)) -> Vec<u8> {
    let mut w = JsonWriter::new(pretty);
    value.write(&mut w);
    w.finish()
}

impl Json for bool {
    fn write(&self, w: &mut JsonWriter) {
        w.flag(*self);
    }
}

impl Json for str {
    fn write(&self, w: &mut JsonWriter) {
        w.text(self);
    }
}

impl Json for String {
    fn write(&self, w: &mut JsonWriter) {
        w.text(self);
    }
}

impl<T: Json> Json for [T] {
    fn write(&self, w: &mut JsonWriter) {
        w.array(self, |w, item| item.write(w));
    }
}

impl Json for StringMap {
    fn write(&self, w: &mut JsonWriter) {
        w.object(|w| self.iter().for_each(|(key, value)| w.key(key).text(value)));
    }
}

/// `null` when there is none.
impl<T: Json> Json for Option<T> {
    fn write(&self, w: &mut JsonWriter) {
        match self {
            Some(value) => value.write(w),
            None => w.null(),
        }
    }
}

impl Json for KvEntry {
    fn write(&self, w: &mut JsonWriter) {
        w.object(|w| {
            w.field(name!("LockIndex")).number(self.lock_index);
            w.field(name!("Key")).octets(&self.key);
            w.field(name!("Flags")).number(self.flags);
            w.field(name!("Value")).base64(&self.value);
            if !self.session.is_empty() {
                w.field(name!("Session")).text(&self.session);
            }
            indexes(w, self.create_index, self.modify_index);
        });
    }
}

impl Json for Session {
    fn write(&self, w: &mut JsonWriter) {
        w.object(|w| {
            w.field(name!("ID")).text(&self.id);
            w.field(name!("Name")).text(&self.name);
            w.field(name!("Node")).text(&self.node);
            w.field(name!("LockDelay")).number(self.lock_delay_ns);
            w.field(name!("Behavior")).text(self.behavior.as_str());
            w.field(name!("TTL")).text(&self.ttl);
            list(w.field(name!("NodeChecks")), self.node_checks.as_deref());
            list(w.field(name!("ServiceChecks")), self.service_checks.as_deref());
            if let Some(checks) = self.checks.as_deref().filter(|checks| !checks.is_empty()) {
                checks.write(w.field(name!("Checks")));
            }
            indexes(w, self.create_index, self.modify_index);
        });
    }
}

impl Json for ServiceCheck {
    fn write(&self, w: &mut JsonWriter) {
        w.object(|w| {
            w.field(name!("ID")).text(&self.id);
            w.field(name!("Namespace")).text(&self.namespace);
        });
    }
}

/// `null` when there is none.
fn list<T: Json>(w: &mut JsonWriter, items: Option<&[T]>) {
    match items {
        Some(items) => items.write(w),
        None => w.null(),
    }
}

impl Json for Node {
    fn write(&self, w: &mut JsonWriter) {
        w.object(|w| {
            w.field(name!("ID")).text(&self.id);
            w.field(name!("Node")).text(&self.node);
            w.field(name!("Address")).text(&self.address);
            w.field(name!("Datacenter")).text(&self.datacenter);
            self.tagged_addresses.write(w.field(name!("TaggedAddresses")));
            self.meta.write(w.field(name!("Meta")));
            indexes(w, self.create_index, self.modify_index);
        });
    }
}

impl Json for ServiceAddress {
    fn write(&self, w: &mut JsonWriter) {
        w.object(|w| {
            w.field(name!("Address")).text(&self.address);
            w.field(name!("Port")).number(self.port);
        });
    }
}

impl Json for Weights {
    fn write(&self, w: &mut JsonWriter) {
        w.object(|w| {
            w.field(name!("Passing")).number(self.passing);
            w.field(name!("Warning")).number(self.warning);
        });
    }
}

/// A service as in `/v1/catalog/node/:node`.
impl Json for Service {
    fn write(&self, w: &mut JsonWriter) {
        service(w, self, |w| self.tags[..].write(w));
    }
}

/// A service as in answers of transactions.
pub fn raw_service(w: &mut JsonWriter, row: &Service) {
    service(w, row, |w| raw_tags(w, &row.tags));
}

fn service(w: &mut JsonWriter, row: &Service, tags: impl FnOnce(&mut JsonWriter)) {
    w.object(|w| {
        if !row.kind.is_empty() {
            w.field(name!("Kind")).text(&row.kind);
        }
        w.field(name!("ID")).text(&row.id);
        w.field(name!("Service")).text(&row.name);
        tags(w.field(name!("Tags")));
        w.field(name!("Address")).text(&row.address);
        tagged_addresses(w, name!("TaggedAddresses"), row);
        row.meta.write(w.field(name!("Meta")));
        w.field(name!("Port")).number(row.port);
        row.weights.write(w.field(name!("Weights")));
        w.field(name!("EnableTagOverride")).flag(row.enable_tag_override);
        mesh(w, name!("Proxy"), name!("Connect"));
        indexes(w, row.create_index, row.modify_index);
    });
}

/// Tags where Consul shows its rows as they are: `null` when there are none.
fn raw_tags(w: &mut JsonWriter, tags: &[String]) {
    if tags.is_empty() {
        w.null();
    } else {
        tags.write(w);
    }
}

/// A row of `/v1/catalog/service/:service`.
pub fn catalog_service(w: &mut JsonWriter, node: &Node, service: &Service) {
    w.object(|w| {
        w.field(name!("ID")).text(&node.id);
        w.field(name!("Node")).text(&node.node);
        w.field(name!("Address")).text(&node.address);
        w.field(name!("Datacenter")).text(&node.datacenter);
        node.tagged_addresses.write(w.field(name!("TaggedAddresses")));
        node.meta.write(w.field(name!("NodeMeta")));
        w.field(name!("ServiceKind")).text(&service.kind);
        w.field(name!("ServiceID")).text(&service.id);
        w.field(name!("ServiceName")).text(&service.name);
        service.tags[..].write(w.field(name!("ServiceTags")));
        w.field(name!("ServiceAddress")).text(&service.address);
        tagged_addresses(w, name!("ServiceTaggedAddresses"), service);
        service.weights.write(w.field(name!("ServiceWeights")));
        match &service.meta {
            Some(meta) => meta.write(w.field(name!("ServiceMeta"))),
            // Unlike a node's, an absent map of a service is shown empty here.
            None => w.field(name!("ServiceMeta")).object(|_| ()),
        }
        w.field(name!("ServicePort")).number(service.port);
        w.field(name!("ServiceEnableTagOverride")).flag(service.enable_tag_override);
        mesh(w, name!("ServiceProxy"), name!("ServiceConnect"));
        indexes(w, service.create_index, service.modify_index);
    });
}

/// A row of `/v1/health/service/:service`.
pub fn service_entry<'a>(
    w: &mut JsonWriter,
    node: &Node,
    service: &Service,
    checks: impl IntoIterator<Item = &'a Check>,
) {
    w.object(|w| {
        node.write(w.field(name!("Node")));
        service.write(w.field(name!("Service")));
        w.field(name!("Checks")).array(checks, |w, check| check.write(w));
    });
}

impl Json for Check {
    fn write(&self, w: &mut JsonWriter) {
        check(w, self, |w| self.service_tags[..].write(w));
    }
}

/// A check as in answers of transactions.
pub fn raw_check(w: &mut JsonWriter, row: &Check) {
    check(w, row, |w| raw_tags(w, &row.service_tags));
}

fn check(w: &mut JsonWriter, row: &Check, tags: impl FnOnce(&mut JsonWriter)) {
    w.object(|w| {
        w.field(name!("Node")).text(&row.node);
        w.field(name!("CheckID")).text(&row.check_id);
        w.field(name!("Name")).text(&row.name);
        w.field(name!("Status")).text(row.status.as_str());
        w.field(name!("Notes")).text(&row.notes);
        w.field(name!("Output")).text(&row.output);
        w.field(name!("ServiceID")).text(&row.service_id);
        w.field(name!("ServiceName")).text(&row.service_name);
        tags(w.field(name!("ServiceTags")));
        w.field(name!("Type")).text(&row.kind);
        row.definition.write(w.field(name!("Definition")));
        indexes(w, row.create_index, row.modify_index);
    });
}

/// Fields that are unset are left out.
impl Json for CheckDefinition {
    fn write(&self, w: &mut JsonWriter) {
        w.object(|w| {
            for (name, ns) in [
                (name!("Interval"), self.interval_ns),
                (name!("Timeout"), self.timeout_ns),
                (name!("DeregisterCriticalServiceAfter"), self.deregister_critical_service_after_ns),
            ] {
                if ns != 0 {
                    w.field(name).text(&duration::format(ns));
                }
            }
            optional(w, name!("HTTP"), &self.http);
            if self.tls_skip_verify {
                w.field(name!("TLSSkipVerify")).flag(true);
            }
            if !self.header.is_empty() {
                w.field(name!("Header"))
                    .object(|w| self.header.iter().for_each(|(name, values)| values[..].write(w.key(name))));
            }
            optional(w, name!("Method"), &self.method);
            optional(w, name!("Body"), &self.body);
            optional(w, name!("TCP"), &self.tcp);
        });
    }
}

fn optional(w: &mut JsonWriter, name: &'static str, text: &str) {
    if !text.is_empty() {
        w.field(name).text(text);
    }
}

fn tagged_addresses(w: &mut JsonWriter, name: &'static str, service: &Service) {
    if let Some(addresses) = service.tagged_addresses.as_ref().filter(|addresses| !addresses.is_empty()) {
        w.field(name).object(|w| addresses.iter().for_each(|(tag, address)| address.write(w.key(tag))));
    }
}

/// The objects of the service mesh, which every service shows and ours leave unset.
fn mesh(w: &mut JsonWriter, proxy: &'static str, connect: &'static str) {
    w.field(proxy).object(|w| {
        w.field(name!("MeshGateway")).object(|_| ());
        w.field(name!("Expose")).object(|_| ());
    });
    w.field(connect).object(|_| ());
}

fn indexes(w: &mut JsonWriter, create: u64, modify: u64) {
    w.field(name!("CreateIndex")).number(create);
    w.field(name!("ModifyIndex")).number(modify);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::model::Status;

    fn compact(value: &(impl Json + ?Sized)) -> String {
        String::from_utf8(document(false, value)).expect("JSON is UTF-8")
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        assert_eq!(
            compact("<a&b>\"\\/\n\r\t\u{1}\u{7f}\u{2028}\u{2029}€é"),
            "\"\\u003ca\\u0026b\\u003e\\\"\\\\/\\n\\r\\t\\u0001\u{7f}\\u2028\\u2029€é\""
        );
        let mut w = JsonWriter::new(false);
        w.octets(b"a\xffb\xe2\x80");
        assert_eq!(w.finish(), br#""a\ufffdb\ufffd\ufffd""#);
    }

    #[test]
    fn pretty_layout() {
        let mut w = JsonWriter::new(true);
        w.object(|w| {
            w.field(name!("consul")).array([0u8; 0], |w, n| w.number(n));
            w.field(name!("b")).array([1i64, -2], |w, n| w.number(n));
        });
        let expected = "{\n    \"consul\": [],\n    \"b\": [\n        1,\n        -2\n    ]\n}\n";
        assert_eq!(String::from_utf8(w.finish()).as_deref(), Ok(expected));
        assert_eq!(document(true, &true), b"true\n");
    }

    #[test]
    fn a_key() {
        let entry = KvEntry {
            key: b"g/a".to_vec(),
            value: b"hello".to_vec(),
            create_index: 7,
            modify_index: 9,
            ..KvEntry::default()
        };
        assert_eq!(
            compact(&entry),
            r#"{"LockIndex":0,"Key":"g/a","Flags":0,"Value":"aGVsbG8=","CreateIndex":7,"ModifyIndex":9}"#
        );
        let empty =
            KvEntry { key: b"e".to_vec(), flags: u64::MAX, session: "s".into(), ..KvEntry::default() };
        assert_eq!(
            compact(&empty),
            r#"{"LockIndex":0,"Key":"e","Flags":18446744073709551615,"Value":null,"Session":"s","CreateIndex":0,"ModifyIndex":0}"#
        );
    }

    #[test]
    fn null_and_empty_collections() {
        let node = Node {
            node: "nul".into(),
            address: "10.2.14.1".into(),
            datacenter: "dc1".into(),
            ..Node::default()
        };
        assert_eq!(
            compact(&node),
            r#"{"ID":"","Node":"nul","Address":"10.2.14.1","Datacenter":"dc1","TaggedAddresses":null,"Meta":null,"CreateIndex":0,"ModifyIndex":0}"#
        );
        let mut service = Service { id: "nul".into(), name: "nul".into(), ..Service::default() };
        assert_eq!(
            compact(&service),
            r#"{"ID":"nul","Service":"nul","Tags":[],"Address":"","Meta":null,"Port":0,"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"MeshGateway":{},"Expose":{}},"Connect":{},"CreateIndex":0,"ModifyIndex":0}"#
        );
        service.meta = Some(StringMap::new());
        assert!(compact(&service).contains(r#""Meta":{}"#));
        service.meta = None;
        let mut w = JsonWriter::new(false);
        catalog_service(&mut w, &node, &service);
        assert_eq!(
            String::from_utf8(w.finish()).as_deref(),
            Ok(
                r#"{"ID":"","Node":"nul","Address":"10.2.14.1","Datacenter":"dc1","TaggedAddresses":null,"NodeMeta":null,"ServiceKind":"","ServiceID":"nul","ServiceName":"nul","ServiceTags":[],"ServiceAddress":"","ServiceWeights":{"Passing":1,"Warning":1},"ServiceMeta":{},"ServicePort":0,"ServiceEnableTagOverride":false,"ServiceProxy":{"MeshGateway":{},"Expose":{}},"ServiceConnect":{},"CreateIndex":0,"ModifyIndex":0}"#
            )
        );
    }

    #[test]
    fn a_check_with_its_definition() {
        let check = Check {
            node: "full".into(),
            check_id: "service:redis1".into(),
            status: Status::Passing,
            kind: "http".into(),
            definition: CheckDefinition {
                http: "h".into(),
                method: "POST".into(),
                header: [("A".to_owned(), vec!["b".to_owned()])].into(),
                body: "x".into(),
                tls_skip_verify: true,
                tcp: "10.2.1.1:8888".into(),
                interval_ns: 90_000_000_000,
                timeout_ns: 1_500_000_000,
                deregister_critical_service_after_ns: 30_000_000_000,
            },
            ..Check::default()
        };
        assert!(compact(&check).contains(r#""Definition":{"Interval":"1m30s","Timeout":"1.5s","DeregisterCriticalServiceAfter":"30s","HTTP":"h","TLSSkipVerify":true,"Header":{"A":["b"]},"Method":"POST","Body":"x","TCP":"10.2.1.1:8888"},"#));
    }
}
