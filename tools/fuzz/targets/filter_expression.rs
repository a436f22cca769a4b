//! Any text as a filter expression, compiled for each kind of row and run on one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::edge::http::filter::{Filter, schema};
use muster::store::model::{Node, Service};

fuzz_target!(|text: &str| {
    if let Ok(Some(filter)) = Filter::compile(text, schema::NODE) {
        let node = Node { node: "n".into(), address: "10.0.0.1".into(), ..Node::default() };
        assert_eq!(filter.matches(&node), filter.matches(&node));
        negated(text, &node);
    }
    if let Ok(Some(filter)) = Filter::compile(text, schema::NODE_SERVICE) {
        filter.matches(&Service { name: "web".into(), tags: vec!["a".into()], ..Service::default() });
    }
    let _ = Filter::compile(text, schema::CATALOG_SERVICE);
});

/// `not (expression)` chooses what the expression does not.
fn negated(text: &str, node: &Node) {
    let plain = Filter::compile(text, schema::NODE).expect("it compiled").expect("it is not empty");
    if let Ok(Some(opposite)) = Filter::compile(&format!("not ({text})"), schema::NODE) {
        assert_ne!(plain.matches(node), opposite.matches(node));
    }
}
