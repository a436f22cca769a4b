//! Typed rows as filters see them: a field by name, without copying.

use std::collections::BTreeMap;

use crate::store::model::{Check, Node, Service, ServiceAddress, StringMap, Weights};

/// A row or an object inside one.
pub trait Row {
    /// The value of a field of the row's description; [`Value::Zero`] for what the row never holds.
    fn field(&self, name: &str) -> Value<'_>;
}

/// A list of rows inside a row.
pub trait Rows {
    /// Whether the list holds nothing.
    fn is_empty(&self) -> bool;
    /// Whether the test holds for one of them.
    fn any(&self, test: &mut dyn FnMut(&dyn Row) -> bool) -> bool;
}

/// A map from text inside a row.
pub trait Map {
    /// Whether the map holds nothing.
    fn is_empty(&self) -> bool;
    /// The value of a key.
    fn get(&self, key: &str) -> Option<Value<'_>>;
}

/// A value of a field.
pub enum Value<'a> {
    /// The zero value of the field's kind.
    Zero,
    /// Text.
    Text(&'a str),
    /// A whole number.
    Number(i64),
    /// True or false.
    Flag(bool),
    /// A list of texts.
    Texts(&'a [String]),
    /// A map.
    Map(&'a dyn Map),
    /// An object.
    Row(&'a dyn Row),
    /// A list of objects.
    Rows(&'a dyn Rows),
}

impl Row for Node {
    fn field(&self, name: &str) -> Value<'_> {
        match name {
            "ID" => Value::Text(&self.id),
            "Node" => Value::Text(&self.node),
            "Address" => Value::Text(&self.address),
            "Datacenter" => Value::Text(&self.datacenter),
            "TaggedAddresses" => map(&self.tagged_addresses),
            "Meta" => map(&self.meta),
            _ => Value::Zero,
        }
    }
}

impl Row for Service {
    fn field(&self, name: &str) -> Value<'_> {
        match name {
            "Kind" => Value::Text(&self.kind),
            "ID" => Value::Text(&self.id),
            "Service" => Value::Text(&self.name),
            "Tags" => Value::Texts(&self.tags),
            "Address" => Value::Text(&self.address),
            "TaggedAddresses" => map(&self.tagged_addresses),
            "Meta" => map(&self.meta),
            "Port" => Value::Number(self.port),
            "Weights" => Value::Row(&self.weights),
            "EnableTagOverride" => Value::Flag(self.enable_tag_override),
            _ => Value::Zero,
        }
    }
}

impl Row for Check {
    fn field(&self, name: &str) -> Value<'_> {
        match name {
            "Node" => Value::Text(&self.node),
            "CheckID" => Value::Text(&self.check_id),
            "Name" => Value::Text(&self.name),
            "Status" => Value::Text(self.status.as_str()),
            "Notes" => Value::Text(&self.notes),
            "Output" => Value::Text(&self.output),
            "ServiceID" => Value::Text(&self.service_id),
            "ServiceName" => Value::Text(&self.service_name),
            "ServiceTags" => Value::Texts(&self.service_tags),
            "Type" => Value::Text(&self.kind),
            _ => Value::Zero,
        }
    }
}

/// A row of `/v1/catalog/service/:service`.
pub struct CatalogService<'a> {
    /// The node.
    pub node: &'a Node,
    /// The instance on it.
    pub service: &'a Service,
}

impl Row for CatalogService<'_> {
    fn field(&self, name: &str) -> Value<'_> {
        match name {
            "NodeMeta" => map(&self.node.meta),
            "ServiceName" => Value::Text(&self.service.name),
            other => match other.strip_prefix("Service") {
                Some(inner) => self.service.field(inner),
                None => self.node.field(other),
            },
        }
    }
}

/// A row of `/v1/health/service/:service`.
pub struct ServiceEntry<'a> {
    /// The node.
    pub node: &'a Node,
    /// The instance on it.
    pub service: &'a Service,
    /// The checks of the node and of the instance.
    pub checks: &'a dyn Rows,
}

impl Row for ServiceEntry<'_> {
    fn field(&self, name: &str) -> Value<'_> {
        match name {
            "Node" => Value::Row(self.node),
            "Service" => Value::Row(self.service),
            "Checks" => Value::Rows(self.checks),
            _ => Value::Zero,
        }
    }
}

/// A row of `/v1/internal/ui/nodes`.
pub struct NodeInfo<'a> {
    /// The node.
    pub node: &'a Node,
    /// Its services.
    pub services: &'a dyn Rows,
    /// Its checks.
    pub checks: &'a dyn Rows,
}

impl Row for NodeInfo<'_> {
    fn field(&self, name: &str) -> Value<'_> {
        match name {
            "Services" => Value::Rows(self.services),
            "Checks" => Value::Rows(self.checks),
            other => self.node.field(other),
        }
    }
}

impl Row for Weights {
    fn field(&self, name: &str) -> Value<'_> {
        match name {
            "Passing" => Value::Number(self.passing),
            "Warning" => Value::Number(self.warning),
            _ => Value::Zero,
        }
    }
}

impl Row for ServiceAddress {
    fn field(&self, name: &str) -> Value<'_> {
        match name {
            "Address" => Value::Text(&self.address),
            "Port" => Value::Number(self.port),
            _ => Value::Zero,
        }
    }
}

impl<R: Row, P: std::ops::Deref<Target = R>> Rows for Vec<P> {
    fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    fn any(&self, test: &mut dyn FnMut(&dyn Row) -> bool) -> bool {
        self.iter().any(|row| test(&**row))
    }
}

impl Map for StringMap {
    fn is_empty(&self) -> bool {
        BTreeMap::is_empty(self)
    }

    fn get(&self, key: &str) -> Option<Value<'_>> {
        BTreeMap::get(self, key).map(|text| Value::Text(text))
    }
}

impl Map for BTreeMap<String, ServiceAddress> {
    fn is_empty(&self) -> bool {
        BTreeMap::is_empty(self)
    }

    fn get(&self, key: &str) -> Option<Value<'_>> {
        BTreeMap::get(self, key).map(|address| Value::Row(address))
    }
}

fn map<M: Map>(map: &Option<M>) -> Value<'_> {
    match map {
        Some(map) => Value::Map(map),
        None => Value::Zero,
    }
}
