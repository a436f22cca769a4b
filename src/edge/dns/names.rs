//! What a question asks: the grammar of Consul's names, without looking anything up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use muster_protocol::dns::name::{label_text, labels, split_suffix};
use muster_protocol::dns::rtype;

use super::settings::DnsSettings;

/// Where a name belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Below one of our domains: the labels before it, lower case, as zone-file text.
    Ours(Vec<String>),
    /// Below `arpa`: the name of an address, when it is a whole one.
    Reverse(Option<IpAddr>),
    /// Elsewhere.
    Foreign,
}

/// What a name in our domain asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `NODE.node[.DC]`.
    Node {
        /// Node name, lower case; may hold dots.
        name: String,
        /// Datacenter, when told.
        datacenter: Option<String>,
    },
    /// `[TAG.]NAME.service[.DC]`, `_NAME._TAG[.service][.DC]`.
    Service {
        /// Service name, lower case.
        name: String,
        /// Tag, lower case; may hold dots.
        tag: Option<String>,
        /// Datacenter, when told.
        datacenter: Option<String>,
    },
    /// `NAME.query[.DC]`: a prepared query.
    Query {
        /// Its name or ID.
        name: String,
        /// Datacenter, when told.
        datacenter: Option<String>,
    },
    /// `NAME.connect`, `NAME.ingress`: the mesh, which this agent has no part in.
    Mesh,
    /// `HEX.addr`: an address spelled out.
    Address(IpAddr),
    /// `HEX.addr` with a number of digits that is no address': an empty answer, as Consul.
    NoAddress,
    /// Nothing we know.
    Invalid,
}

/// Finds the zone of a name in wire form.
pub fn zone_of(name: &[u8], settings: &DnsSettings) -> Zone {
    // The longer domain first: one may lie within the other.
    let alt = settings.alt_domain.as_ref();
    let mut domains: Vec<_> = std::iter::once(&settings.domain).chain(alt).collect();
    domains.sort_by_key(|domain| std::cmp::Reverse(domain.wire().len()));
    let is_arpa = labels(name).last().is_some_and(|label| label.eq_ignore_ascii_case(b"arpa"));
    for domain in domains {
        let is_root = domain.wire().len() == 1;
        if let (Some(border), false) = (split_suffix(name, domain), is_root && is_arpa) {
            let own = labels(&name[..border]);
            return Zone::Ours(own.map(|label| label_text(label).to_ascii_lowercase()).collect());
        }
    }
    if is_arpa { Zone::Reverse(reverse_address(name)) } else { Zone::Foreign }
}

/// Reads the labels before the domain.
pub fn asked(labels: &[String], qtype: u16) -> Asked {
    for (i, label) in labels.iter().enumerate().rev() {
        let (parts, suffixes) = (&labels[..i], &labels[i + 1..]);
        match label.as_str() {
            "service" => return asked_service(parts, suffixes),
            "node" => {
                return match (parts, datacenter(suffixes)) {
                    ([], _) | (_, Err(())) => Asked::Invalid,
                    (_, Ok(datacenter)) => Asked::Node { name: parts.join("."), datacenter },
                };
            }
            "query" => {
                return match (parts, datacenter(suffixes)) {
                    ([], _) | (_, Err(())) => Asked::Invalid,
                    (_, Ok(datacenter)) => Asked::Query { name: parts.join("."), datacenter },
                };
            }
            "connect" | "ingress" => {
                return if parts.is_empty() || datacenter(suffixes).is_err() {
                    Asked::Invalid
                } else {
                    Asked::Mesh
                };
            }
            "addr" => return asked_address(parts),
            // For SRV the label `service` may be left out.
            other if qtype == rtype::SRV && other.starts_with('_') => {
                return asked_service(&labels[..=i], suffixes);
            }
            _ => {}
        }
    }
    Asked::Invalid
}

fn asked_service(parts: &[String], suffixes: &[String]) -> Asked {
    let (Some((last, before)), Ok(datacenter)) = (parts.split_last(), datacenter(suffixes)) else {
        return Asked::Invalid;
    };
    if let ([first], Some(tag)) = (before, last.strip_prefix('_'))
        && let Some(name) = first.strip_prefix('_')
    {
        // RFC 2782: `_tcp` stands for no tag.
        let tag = (tag != "tcp" && !tag.is_empty()).then(|| tag.to_owned());
        return Asked::Service { name: name.to_owned(), tag, datacenter };
    }
    let tag = (!before.is_empty()).then(|| before.join("."));
    Asked::Service { name: last.clone(), tag, datacenter }
}

/// Nothing, `DC`, or (of later versions) `DC.dc`.
fn datacenter(suffixes: &[String]) -> Result<Option<String>, ()> {
    match suffixes {
        [] => Ok(None),
        [name] => Ok(Some(name.clone())),
        [name, kind] if kind == "dc" => Ok(Some(name.clone())),
        _ => Err(()),
    }
}

fn asked_address(parts: &[String]) -> Asked {
    let [digits] = parts else { return Asked::Invalid };
    let octets: Option<Vec<u8>> = (digits.len() % 2 == 0 && digits.is_ascii())
        .then(|| {
            (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(digits.get(i..i + 2)?, 16).ok()).collect()
        })
        .flatten();
    // A sign is no digit, though `from_str_radix` takes one.
    let octets = octets.filter(|_| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    match (digits.len() / 2, octets) {
        (4, Some(octets)) => {
            <[u8; 4]>::try_from(octets).map_or(Asked::Invalid, |ip| Asked::Address(Ipv4Addr::from(ip).into()))
        }
        (16, Some(octets)) => <[u8; 16]>::try_from(octets)
            .map_or(Asked::Invalid, |ip| Asked::Address(Ipv6Addr::from(ip).into())),
        (4 | 16, None) => Asked::Invalid,
        _ => Asked::NoAddress,
    }
}

fn reverse_address(name: &[u8]) -> Option<IpAddr> {
    let parts: Vec<&[u8]> = labels(name).collect();
    let (zone, digits) = parts.split_last().map(|(_, rest)| rest)?.split_last()?;
    if zone.eq_ignore_ascii_case(b"in-addr") && digits.len() == 4 {
        let mut octets = [0; 4];
        for (slot, label) in octets.iter_mut().rev().zip(digits) {
            let text = std::str::from_utf8(label).ok()?;
            if (text.len() > 1 && text.starts_with('0')) || text.starts_with('+') {
                return None;
            }
            *slot = text.parse().ok()?;
        }
        return Some(Ipv4Addr::from(octets).into());
    }
    if zone.eq_ignore_ascii_case(b"ip6") && digits.len() == 32 {
        let mut value = 0u128;
        for label in digits.iter().rev() {
            let [digit] = label else { return None };
            value = value << 4 | u128::from((*digit as char).to_digit(16)?);
        }
        return Some(Ipv6Addr::from(value).into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, qtype: u16) -> Asked {
        let labels: Vec<String> = name.split('.').map(str::to_owned).collect();
        asked(&labels, qtype)
    }

    fn service(name: &str, tag: Option<&str>, datacenter: Option<&str>) -> Asked {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Asked::Service { name: name.into(), tag: own(tag), datacenter: own(datacenter) }
    }

    #[test]
    fn reads_services_with_tags_and_datacenters() {
        assert_eq!(of("web.service", rtype::A), service("web", None, None));
        assert_eq!(of("a.b.web.service.dc2", rtype::A), service("web", Some("a.b"), Some("dc2")));
        assert_eq!(of("web.service.dc2.dc", rtype::A), service("web", None, Some("dc2")));
        assert_eq!(of("_web._tcp.service", rtype::SRV), service("web", None, None));
        assert_eq!(of("_web._amqp.dc1", rtype::SRV), service("web", Some("amqp"), Some("dc1")));
        assert_eq!(of("_web._amqp", rtype::A), Asked::Invalid);
        assert_eq!(of("_web.service", rtype::SRV), service("_web", None, None));
        assert_eq!(of("service", rtype::A), Asked::Invalid);
        assert_eq!(of("web.service.dc1.x", rtype::A), Asked::Invalid);
    }

    #[test]
    fn reads_nodes_queries_and_addresses() {
        let node = Asked::Node { name: "a.b".into(), datacenter: None };
        assert_eq!(of("a.b.node", rtype::A), node);
        let query = Asked::Query { name: "q".into(), datacenter: Some("dc1".into()) };
        assert_eq!(of("q.query.dc1", rtype::A), query);
        assert_eq!(of("7f000001.addr", rtype::A), Asked::Address(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(of("7f00000.addr", rtype::A), Asked::NoAddress);
        assert_eq!(of("7f0000011.addr", rtype::A), Asked::Invalid);
        assert_eq!(of("zz000001.addr", rtype::A), Asked::Invalid);
        assert_eq!(of("+f000001.addr", rtype::A), Asked::Invalid);
        assert_eq!(of("x.connect", rtype::A), Asked::Mesh);
        assert_eq!(of("foo.bar", rtype::A), Asked::Invalid);
    }

    #[test]
    fn reads_reverse_names() {
        let wire =
            |text: &str| muster_protocol::dns::name::Name::parse(text).expect("a name").wire().to_vec();
        let v4 = reverse_address(&wire("4.3.2.1.in-addr.arpa"));
        assert_eq!(v4, Some(Ipv4Addr::new(1, 2, 3, 4).into()));
        assert_eq!(reverse_address(&wire("3.2.1.in-addr.arpa")), None);
        let nibbles = "1.".to_owned() + &"0.".repeat(31) + "ip6.arpa";
        assert_eq!(reverse_address(&wire(&nibbles)), Some(Ipv6Addr::LOCALHOST.into()));
    }
}
