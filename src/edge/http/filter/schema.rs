//! What the rows of each answer offer to filter expressions: field names, kinds, nesting. The lists are those
//! of Consul 1.8.7; fields it hides from filters (raft indexes, check definitions, opaque configuration) are
//! left out.

use super::ast::Op;

/// A field of a row.
#[derive(Debug)]
pub struct Field {
    /// Name as written in expressions (letter case counts).
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
}

/// What a field holds.
#[derive(Debug)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Number,
    /// True or false.
    Flag,
    /// A list of texts.
    Texts,
    /// A map from text to text.
    TextMap,
    /// A map from text to objects of this kind.
    ObjectMap(&'static Kind),
    /// A list of objects: a test holds if it holds for any of them.
    Objects(&'static [Field]),
    /// An object.
    Object(&'static [Field]),
}

impl Kind {
    /// Whether the kind takes this test.
    pub fn supports(&self, op: Op) -> bool {
        use Op::{Equal, In, IsEmpty, IsNotEmpty, Matches, NotEqual, NotIn, NotMatches};
        match self {
            Kind::Text => matches!(op, Equal | NotEqual | In | NotIn | Matches | NotMatches),
            Kind::Number | Kind::Flag => matches!(op, Equal | NotEqual),
            Kind::Texts | Kind::TextMap | Kind::ObjectMap(_) => {
                matches!(op, In | NotIn | IsEmpty | IsNotEmpty)
            }
            Kind::Objects(_) => matches!(op, IsEmpty | IsNotEmpty),
            Kind::Object(_) => false,
        }
    }
}

/// Rows of `/v1/catalog/nodes`.
pub static NODE: &[Field] = &[
    text("ID"),
    text("Node"),
    text("Address"),
    text("Datacenter"),
    field("TaggedAddresses", Kind::TextMap),
    field("Meta", Kind::TextMap),
];

/// Rows of `/v1/catalog/service/:service`.
pub static CATALOG_SERVICE: &[Field] = &[
    text("ID"),
    text("Node"),
    text("Address"),
    text("Datacenter"),
    field("TaggedAddresses", Kind::TextMap),
    field("NodeMeta", Kind::TextMap),
    text("ServiceKind"),
    text("ServiceID"),
    text("ServiceName"),
    field("ServiceTags", Kind::Texts),
    text("ServiceAddress"),
    field("ServiceTaggedAddresses", Kind::ObjectMap(&ADDRESS_OBJECT)),
    field("ServiceWeights", Kind::Object(WEIGHTS)),
    field("ServiceMeta", Kind::TextMap),
    number("ServicePort"),
    flag("ServiceEnableTagOverride"),
    field("ServiceProxy", Kind::Object(PROXY)),
    field("ServiceConnect", Kind::Object(CONNECT)),
];

/// Services of `/v1/catalog/node/:node`, `/v1/catalog/node-services/:node` and inside other rows.
pub static NODE_SERVICE: &[Field] = &[
    text("Kind"),
    text("ID"),
    text("Service"),
    field("Tags", Kind::Texts),
    text("Address"),
    field("TaggedAddresses", Kind::ObjectMap(&ADDRESS_OBJECT)),
    field("Meta", Kind::TextMap),
    number("Port"),
    field("Weights", Kind::Object(WEIGHTS)),
    flag("EnableTagOverride"),
    field("Proxy", Kind::Object(PROXY)),
    field("Connect", Kind::Object(CONNECT)),
];

/// Services of `/v1/agent/services`.
pub static AGENT_SERVICE: &[Field] = &[
    text("Kind"),
    text("ID"),
    text("Service"),
    field("Tags", Kind::Texts),
    field("Meta", Kind::TextMap),
    number("Port"),
    text("Address"),
    field("TaggedAddresses", Kind::ObjectMap(&ADDRESS_OBJECT)),
    field("Weights", Kind::Object(WEIGHTS)),
    flag("EnableTagOverride"),
    field("Proxy", Kind::Object(AGENT_PROXY)),
    field("Connect", Kind::Object(CONNECT)),
];

/// Checks of `/v1/health/checks`, `/state`, `/node` and `/v1/agent/checks`.
pub static HEALTH_CHECK: &[Field] = &[
    text("Node"),
    text("CheckID"),
    text("Name"),
    text("Status"),
    text("Notes"),
    text("Output"),
    text("ServiceID"),
    text("ServiceName"),
    field("ServiceTags", Kind::Texts),
    text("Type"),
];

/// Rows of `/v1/health/service/:service`.
pub static SERVICE_ENTRY: &[Field] = &[
    field("Node", Kind::Object(NODE)),
    field("Service", Kind::Object(NODE_SERVICE)),
    field("Checks", Kind::Objects(HEALTH_CHECK)),
];

/// Rows of `/v1/internal/ui/nodes`.
pub static NODE_INFO: &[Field] = &[
    text("ID"),
    text("Node"),
    text("Address"),
    field("TaggedAddresses", Kind::TextMap),
    field("Meta", Kind::TextMap),
    field("Services", Kind::Objects(NODE_SERVICE)),
    field("Checks", Kind::Objects(HEALTH_CHECK)),
];

static ADDRESS: &[Field] = &[text("Address"), number("Port")];

static ADDRESS_OBJECT: Kind = Kind::Object(ADDRESS);

static WEIGHTS: &[Field] = &[number("Passing"), number("Warning")];

static CONNECT: &[Field] = &[flag("Native")];

static MESH_GATEWAY: &[Field] = &[text("Mode")];

static UPSTREAM: &[Field] = &[
    text("DestinationType"),
    text("DestinationNamespace"),
    text("DestinationName"),
    text("Datacenter"),
    text("LocalBindAddress"),
    number("LocalBindPort"),
    field("MeshGateway", Kind::Object(MESH_GATEWAY)),
];

static EXPOSE_PATH: &[Field] = &[
    number("ListenerPort"),
    text("Path"),
    number("LocalPathPort"),
    text("Protocol"),
    flag("ParsedFromCheck"),
];

static EXPOSE: &[Field] = &[flag("Checks"), field("Paths", Kind::Objects(EXPOSE_PATH))];

static PROXY: &[Field] = &[
    text("DestinationServiceName"),
    text("DestinationServiceID"),
    text("LocalServiceAddress"),
    number("LocalServicePort"),
    field("Upstreams", Kind::Objects(UPSTREAM)),
    field("MeshGateway", Kind::Object(MESH_GATEWAY)),
    field("Expose", Kind::Object(EXPOSE)),
];

static AGENT_PROXY: &[Field] = &[
    text("DestinationServiceName"),
    text("DestinationServiceID"),
    text("LocalServiceAddress"),
    number("LocalServicePort"),
    field("Upstreams", Kind::Objects(UPSTREAM)),
    field("MeshGateway", Kind::Object(MESH_GATEWAY)),
    field("Expose", Kind::Object(EXPOSE)),
];

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind }
}

const fn text(name: &'static str) -> Field {
    field(name, Kind::Text)
}

const fn number(name: &'static str) -> Field {
    field(name, Kind::Number)
}

const fn flag(name: &'static str) -> Field {
    field(name, Kind::Flag)
}
