//! The values that templates work on: Go's, as far as a template can tell them apart.
//!
//! Text is bytes, as in Go: a key's value need not be UTF-8 and is written out as it is. Lists never change; maps that
//! a template has made itself may, and whoever holds one sees it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a text takes beside its bytes: two counts, and what the allocator rounds up.
const TEXT_BYTES: usize = 24;
/// What a list, a map or a record takes beside its elements.
const GROUP_BYTES: usize = 64;
/// What an entry of a map takes: key and value in nodes that are half full at worst.
pub const ENTRY_BYTES: usize = 96;

/// A value.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// Nothing: Go's nil without a type.
    #[default]
    Nil,
    /// True or false.
    Bool(bool),
    /// A whole number with a sign.
    Int(i64),
    /// A whole number without one.
    Uint(u64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Text(Text),
    /// A list.
    List(Rc<List>),
    /// A map.
    Map(Rc<Map>),
    /// A record with named fields.
    Struct(Rc<Struct>),
    /// Whole numbers from the first up to the second, which is not among them: what `loop` gives.
    Counter(i64, i64),
    /// The scratchpad of one execution.
    Scratch(Rc<RefCell<BTreeMap<Text, Value>>>),
}

/// Text as bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Rc<[u8]>);

/// What Go would call the type of a value that a list, a map or a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Anything (`interface {}`).
    Any,
    /// `bool`.
    Bool,
    /// `int`.
    Int,
    /// `uint64`.
    Uint,
    /// `float64`.
    Float,
    /// `string`.
    Text,
    /// A list of tags.
    Tags,
    /// A list.
    List(&'static Kind),
    /// A map with text as keys.
    Map(&'static Kind),
    /// A record.
    Struct(&'static StructKind),
}

/// A list and what its elements are.
#[derive(Debug)]
pub struct List {
    /// What all of them are.
    pub elem: Kind,
    /// Its elements.
    pub items: Vec<Value>,
}

/// A map and what its values are.
#[derive(Debug)]
pub struct Map {
    /// What all values are.
    pub elem: Kind,
    /// What the keys are.
    pub keys: Keys,
    /// Its entries in order.
    pub items: RefCell<BTreeMap<Key, Value>>,
}

/// What the keys of a map are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keys {
    /// Text.
    Text,
    /// Whole numbers.
    Int,
    /// Anything, as in YAML.
    Any,
}

/// A key of a map, in the order in which maps are walked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Nothing.
    Nil,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number, as bits in the order of the numbers.
    Float(u64),
    /// Text.
    Text(Text),
}

/// A record.
#[derive(Debug)]
pub struct Struct {
    /// Its type.
    pub kind: &'static StructKind,
    /// Its fields in the type's order.
    pub fields: Vec<Value>,
}

/// The type of a record.
#[derive(Debug)]
pub struct StructKind {
    /// Its name in messages.
    pub name: &'static str,
    /// Whether Go has a pointer to it.
    pub is_pointer: bool,
    /// Names and types of its fields.
    pub fields: &'static [(&'static str, Kind)],
}

impl PartialEq for StructKind {
    fn eq(&self, other: &StructKind) -> bool {
        self.name == other.name
    }
}

impl Text {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As Unicode; what is none is replaced.
    pub fn lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of memory, if nobody else holds it.
    fn own_bytes(&self) -> usize {
        if Rc::strong_count(&self.0) == 1 { TEXT_BYTES + self.len() } else { 0 }
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:?}", self.lossy())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(text.as_bytes().into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text(text.into_bytes().into())
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Text {
        Text(bytes.into())
    }
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Text {
        Text(bytes.into())
    }
}

impl Value {
    /// Text.
    pub fn text(text: impl Into<Text>) -> Value {
        Value::Text(text.into())
    }

    /// A list of anything.
    pub fn list(items: Vec<Value>) -> Value {
        Value::list_of(Kind::Any, items)
    }

    /// A list whose elements are all of one type.
    pub fn list_of(elem: Kind, items: Vec<Value>) -> Value {
        Value::List(Rc::new(List { elem, items }))
    }

    /// A list of text.
    pub fn texts<T: Into<Text>>(items: impl IntoIterator<Item = T>) -> Value {
        Value::list_of(Kind::Text, items.into_iter().map(Value::text).collect())
    }

    /// A map from text to anything.
    pub fn map(items: BTreeMap<Key, Value>) -> Value {
        Value::map_of(Kind::Any, Keys::Text, items)
    }

    /// A map whose values are all of one type.
    pub fn map_of(elem: Kind, keys: Keys, items: BTreeMap<Key, Value>) -> Value {
        Value::Map(Rc::new(Map { elem, keys, items: RefCell::new(items) }))
    }

    /// A record.
    pub fn record(kind: &'static StructKind, fields: Vec<Value>) -> Value {
        assert_eq!(kind.fields.len(), fields.len(), "a record has the fields of its type");
        Value::Struct(Rc::new(Struct { kind, fields }))
    }

    /// Whether `if` takes it for true; `None` where Go has no answer.
    pub fn truth(&self) -> bool {
        match self {
            Value::Nil => false,
            Value::Bool(value) => *value,
            Value::Int(number) => *number != 0,
            Value::Uint(number) => *number != 0,
            Value::Float(number) => *number != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Map(map) => !map.items.borrow().is_empty(),
            Value::Struct(_) | Value::Counter(..) | Value::Scratch(_) => true,
        }
    }

    /// How large it is for a function that goes through it once. In maps functions look things up.
    pub fn length(&self) -> usize {
        match self {
            Value::Text(text) => text.len(),
            Value::List(list) => list.items.len() * size_of::<Value>(),
            _ => 0,
        }
    }

    /// Bytes of memory of what nobody else holds: what the function has made that gives this value.
    pub fn own_bytes(&self) -> usize {
        let all = |items: &[Value]| -> usize {
            items.iter().map(|item| size_of::<Value>() + item.own_bytes()).sum()
        };
        match self {
            Value::Text(text) => text.own_bytes(),
            Value::List(list) if Rc::strong_count(list) == 1 => GROUP_BYTES + all(&list.items),
            Value::Struct(record) if Rc::strong_count(record) == 1 => GROUP_BYTES + all(&record.fields),
            Value::Map(map) if Rc::strong_count(map) == 1 => {
                let items = map.items.borrow();
                let entries = items.iter().map(|(key, value)| {
                    let key = if let Key::Text(text) = key { text.own_bytes() } else { 0 };
                    ENTRY_BYTES + key + value.own_bytes()
                });
                GROUP_BYTES + entries.sum::<usize>()
            }
            _ => 0,
        }
    }

    /// Whether it is a list or a map.
    fn is_group(&self) -> bool {
        matches!(self, Value::List(_) | Value::Map(_))
    }

    /// The name of its type.
    pub fn type_name(&self) -> String {
        match self {
            Value::Nil => "<nil>".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Int(_) => "int".to_owned(),
            Value::Uint(_) => "uint64".to_owned(),
            Value::Float(_) => "float64".to_owned(),
            Value::Text(_) => "string".to_owned(),
            Value::List(list) if list.elem == Kind::Tags => "dependency.ServiceTags".to_owned(),
            Value::List(list) => format!("[]{}", list.elem.name()),
            Value::Map(map) => format!("map[{}]{}", map.keys.name(), map.elem.name()),
            Value::Struct(value) => Kind::Struct(value.kind).name(),
            Value::Counter(..) => "<-chan int64".to_owned(),
            Value::Scratch(_) => "*template.Scratch".to_owned(),
        }
    }

    /// As a whole number, if it is one that fits.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            Value::Uint(number) => i64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// As a key of a map, if it can be one.
    pub fn as_key(&self) -> Option<Key> {
        Some(match self {
            Value::Nil => Key::Nil,
            Value::Bool(value) => Key::Bool(*value),
            Value::Int(_) | Value::Uint(_) => Key::Int(self.as_int()?),
            Value::Float(number) => Key::Float(ordered_bits(*number)),
            Value::Text(text) => Key::Text(text.clone()),
            _ => return None,
        })
    }
}

impl Kind {
    /// The value of a type that nobody has set.
    pub fn zero(&self) -> Value {
        match self {
            Kind::Any | Kind::Struct(_) => Value::Nil,
            Kind::Bool => Value::Bool(false),
            Kind::Int => Value::Int(0),
            Kind::Uint => Value::Uint(0),
            Kind::Float => Value::Float(0.0),
            Kind::Text => Value::text(""),
            Kind::Tags => Value::list_of(Kind::Tags, Vec::new()),
            Kind::List(elem) => Value::list_of(**elem, Vec::new()),
            Kind::Map(elem) => Value::map_of(**elem, Keys::Text, BTreeMap::new()),
        }
    }

    /// Go's name of it.
    pub fn name(&self) -> String {
        match self {
            Kind::Any => "interface {}".to_owned(),
            Kind::Bool => "bool".to_owned(),
            Kind::Int => "int".to_owned(),
            Kind::Uint => "uint64".to_owned(),
            Kind::Float => "float64".to_owned(),
            Kind::Text => "string".to_owned(),
            Kind::Tags => "dependency.ServiceTags".to_owned(),
            Kind::List(elem) => format!("[]{}", elem.name()),
            Kind::Map(elem) => format!("map[string]{}", elem.name()),
            Kind::Struct(kind) => format!("{}{}", if kind.is_pointer { "*" } else { "" }, kind.name),
        }
    }
}

impl Keys {
    fn name(self) -> &'static str {
        match self {
            Keys::Text => "string",
            Keys::Int => "int",
            Keys::Any => "interface {}",
        }
    }
}

impl Key {
    /// The key as a value.
    pub fn value(&self) -> Value {
        match self {
            Key::Nil => Value::Nil,
            Key::Bool(value) => Value::Bool(*value),
            Key::Int(number) => Value::Int(*number),
            Key::Float(bits) => Value::Float(number_of(*bits)),
            Key::Text(text) => Value::Text(text.clone()),
        }
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Key {
        Key::Text(text.into())
    }
}

impl Struct {
    /// A field by its name.
    pub fn field(&self, name: &str) -> Option<&Value> {
        let at = self.kind.fields.iter().position(|(field, _)| *field == name)?;
        self.fields.get(at)
    }

    /// The text of a field; empty when it has none.
    pub fn text(&self, name: &str) -> Text {
        match self.field(name) {
            Some(Value::Text(text)) => text.clone(),
            _ => Text::from(""),
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        if self.items.iter().any(Value::is_group) {
            unravel(std::mem::take(&mut self.items));
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let items = self.items.get_mut();
        if items.values().any(Value::is_group) {
            unravel(std::mem::take(items).into_values().collect());
        }
    }
}

/// Drops values that hold others, one after the other: a template may nest them deeper than the stack is.
fn unravel(mut all: Vec<Value>) {
    while let Some(value) = all.pop() {
        match value {
            Value::List(list) => {
                if let Some(mut list) = Rc::into_inner(list) {
                    all.append(&mut list.items);
                }
            }
            Value::Map(map) => {
                if let Some(map) = Rc::into_inner(map) {
                    all.extend(map.items.take().into_values());
                }
            }
            _ => {}
        }
    }
}

/// Bits that order as the numbers do.
fn ordered_bits(number: f64) -> u64 {
    let bits = number.to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

/// The number of such bits.
fn number_of(bits: u64) -> f64 {
    f64::from_bits(if bits >> 63 == 1 { bits & !(1 << 63) } else { !bits })
}
