//! The `watches` of the configuration. Texts of mistakes are those of Consul's agent.

use std::ffi::OsString;

use serde_json::{Map, Value};

use super::plan::{HttpHandler, Plan, unreadable};
use crate::config::Config;

/// A watch of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// The block as it was written: two that are the same are the same watch.
    pub block: Value,
    /// What is watched.
    pub plan: Plan,
    /// Who is told.
    pub handler: Handler,
}

/// Who is told of a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Handler {
    /// A program with its arguments.
    Program(Vec<String>),
    /// A text for the shell.
    Shell(String),
    /// A URL.
    Http(HttpHandler),
}

impl Handler {
    /// What the log calls it.
    pub fn shown(&self) -> String {
        match self {
            Handler::Program(args) => format!("[{}]", args.join(" ")),
            Handler::Shell(text) => text.clone(),
            Handler::Http(http) => http.path.clone(),
        }
    }

    /// The program that it is run by, unless it is told over HTTP.
    pub fn argv(&self) -> Option<Vec<OsString>> {
        match self {
            Handler::Program(args) => Some(args.iter().map(OsString::from).collect()),
            Handler::Shell(text) => {
                let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
                Some(vec![shell.unwrap_or_else(|| "/bin/sh".into()), "-c".into(), text.into()])
            }
            Handler::Http(_) => None,
        }
    }
}

/// The watches of a configuration.
///
/// # Errors
/// Consul's text for the first one that is wrong.
pub fn watches(config: &Config) -> Result<Vec<Watch>, String> {
    let has_http = !config.listen.http.is_empty() || !config.listen.https.is_empty();
    if !config.watches.is_empty() && !has_http {
        return Err("watch plans require an HTTP or HTTPS endpoint".to_owned());
    }
    config.watches.iter().map(watch).collect()
}

fn watch(block: &Value) -> Result<Watch, String> {
    let mut params: Map<String, Value> = block.as_object().cloned().unwrap_or_default();
    params.values_mut().for_each(unwrap_lists_of_one);
    match params.get("handler_type") {
        None => {
            params.insert("handler_type".to_owned(), "script".into());
        }
        Some(Value::String(kind)) if kind == "http" || kind == "script" => {}
        Some(other) => {
            let shown = other.as_str().map_or_else(|| other.to_string(), str::to_owned);
            return Err(format!("Handler type '{shown}' not recognized"));
        }
    }
    if let Some(kind) = params.get("type").and_then(Value::as_str).filter(|kind| kind.starts_with("connect_"))
    {
        return Err(format!("Watch type {kind} is not allowed in agent config"));
    }
    let plan = Plan::parse(&mut params, &["handler", "args"]).map_err(|why| unreadable(&params, &why))?;
    let handler = handler(&plan)?;
    Ok(Watch { block: block.clone(), plan, handler })
}

/// A list of one is what it holds: HCL writes blocks so, and Consul's reader does this to all lists.
fn unwrap_lists_of_one(value: &mut Value) {
    match value {
        Value::Array(items) if items.len() == 1 => {
            *value = items.remove(0);
            unwrap_lists_of_one(value);
        }
        Value::Array(items) => items.iter_mut().for_each(unwrap_lists_of_one),
        Value::Object(map) => map.values_mut().for_each(unwrap_lists_of_one),
        _ => {}
    }
}

fn handler(plan: &Plan) -> Result<Handler, String> {
    let (shell, args) = (plan.exempt.get("handler"), plan.exempt.get("args"));
    let shell = match shell {
        None => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => return Err("Watch handler must be a string".to_owned()),
    };
    let args = match args {
        None => None,
        Some(Value::String(program)) => Some(vec![program.clone()]),
        Some(Value::Array(items)) => {
            let texts: Option<Vec<String>> =
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            Some(texts.ok_or("Watch args must be a list of strings")?)
        }
        Some(_) => return Err("Watch args must be a list of strings".to_owned()),
    };
    match (shell, args, &plan.http) {
        (Some(text), None, None) => Ok(Handler::Shell(text)),
        // As in Consul, which takes an empty list for a shell without a text.
        (None, Some(args), None) if args.is_empty() => Ok(Handler::Shell(String::new())),
        (None, Some(args), None) => Ok(Handler::Program(args)),
        (None, None, Some(http)) => Ok(Handler::Http(http.clone())),
        (None, None, None) => Err("Must define a watch handler".to_owned()),
        _ => Err("Only one watch handler allowed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn handlers_are_programs_shells_and_urls() {
        let handler = |block: Value| watch(&block).expect("valid").handler;
        assert_eq!(handler(json!({"type": "nodes", "handler": "a b"})), Handler::Shell("a b".into()));
        let program = Handler::Program(vec!["a".into(), "b".into()]);
        assert_eq!(handler(json!({"type": "nodes", "handler_type": "script", "args": ["a", "b"]})), program);
        let http =
            json!({"type": "nodes", "handler_type": "http", "http_handler_config": {"path": "http://h/"}});
        assert!(matches!(handler(http), Handler::Http(_)));
    }

    #[test]
    fn mistakes_are_those_of_consuls_agent() {
        for (block, text) in [
            (json!({"type": "nodes"}), "Must define a watch handler"),
            (json!({"type": "nodes", "handler": "a", "args": ["b"]}), "Only one watch handler allowed"),
            (json!({"type": "nodes", "handler": 1}), "Watch handler must be a string"),
            (json!({"type": "nodes", "args": {"a": 1}}), "Watch args must be a list of strings"),
            (json!({"type": "nodes", "args": [1]}), "Watch args must be a list of strings"),
            (json!({"type": "nodes", "handler_type": "mail"}), "Handler type 'mail' not recognized"),
            (
                json!({"type": "connect_roots", "handler": "a"}),
                "Watch type connect_roots is not allowed in agent config",
            ),
            (
                json!({"type": "key", "args": ["a"]}),
                "Failed to parse watch (map[string]interface {}{\"args\":\"a\"}): \
                 Must specify a single key to watch",
            ),
        ] {
            assert_eq!(watch(&block).expect_err("a mistake"), text, "{block}");
        }
    }
}
