//! The address templates of `go-sockaddr` that stand in Consul's configuration files: `{{ GetPrivateIP }}`,
//! `{{ GetInterfaceIP "eth0" }}`, and pipelines that filter and sort the interfaces.
//!
//! What is not understood is refused by name; nothing is guessed.

use std::net::IpAddr;

use super::model::Cidr;
use crate::runtime::interfaces::InterfaceAddr;

/// Evaluates every `{{ .. }}` of a text against the host's interfaces.
pub fn expand(text: &str, interfaces: &[InterfaceAddr]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once("{{") {
        let (inside, after) = tail
            .split_once("}}")
            .ok_or_else(|| format!("unable to parse template {text:?}: missing }}}}"))?;
        out.push_str(before);
        out.push_str(&pipeline(inside.trim_matches('-').trim(), interfaces)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// What flows from one stage to the next.
enum Flow {
    /// Addresses of interfaces.
    Addresses(Vec<InterfaceAddr>),
    /// Finished text.
    Text(String),
}

/// Evaluates stages joined by `|`.
fn pipeline(text: &str, interfaces: &[InterfaceAddr]) -> Result<String, String> {
    let mut flow: Option<Flow> = None;
    for stage in split_stages(text) {
        let words = words(stage)?;
        let (name, args) = words.split_first().ok_or_else(|| "empty address template".to_owned())?;
        flow = Some(apply(name, args, flow, interfaces)?);
    }
    match flow {
        Some(Flow::Text(text)) => Ok(text),
        Some(Flow::Addresses(all)) => Ok(join(&all, " ")),
        None => Err("empty address template".to_owned()),
    }
}

/// Applies one function.
fn apply(name: &str, args: &[String], flow: Option<Flow>, all: &[InterfaceAddr]) -> Result<Flow, String> {
    let known: Vec<InterfaceAddr> = all.iter().filter(|i| i.up).cloned().collect();
    let arg = |n: usize| {
        args.get(n)
            .map(String::as_str)
            .ok_or_else(|| format!("{name} in an address template needs an argument"))
    };
    let first = |addrs: Vec<InterfaceAddr>| {
        Flow::Text(addrs.first().map_or_else(String::new, |i| i.addr.to_string()))
    };
    let source = match name {
        "GetAllInterfaces" => Some(Flow::Addresses(known.clone())),
        "GetDefaultInterfaces" => Some(Flow::Addresses(on_default_interface(known.clone()))),
        "GetPrivateInterfaces" => Some(Flow::Addresses(private(known.clone()))),
        "GetPublicInterfaces" => Some(Flow::Addresses(public(known.clone()))),
        "GetPrivateIP" => Some(first(private(known.clone()))),
        "GetPrivateIPs" => Some(Flow::Text(join(&private(known.clone()), " "))),
        "GetPublicIP" => Some(first(public(known.clone()))),
        "GetPublicIPs" => Some(Flow::Text(join(&public(known.clone()), " "))),
        "GetInterfaceIP" => Some(first(named(known.clone(), arg(0)?)?)),
        "GetInterfaceIPs" => Some(Flow::Text(join(&named(known.clone(), arg(0)?)?, " "))),
        _ => None,
    };
    if let Some(flow) = source {
        return Ok(flow);
    }
    let Some(Flow::Addresses(addrs)) = flow else {
        return Err(format!("{name:?} is not a known function at its place in an address template"));
    };
    Ok(match name {
        "include" => Flow::Addresses(filter(addrs, arg(0)?, arg(1)?, true)?),
        "exclude" => Flow::Addresses(filter(addrs, arg(0)?, arg(1)?, false)?),
        "sort" => Flow::Addresses(sorted(addrs, arg(0)?)?),
        "limit" => {
            let n: usize =
                arg(0)?.parse().map_err(|_| "limit in an address template needs a number".to_owned())?;
            Flow::Addresses(addrs.into_iter().take(n).collect())
        }
        "unique" => {
            let mut seen = std::collections::BTreeSet::new();
            Flow::Addresses(addrs.into_iter().filter(|i| seen.insert(i.addr)).collect())
        }
        "attr" if matches!(arg(0)?, "address" | "ip") => first(addrs),
        "attr" if arg(0)? == "name" => Flow::Text(addrs.first().map_or_else(String::new, |i| i.name.clone())),
        "join" if matches!(arg(0)?, "address" | "ip") => Flow::Text(join(&addrs, arg(1)?)),
        _ => return Err(format!("{name:?} with {args:?} is not a known function of address templates")),
    })
}

/// Keeps (or drops) what a selector names.
fn filter(addrs: Vec<InterfaceAddr>, by: &str, what: &str, keep: bool) -> Result<Vec<InterfaceAddr>, String> {
    let test: Box<dyn Fn(&InterfaceAddr) -> bool> = match by {
        "name" | "interface" => {
            let pattern = regex::Regex::new(what)
                .map_err(|e| format!("bad name pattern in an address template: {e}"))?;
            Box::new(move |i| pattern.is_match(&i.name))
        }
        "address" => {
            let pattern = regex::Regex::new(what)
                .map_err(|e| format!("bad address pattern in an address template: {e}"))?;
            Box::new(move |i| pattern.is_match(&i.addr.to_string()))
        }
        "network" => {
            let network = Cidr::parse(what)?;
            Box::new(move |i| network.contains(i.addr))
        }
        "type" => match what.to_ascii_lowercase().as_str() {
            "ip" => Box::new(|_| true),
            "ipv4" => Box::new(|i| i.addr.is_ipv4()),
            "ipv6" => Box::new(|i| i.addr.is_ipv6()),
            _ => return Err(format!("{what:?} is not a type an address template can filter by")),
        },
        "flag" | "flags" => {
            let flags: Vec<String> = what.split('|').map(str::to_ascii_lowercase).collect();
            if let Some(odd) = flags.iter().find(|f| !["up", "loopback", "forwardable"].contains(&f.as_str()))
            {
                return Err(format!("{odd:?} is not a flag an address template can filter by"));
            }
            Box::new(move |i| {
                flags.iter().all(|flag| match flag.as_str() {
                    "up" => i.up,
                    "loopback" => i.addr.is_loopback(),
                    _ => forwardable(i.addr),
                })
            })
        }
        "rfc" | "rfcs" => {
            let networks = rfc(what)
                .ok_or_else(|| format!("RFC {what} is not one an address template can filter by"))?;
            Box::new(move |i| networks.iter().any(|n| n.contains(i.addr)))
        }
        _ => return Err(format!("{by:?} is not a selector of address templates")),
    };
    Ok(addrs.into_iter().filter(|i| test(i) == keep).collect())
}

/// Sorts by one or more keys, `-` before a key reverses it.
fn sorted(mut addrs: Vec<InterfaceAddr>, by: &str) -> Result<Vec<InterfaceAddr>, String> {
    for key in by.split(',').rev() {
        let (reverse, key) =
            key.strip_prefix('-').map_or((false, key.trim_start_matches('+')), |k| (true, k));
        match key {
            "name" => addrs.sort_by(|a, b| a.name.cmp(&b.name)),
            "address" => addrs.sort_by_key(|i| i.addr),
            "default" => {
                let default = on_default_interface(addrs.clone());
                addrs.sort_by_key(|i| !default.contains(i));
            }
            "private" => addrs.sort_by_key(|i| !is_private(i.addr)),
            "type" => addrs.sort_by_key(|i| i.addr.is_ipv6()),
            _ => return Err(format!("{key:?} is not a key address templates sort by")),
        }
        if reverse {
            addrs.reverse();
        }
    }
    Ok(addrs)
}

/// Addresses of one interface, IPv4 first.
fn named(mut addrs: Vec<InterfaceAddr>, name: &str) -> Result<Vec<InterfaceAddr>, String> {
    let pattern =
        regex::Regex::new(name).map_err(|e| format!("bad interface pattern in an address template: {e}"))?;
    addrs.retain(|i| pattern.is_match(&i.name) && !is_link_local(i.addr));
    addrs.sort_by_key(|i| i.addr.is_ipv6());
    Ok(addrs)
}

/// Private addresses (RFC 6890) of the default interface, IPv4 first.
fn private(addrs: Vec<InterfaceAddr>) -> Vec<InterfaceAddr> {
    let mut kept = on_default_interface(addrs);
    kept.retain(|i| is_private(i.addr) && forwardable(i.addr));
    kept.sort_by_key(|i| i.addr.is_ipv6());
    kept
}

/// Public addresses of the default interface, IPv4 first.
fn public(addrs: Vec<InterfaceAddr>) -> Vec<InterfaceAddr> {
    let mut kept = on_default_interface(addrs);
    kept.retain(|i| !is_private(i.addr) && forwardable(i.addr));
    kept.sort_by_key(|i| i.addr.is_ipv6());
    kept
}

/// Keeps the addresses of the interface that holds the default route; all when there is none.
fn on_default_interface(mut addrs: Vec<InterfaceAddr>) -> Vec<InterfaceAddr> {
    let table = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let default = table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?;
        (fields.next()? == "00000000").then(|| name.to_owned())
    });
    if let Some(name) = default {
        addrs.retain(|i| i.name == name);
    }
    addrs
}

/// Whether packets for the address travel beyond its link.
fn forwardable(addr: IpAddr) -> bool {
    !addr.is_loopback() && !is_link_local(addr) && !addr.is_unspecified() && !addr.is_multicast()
}

/// Link-local addresses.
fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Addresses for use inside one organisation.
fn is_private(addr: IpAddr) -> bool {
    rfc("6890").is_some_and(|networks| networks.iter().any(|n| n.contains(addr)))
}

/// Whether an address may be advertised when every IPv4 address is bound.
pub fn is_private_v4(addr: IpAddr) -> bool {
    addr.is_ipv4() && is_private(addr) && forwardable(addr)
}

/// Whether an address may be advertised when every IPv6 address is bound.
pub fn is_public_v6(addr: IpAddr) -> bool {
    addr.is_ipv6() && !is_private(addr) && forwardable(addr)
}

/// Networks of an RFC.
fn rfc(number: &str) -> Option<Vec<Cidr>> {
    let networks: &[&str] = match number {
        "1918" => &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
        "6598" => &["100.64.0.0/10"],
        "4193" => &["fc00::/7"],
        "3927" => &["169.254.0.0/16"],
        "6890" => &[
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "240.0.0.0/4",
            "::1/128",
            "fc00::/7",
            "fe80::/10",
            "2001:db8::/32",
        ],
        _ => return None,
    };
    Some(networks.iter().map(|n| Cidr::parse(n).expect("networks of the table parse")).collect())
}

/// Splits at `|` outside quotes.
fn split_stages(text: &str) -> Vec<&str> {
    let mut quote = None;
    text.split(move |c: char| {
        match (quote, c) {
            (None, '"' | '`') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
        c == '|' && quote.is_none()
    })
    .collect()
}

/// Splits a stage into its words; quoted words may hold blanks.
fn words(stage: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut rest = stage.trim();
    while let Some(first) = rest.chars().next() {
        if matches!(first, '"' | '`') {
            let (word, after) = rest[1..]
                .split_once(first)
                .ok_or_else(|| format!("unterminated quote in address template {stage:?}"))?;
            out.push(word.to_owned());
            rest = after.trim_start();
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            out.push(rest[..end].to_owned());
            rest = rest[end..].trim_start();
        }
    }
    Ok(out)
}

/// Addresses with a text between them.
fn join(addrs: &[InterfaceAddr], between: &str) -> String {
    addrs.iter().map(|i| i.addr.to_string()).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<InterfaceAddr> {
        [("lo", "127.0.0.1"), ("x1", "10.1.2.3"), ("x1", "fd00::1"), ("x2", "8.8.4.4"), ("x2", "fe80::2")]
            .map(|(name, addr)| InterfaceAddr {
                name: name.to_owned(),
                addr: addr.parse().expect("address"),
                up: true,
            })
            .to_vec()
    }

    #[test]
    fn templates_pick_addresses() {
        for (template, text) in [
            ("10.0.0.1", "10.0.0.1"),
            ("{{ GetInterfaceIP \"x1\" }}", "10.1.2.3"),
            ("a {{GetInterfaceIPs `x1`}} b", "a 10.1.2.3 fd00::1 b"),
            ("{{ GetAllInterfaces | include \"network\" \"8.0.0.0/8\" | attr \"address\" }}", "8.8.4.4"),
            (
                "{{ GetAllInterfaces | exclude \"type\" \"IPv6\" | exclude \"flags\" \"loopback\" | sort \"-address\" | join \"address\" \" \" }}",
                "10.1.2.3 8.8.4.4",
            ),
            (
                "{{ GetAllInterfaces | include \"rfc\" \"1918\" | include \"name\" \"^x\" | limit 1 | attr \"name\" }}",
                "x1",
            ),
            ("{{ GetInterfaceIP \"none\" }}", ""),
            ("{{ GetAllInterfaces | include \"flag\" \"loopback\" | attr \"address\" }}", "127.0.0.1"),
            ("{{ GetAllInterfaces | include \"rfcs\" \"1918\" | attr \"address\" }}", "10.1.2.3"),
        ] {
            assert_eq!(expand(template, &host()).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for template in
            ["{{ GetFoo }}", "{{ GetInterfaceIP }}", "{{", "{{}}", "{{ GetPrivateIP | include \"a\" \"b\" }}"]
        {
            assert!(expand(template, &host()).is_err(), "{template}");
        }
    }
}
