//! Functions about what agents know: services, nodes, keys.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Call, Function, Outcome, Param, fixed, open};
use crate::template::dependency::{self, Dependency};
use crate::template::value::{ENTRY_BYTES, Key, Keys, Kind, Struct, Text, Value};

/// All of them.
pub const ALL: &[Function] = &[
    open("datacenters", &[], Param::Bool, datacenters),
    fixed("file", &[Param::Text], file),
    fixed("key", &[Param::Text], key),
    fixed("keyExists", &[Param::Text], key_exists),
    fixed("keyOrDefault", &[Param::Text, Param::Text], key_or_default),
    fixed("ls", &[Param::Text], |call| keys(call, is_top, true)),
    fixed("safeLs", &[Param::Text], |call| keys(call, is_top, false)),
    fixed("tree", &[Param::Text], |call| keys(call, is_leaf, true)),
    fixed("safeTree", &[Param::Text], |call| keys(call, is_leaf, false)),
    open("node", &[], Param::Text, node),
    open("nodes", &[], Param::Text, nodes),
    open("service", &[], Param::Text, |call| service(call, false)),
    open("connect", &[], Param::Text, |call| service(call, true)),
    open("services", &[], Param::Text, services),
    open("caRoots", &[], Param::Any, |_| Err(no_mesh())),
    open("caLeaf", &[], Param::Any, |_| Err(no_mesh())),
    open("secret", &[], Param::Any, |_| Err(no_vault())),
    open("secrets", &[], Param::Any, |_| Err(no_vault())),
    open("pkiCert", &[], Param::Any, |_| Err(no_vault())),
    open("partitions", &[], Param::Any, |_| Err(no_enterprise())),
    open("peerings", &[], Param::Any, |_| Err(no_enterprise())),
    open("exportedServices", &[], Param::Any, |_| Err(no_enterprise())),
    open("importedServices", &[], Param::Any, |_| Err(no_enterprise())),
    open("nomadService", &[], Param::Any, |_| Err(no_nomad())),
    open("nomadServices", &[], Param::Any, |_| Err(no_nomad())),
    open("nomadVar", &[], Param::Any, |_| Err(no_nomad())),
    open("nomadVarExists", &[], Param::Any, |_| Err(no_nomad())),
    open("nomadVarList", &[], Param::Any, |_| Err(no_nomad())),
    open("nomadVarListSafe", &[], Param::Any, |_| Err(no_nomad())),
    fixed("byKey", &[Param::Any], by_key),
    fixed("byMeta", &[Param::Text, Param::Any], by_meta),
    fixed("byPort", &[Param::Any], by_port),
    fixed("byTag", &[Param::Any], by_tag),
    fixed("explode", &[Param::Any], explode),
    fixed("explodeMap", &[Param::Map], explode_map),
];

/// The methods of an instance's checks.
pub const CHECKS: &[Function] = &[fixed("AggregatedStatus", &[], |call| {
    let texts: Vec<(Text, Text)> =
        records(&call.args[0]).map(|check| (check.text("CheckID"), check.text("Status"))).collect();
    let texts: Vec<_> = texts.iter().map(|(id, status)| (id.lossy(), status.lossy())).collect();
    Ok(Value::text(dependency::worst(texts.iter().map(|(id, status)| (id.as_ref(), status.as_ref())))))
})];

fn no_vault() -> String {
    "Vault is not supported: put the secret into a file and read it with `file`".to_owned()
}

fn no_mesh() -> String {
    "there is no certificate authority of a service mesh".to_owned()
}

fn no_enterprise() -> String {
    "there are no partitions and no peerings".to_owned()
}

fn no_nomad() -> String {
    "Nomad is not supported".to_owned()
}

fn datacenters(call: &mut Call<'_, '_, '_>) -> Outcome {
    if call.args.len() > 1 {
        let count = call.args.len();
        return Err(format!("datacenters: wrong number of arguments, expected 0 or 1, but got {count}"));
    }
    let known = call.run.depend(Dependency::Datacenters { ignore_failing: call.is(0) });
    Ok(known.unwrap_or_else(|| Value::list_of(Kind::Text, Vec::new())))
}

fn file(call: &mut Call<'_, '_, '_>) -> Outcome {
    let path = call.str(0);
    if path.trim().is_empty() {
        return Ok(Value::text(""));
    }
    let path = call.run.host.file_path(path.trim())?;
    Ok(text_or_empty(call.run.depend(Dependency::File(path))))
}

fn text_or_empty(value: Option<Value>) -> Value {
    match value {
        Some(value @ Value::Text(_)) => value,
        _ => Value::text(""),
    }
}

/// A key that must be there: the template waits until it is.
fn key(call: &mut Call<'_, '_, '_>) -> Outcome {
    let path = call.str(0);
    if path.is_empty() {
        return Ok(Value::text(""));
    }
    let dependency = Dependency::key(&path)?;
    let known = call.run.depend(dependency.clone());
    if matches!(known, Some(Value::Nil)) {
        call.run.missing.insert(dependency);
    }
    Ok(text_or_empty(known))
}

fn key_exists(call: &mut Call<'_, '_, '_>) -> Outcome {
    let path = call.str(0);
    if path.is_empty() {
        return Ok(Value::Bool(false));
    }
    let known = call.run.depend(Dependency::key(&path)?);
    Ok(Value::Bool(matches!(known, Some(Value::Text(_)))))
}

fn key_or_default(call: &mut Call<'_, '_, '_>) -> Outcome {
    let path = call.str(0);
    let known = if path.is_empty() { None } else { call.run.depend(Dependency::key(&path)?) };
    Ok(match known {
        Some(Value::Text(text)) if !text.is_empty() => Value::Text(text),
        _ => Value::Text(call.text(1)),
    })
}

/// Keys of the first level that have a name.
fn is_top(key: &[u8]) -> bool {
    !key.is_empty() && !key.contains(&b'/')
}

/// Keys that are no folders.
fn is_leaf(key: &[u8]) -> bool {
    !key.is_empty() && !key.ends_with(b"/")
}

fn keys(call: &mut Call<'_, '_, '_>, keeps: fn(&[u8]) -> bool, empty_is_fine: bool) -> Outcome {
    let prefix = call.str(0);
    if prefix.is_empty() {
        return Ok(Value::list_of(dependency::pair_kind(), Vec::new()));
    }
    let dependency = Dependency::keys(&prefix)?;
    let known = call.run.depend(dependency.clone()).unwrap_or_default();
    let kept: Vec<Value> = records(&known)
        .filter(|pair| keeps(pair.text("Key").as_bytes()))
        .map(|pair| Value::Struct(Rc::clone(pair)))
        .collect();
    if kept.is_empty() && !empty_is_fine {
        call.run.missing.insert(dependency);
    }
    Ok(Value::list_of(dependency::pair_kind(), kept))
}

/// All arguments behind each other.
fn joined(call: &Call<'_, '_, '_>, between: &str) -> String {
    (0..call.args.len()).map(|at| call.str(at)).collect::<Vec<_>>().join(between)
}

fn node(call: &mut Call<'_, '_, '_>) -> Outcome {
    let dependency = Dependency::node(&joined(call, ""))?;
    Ok(call.run.depend(dependency).unwrap_or_default())
}

fn nodes(call: &mut Call<'_, '_, '_>) -> Outcome {
    let dependency = Dependency::nodes(&joined(call, ""))?;
    Ok(call.run.depend(dependency).unwrap_or_else(|| Value::list(Vec::new())))
}

fn services(call: &mut Call<'_, '_, '_>) -> Outcome {
    let dependency = Dependency::services(&joined(call, ""))?;
    Ok(call.run.depend(dependency).unwrap_or_else(|| Value::list(Vec::new())))
}

fn service(call: &mut Call<'_, '_, '_>, connect: bool) -> Outcome {
    if call.str(0).is_empty() {
        return Ok(Value::list(Vec::new()));
    }
    let dependency = Dependency::service(&joined(call, "|"), connect)?;
    Ok(call.run.depend(dependency).unwrap_or_else(|| Value::list(Vec::new())))
}

/// The records of a list.
fn records(value: &Value) -> impl Iterator<Item = &Rc<Struct>> {
    let items = match value {
        Value::List(list) => list.items.as_slice(),
        _ => &[],
    };
    items.iter().filter_map(|item| match item {
        Value::Struct(record) => Some(record),
        _ => None,
    })
}

/// Refuses anything but a list of records that have a field.
fn records_with<'v>(
    name: &str,
    field: &str,
    value: &'v Value,
) -> Result<impl Iterator<Item = &'v Rc<Struct>>, String> {
    let fits = match value {
        Value::Nil => true,
        Value::List(list) => {
            list.items.iter().all(|item| matches!(item, Value::Struct(r) if r.field(field).is_some()))
        }
        _ => false,
    };
    if fits { Ok(records(value)) } else { Err(format!("{name}: wrong argument type {}", value.type_name())) }
}

/// Records under keys, in the order in which they came.
fn grouped(groups: BTreeMap<Key, Vec<Value>>, keys: Keys) -> Value {
    let groups = groups.into_iter().map(|(key, all)| (key, Value::list(all))).collect();
    Value::map_of(Kind::List(&Kind::Any), keys, groups)
}

fn by_key(call: &mut Call<'_, '_, '_>) -> Outcome {
    let mut groups: BTreeMap<Key, BTreeMap<Key, Value>> = BTreeMap::new();
    for pair in records_with("byKey", "Key", &call.args[0])? {
        let path = pair.text("Key").lossy().into_owned();
        let Some((top, key)) = path.split_once('/').filter(|(_, key)| !key.is_empty()) else { continue };
        groups.entry(top.into()).or_default().insert(key.into(), dependency::renamed_pair(pair, key));
    }
    let groups = groups
        .into_iter()
        .map(|(top, pairs)| (top, Value::map_of(dependency::pair_kind(), Keys::Text, pairs)))
        .collect();
    Ok(Value::map_of(Kind::Map(&Kind::Any), Keys::Text, groups))
}

fn by_tag(call: &mut Call<'_, '_, '_>) -> Outcome {
    let mut groups: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
    for record in records_with("byTag", "Tags", &call.args[0])? {
        let Some(Value::List(tags)) = record.field("Tags") else { continue };
        for tag in tags.items.iter().filter_map(Value::as_key) {
            groups.entry(tag).or_default().push(Value::Struct(Rc::clone(record)));
        }
    }
    Ok(grouped(groups, Keys::Text))
}

fn by_port(call: &mut Call<'_, '_, '_>) -> Outcome {
    let mut groups: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
    for record in records_with("byPort", "Port", &call.args[0])? {
        let port = record.field("Port").and_then(Value::as_int).unwrap_or(0);
        groups.entry(Key::Int(port)).or_default().push(Value::Struct(Rc::clone(record)));
    }
    Ok(grouped(groups, Keys::Int))
}

/// Instances by what stands in their meta data; `|int` behind a name pads a number so that it sorts.
fn by_meta(call: &mut Call<'_, '_, '_>) -> Outcome {
    let names = call.str(0);
    let count = 1 + names.matches(',').count();
    call.fits(count.saturating_mul(ENTRY_BYTES))?;
    let mut groups: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
    for record in records_with("byMeta", "ServiceMeta", &call.args[1])? {
        call.run.step(count)?;
        let mut parts = Vec::new();
        for name in names.split(',') {
            let (name, is_int) = name.strip_suffix("|int").map_or((name, false), |name| (name, true));
            let value = match record.field("ServiceMeta") {
                Some(Value::Map(meta)) => meta.items.borrow().get(&name.into()).cloned(),
                _ => None,
            };
            let value = match value {
                Some(Value::Text(text)) if !text.is_empty() => text.lossy().into_owned(),
                _ if is_int => "0".to_owned(),
                _ => format!("_no_{name}_"),
            };
            let value = if is_int {
                let number: i64 = value.parse().map_err(|_| format!("cannot parse {value} as number"))?;
                format!("{number:05}")
            } else {
                value
            };
            parts.push(value.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-', "_"));
        }
        let key = parts.join("_");
        groups.entry(key.as_str().into()).or_default().push(Value::Struct(Rc::clone(record)));
    }
    Ok(grouped(groups, Keys::Text))
}

/// A tree of what is written with slashes.
#[derive(Default)]
struct Tree(BTreeMap<Key, Branch>);

enum Branch {
    Tree(Tree),
    Leaf(Value),
}

impl Tree {
    fn put(&mut self, path: &str, value: Value) -> Result<(), String> {
        let mut tree = self;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                if !part.is_empty() {
                    tree.0.insert(part.into(), Branch::Leaf(value));
                }
                return Ok(());
            }
            let branch = tree.0.entry(part.into()).or_insert_with(|| Branch::Tree(Tree::default()));
            match branch {
                Branch::Tree(inner) => tree = inner,
                Branch::Leaf(_) => {
                    return Err(format!("not a map: {path:?}: {part:?} already has a value"));
                }
            }
        }
        Ok(())
    }

    fn value(self) -> Value {
        let entries = self.0.into_iter().map(|(key, branch)| match branch {
            Branch::Tree(tree) => (key, tree.value()),
            Branch::Leaf(value) => (key, value),
        });
        Value::map(entries.collect())
    }
}

/// Levels of folders in one path.
const LEVELS_MAX: usize = 100;

fn put(tree: &mut Tree, path: &str, value: Value) -> Result<(), String> {
    if path.matches('/').count() > LEVELS_MAX {
        return Err(format!("{path:?} has more than {LEVELS_MAX} levels"));
    }
    tree.put(path, value)
}

fn explode(call: &mut Call<'_, '_, '_>) -> Outcome {
    let mut tree = Tree::default();
    for pair in records_with("explode", "Key", &call.args[0])? {
        put(&mut tree, &pair.text("Key").lossy(), Value::Text(pair.text("Value")))
            .map_err(|why| format!("explode: {why}"))?;
    }
    Ok(tree.value())
}

fn explode_map(call: &mut Call<'_, '_, '_>) -> Outcome {
    let mut tree = Tree::default();
    for (key, value) in call.map(0)?.items.borrow().iter() {
        if let Key::Text(key) = key {
            put(&mut tree, &key.lossy(), value.clone()).map_err(|why| format!("explodeMap: {why}"))?;
        }
    }
    Ok(tree.value())
}
