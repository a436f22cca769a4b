//! Domain names in wire form.

use std::fmt;

use super::question::{LABEL_LEN_MAX, NAME_LEN_MAX};

/// A domain name as it goes on the wire: labels with length octets, ended by the root label. Letter case is
/// kept; comparisons ignore it.
#[derive(Clone)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Reads dotted text, with or without the final dot. `None` when a label is empty or too long, or the
    /// whole is: such a name cannot be told to a client, so what it belongs to is left out of answers.
    pub fn parse(text: &str) -> Option<Name> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 2);
        if !text.is_empty() {
            for label in text.split('.') {
                if label.is_empty() || label.len() > LABEL_LEN_MAX {
                    return None;
                }
                wire.push(label.len() as u8);
                wire.extend_from_slice(label.as_bytes());
            }
        }
        wire.push(0);
        (wire.len() <= NAME_LEN_MAX).then(|| Name(wire.into()))
    }

    /// Takes wire form that was checked before (a parsed question, a reply's name).
    ///
    /// # Panics
    /// When `wire` is no name: that is a bug of the caller.
    pub fn from_wire(wire: &[u8]) -> Name {
        assert!(wire.len() <= NAME_LEN_MAX && wire.last() == Some(&0), "not a name in wire form");
        Name(wire.into())
    }

    /// The wire form.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels, without the root.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        labels(&self.0)
    }

    /// Whether this name lies below `domain` or is it.
    pub fn is_within(&self, domain: &Name) -> bool {
        split_suffix(&self.0, domain).is_some()
    }
}

/// The labels of a name in wire form, without the root.
pub fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let (&len, after) = rest.split_first()?;
        if len == 0 || after.len() < len as usize {
            return None;
        }
        let (label, after) = after.split_at(len as usize);
        rest = after;
        Some(label)
    })
}

/// Where `domain` starts in the name `wire` that ends with it, on a label's border; `None` when it does not.
pub fn split_suffix(wire: &[u8], domain: &Name) -> Option<usize> {
    let border = wire.len().checked_sub(domain.0.len())?;
    if !wire[border..].eq_ignore_ascii_case(&domain.0) {
        return None;
    }
    let mut at = 0;
    while at < border {
        at += 1 + wire[at] as usize;
    }
    (at == border).then_some(border)
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Name) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Name) -> std::cmp::Ordering {
        self.0.to_ascii_lowercase().cmp(&other.0.to_ascii_lowercase())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in self.labels() {
            write!(f, "{}.", label_text(label))?;
        }
        if self.0.len() == 1 { f.write_str(".") } else { Ok(()) }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A label as zone-file text: special characters behind a backslash, octets outside printable ASCII as `\DDD`.
/// Lookups compare this text, so a label with a dot or a blank in it never meets a catalog name, as in Consul.
pub fn label_text(label: &[u8]) -> String {
    let mut text = String::with_capacity(label.len());
    for &octet in label {
        match octet {
            b'.' | b' ' | b'\'' | b'@' | b';' | b'(' | b')' | b'"' | b'\\' => {
                text.push('\\');
                text.push(octet as char);
            }
            b'!'..=b'~' => text.push(octet as char),
            _ => text.push_str(&format!("\\{octet:03}")),
        }
    }
    text
}
