//! Parts of a URL, as Go's `net/url` takes it apart and puts it together.

use std::collections::BTreeMap;

use super::{Call, Outcome};
use crate::template::quote;
use crate::template::value::{Key, Value};

/// Where in a URL a text stands: each place has characters of its own that are escaped.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    User,
    Host,
    Path,
    Fragment,
}

/// The parts of a URL by their names.
pub fn parse(call: &mut Call<'_, '_, '_>) -> Outcome {
    let text = call.str(0);
    let parts = parts(&text).map_err(|why| {
        let shown = quote::double(text.split('#').next().unwrap_or_default().as_bytes(), false);
        format!("unable to parse url: parse {shown}: {why}")
    })?;
    let parts = parts.into_iter().map(|(name, part)| (Key::from(name), Value::text(part)));
    Ok(Value::map(parts.collect()))
}

type Parts = BTreeMap<&'static str, String>;

fn parts(text: &str) -> Result<Parts, String> {
    let names = ["scheme", "host", "hostname", "path", "query", "opaque", "fragment", "userinfo"];
    let mut out: Parts = names.into_iter().map(|name| (name, String::new())).collect();
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    out.insert("fragment", unescaped(fragment, Place::Fragment)?);
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    let (scheme, rest) = scheme_of(text)?;
    out.insert("scheme", scheme.to_ascii_lowercase());
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    out.insert("query", query.to_owned());
    if !rest.starts_with('/') && !scheme.is_empty() {
        out.insert("opaque", rest.to_owned());
        return Ok(out);
    }
    if !rest.starts_with('/') && rest.split('/').next().is_some_and(|first| first.contains(':')) {
        return Err("first path segment in URL cannot contain colon".to_owned());
    }
    let mut path = rest;
    if let Some(authority) = rest.strip_prefix("//")
        && (!scheme.is_empty() || !rest.starts_with("///"))
    {
        let end = authority.find('/').unwrap_or(authority.len());
        path = &authority[end..];
        let (user, host) =
            authority[..end].rsplit_once('@').map_or((None, &authority[..end]), |(u, h)| (Some(u), h));
        let host = host_of(host)?;
        out.insert("hostname", without_port(&host).to_owned());
        out.insert("host", host);
        out.insert("userinfo", user.map(user_of).transpose()?.unwrap_or_default());
    }
    out.insert("path", unescaped(path, Place::Path)?);
    Ok(out)
}

/// The scheme, if there is one, and what is behind it.
fn scheme_of(text: &str) -> Result<(&str, &str), String> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            b':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn host_of(host: &str) -> Result<String, String> {
    let port = match host.strip_prefix('[') {
        Some(_) => host.rfind(']').map(|at| &host[at + 1..]).ok_or("missing ']' in host")?,
        None => host.rfind(':').map_or("", |at| &host[at..]),
    };
    let is_port = |port: &str| {
        port.strip_prefix(':').map_or(port.is_empty(), |digits| digits.bytes().all(|b| b.is_ascii_digit()))
    };
    if !is_port(port) {
        return Err(format!("invalid port {} after host", quote::double(port.as_bytes(), false)));
    }
    unescaped(host, Place::Host)
}

/// A host without brackets and port.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((inner, _)) => inner,
        None => host.rsplit_once(':').map_or(host, |(host, _)| host),
    }
}

/// Name and password as they are written again.
fn user_of(user: &str) -> Result<String, String> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
    if !user.bytes().all(is_fine) {
        return Err("net/url: invalid userinfo".to_owned());
    }
    let plain = |text: &str| Ok::<_, String>(escaped(&unescaped(text, Place::User)?, Place::User));
    match user.split_once(':') {
        Some((name, password)) => Ok(format!("{}:{}", plain(name)?, plain(password)?)),
        None => plain(user),
    }
}

/// A URL of its parts.
pub fn join(call: &mut Call<'_, '_, '_>) -> Outcome {
    let map = call.map(0)?.items.borrow();
    let part = |name: &str| match map.get(&Key::from(name)) {
        None => Ok(String::new()),
        Some(Value::Text(text)) => Ok(text.lossy().into_owned()),
        Some(other) => Err(format!(
            "unable to parse {name} key, must be of type string, but {} found",
            other.type_name()
        )),
    };
    let (scheme, host, path) = (part("scheme")?, part("host")?, part("path")?);
    let (query, opaque, fragment) = (part("query")?, part("opaque")?, part("fragment")?);
    // With one of these the name would not end before the host.
    let user = Some(part("userinfo")?).filter(|user| !user.contains(['/', '?', '#'])).unwrap_or_default();
    let user = user_of(&user).map_err(|why| format!("unable to parse userinfo in dict: {why}"))?;
    let mut out = if scheme.is_empty() { String::new() } else { format!("{scheme}:") };
    if opaque.is_empty() {
        if (!scheme.is_empty() || !host.is_empty() || !user.is_empty())
            && (!host.is_empty() || !path.is_empty() || !user.is_empty())
        {
            out += "//";
        }
        if !user.is_empty() {
            out += &format!("{user}@");
        }
        out += &escaped(&host, Place::Host);
        if !path.is_empty() && !path.starts_with('/') && !host.is_empty() {
            out.push('/');
        }
        // Else it would be read as a scheme.
        if out.is_empty() && path.split('/').next().is_some_and(|first| first.contains(':')) {
            out += "./";
        }
        out += &if path == "*" { path } else { escaped(&path, Place::Path) };
    } else {
        out += &opaque;
    }
    if !query.is_empty() {
        out += &format!("?{query}");
    }
    if !fragment.is_empty() {
        out += &format!("#{}", escaped(&fragment, Place::Fragment));
    }
    Ok(Value::text(out))
}

fn must_escape(byte: u8, place: Place) -> bool {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => false,
        _ if place == Place::Host => !b"!$&'()*+,;=:[]<>\"".contains(&byte),
        b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'?' | b'@' => match place {
            Place::User => b"@/?:".contains(&byte),
            Place::Path => byte == b'?',
            Place::Host | Place::Fragment => false,
        },
        _ => !(place == Place::Fragment && b"!()*".contains(&byte)),
    }
}

fn escaped(text: &str, place: Place) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if must_escape(byte, place) {
            out += &format!("%{byte:02X}");
        } else {
            out.push(char::from(byte));
        }
    }
    out
}

fn unescaped(text: &str, place: Place) -> Result<String, String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if *byte == b'%' {
            let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
            let number = digit(at + 1).zip(digit(at + 2)).map(|(high, low)| (high * 16 + low) as u8);
            // In a host only what is not ASCII is escaped.
            let number = number.filter(|n| place != Place::Host || !n.is_ascii() || *n == b'%');
            let Some(number) = number else {
                let shown = &bytes[at..bytes.len().min(at + 3)];
                return Err(format!("invalid URL escape {}", quote::double(shown, false)));
            };
            out.push(number);
            at += 3;
            continue;
        }
        if place == Place::Host && byte.is_ascii() && must_escape(*byte, place) {
            let shown = quote::double(&[*byte], false);
            return Err(format!("invalid character {shown} in host name"));
        }
        out.push(*byte);
        at += 1;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}
