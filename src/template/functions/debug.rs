//! Functions that show a value with its types, for whoever writes a template.

use super::{Call, Function, Param, open};
use crate::template::format;
use crate::template::quote;
use crate::template::sink::Sink;
use crate::template::value::{Kind, Value};

/// All of them.
pub const ALL: &[Function] = &[
    open("spew_dump", &[], Param::Any, |call| {
        let text = dumped(call)?;
        call.run.host.show(&text);
        Ok(Value::text(""))
    }),
    open("spew_sdump", &[], Param::Any, |call| dumped(call).map(Value::text)),
    open("spew_printf", &[Param::Text], Param::Any, |call| {
        let text = printed(call)?;
        call.run.host.show(&text);
        Ok(Value::text(""))
    }),
    open("spew_sprintf", &[Param::Text], Param::Any, |call| printed(call).map(Value::text)),
];

/// Deepest nesting that is shown.
const NESTING_MAX: usize = 100;

fn printed(call: &Call<'_, '_, '_>) -> Result<String, String> {
    let mut out = call.run.sink();
    format::sprintf(&mut out, call.text(0).as_bytes(), &call.args[1..]);
    out.finish().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn dumped(call: &Call<'_, '_, '_>) -> Result<String, String> {
    let mut out = call.run.sink();
    for value in call.args {
        dump(&mut out, value, 0);
        out.push(b"\n");
    }
    out.finish().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn dump(out: &mut Sink, value: &Value, depth: usize) {
    if out.is_full() || depth > NESTING_MAX {
        return;
    }
    let name = value.type_name();
    let line = |out: &mut Sink, i: usize, depth: usize| {
        out.text(if i > 0 { ",\n" } else { "\n" });
        out.repeat(b' ', depth);
    };
    match value {
        Value::Nil => out.text("(interface {}) <nil>"),
        Value::Text(text) => {
            let quoted = quote::double(text.as_bytes(), false);
            out.text(&format!("({name}) (len={}) {quoted}", text.len()));
        }
        Value::List(list) => {
            let length = list.items.len();
            out.text(&format!("({name}) (len={length} cap={length}) {{"));
            for (i, item) in list.items.iter().enumerate() {
                line(out, i, depth + 1);
                dump(out, item, depth + 1);
            }
            line(out, 0, depth);
            out.push(b"}");
        }
        Value::Map(map) => {
            let items = map.items.borrow();
            out.text(&format!("({name}) (len={}) {{", items.len()));
            for (i, (key, item)) in items.iter().enumerate() {
                line(out, i, depth + 1);
                dump(out, &key.value(), depth + 1);
                out.text(": ");
                dump(out, item, depth + 1);
            }
            line(out, 0, depth);
            out.push(b"}");
        }
        Value::Struct(record) => {
            out.text(&format!("({}) {{", Kind::Struct(record.kind).name()));
            for (i, ((name, _), field)) in record.kind.fields.iter().zip(&record.fields).enumerate() {
                line(out, i, depth + 1);
                out.text(&format!("{name}: "));
                dump(out, field, depth + 1);
            }
            line(out, 0, depth);
            out.push(b"}");
        }
        other => {
            out.text(&format!("({name}) "));
            format::sprint(out, std::slice::from_ref(other), false);
        }
    }
}
