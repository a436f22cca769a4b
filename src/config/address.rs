//! Addresses of the configuration: templates, client listeners, and the choice of what to advertise.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::model::{Addresses, Listen, ListenAddr, Ports};
use super::settings::Settings;
use super::{ConfigError, template};
use crate::runtime::interfaces::InterfaceAddr;
use crate::store::model::StringMap;

/// What an address key may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// An IP address.
    Ip(IpAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// Resolves every address against the settings and the host's interfaces.
pub struct Resolver<'a> {
    /// The merged settings.
    pub settings: &'a Settings,
    /// Addresses of this host.
    pub interfaces: &'a [InterfaceAddr],
}

impl Resolver<'_> {
    /// Bind, advertise and tagged addresses.
    pub fn addresses(&self, ports: &Ports) -> Result<Addresses, ConfigError> {
        let bind = self.bind()?;
        let advertise = match self.single_ip("advertise_addr")? {
            Some(addr) if addr.is_unspecified() => return Err(unspecified("")),
            Some(addr) => addr,
            None if bind.is_unspecified() => self.detect(bind.is_ipv6())?,
            None => bind,
        };
        let advertise_wan = match self.single_ip("advertise_addr_wan")? {
            Some(addr) if addr.is_unspecified() => return Err(unspecified("WAN ")),
            found => found.unwrap_or(advertise),
        };
        let serf_lan = self.single_ip("serf_lan")?.unwrap_or(bind);
        let serf_wan = self.single_ip("serf_wan")?.unwrap_or(bind);
        Ok(Addresses {
            bind,
            advertise,
            advertise_wan,
            rpc_bind: SocketAddr::new(bind, ports.server),
            serf_lan_bind: SocketAddr::new(serf_lan, ports.serf_lan),
            serf_wan_bind: ports.serf_wan.map(|port| SocketAddr::new(serf_wan, port)),
            tagged: self.tagged(advertise, advertise_wan)?,
            client: self.client()?.into_iter().map(|ip| ListenAddr::Tcp(SocketAddr::new(ip, 0))).collect(),
        })
    }

    /// Where the client surfaces listen.
    pub fn listen(&self, ports: &Ports) -> Result<Listen, ConfigError> {
        let client: Vec<Place> = self.client()?.into_iter().map(Place::Ip).collect();
        let surface = |key: &'static str, port: Option<u16>| -> Result<Vec<ListenAddr>, ConfigError> {
            let Some(port) = port else { return Ok(Vec::new()) };
            let own = self.places(key)?;
            let places = if own.is_empty() { client.clone() } else { own };
            Ok(places.into_iter().map(|place| listener(place, port)).collect())
        };
        let mut dns = Vec::new();
        for addr in surface("addresses.dns", ports.dns)? {
            match addr {
                ListenAddr::Tcp(addr) => dns.push(addr),
                ListenAddr::Unix(_) => {
                    return Err(ConfigError("DNS address cannot be a unix socket".to_owned()));
                }
            }
        }
        Ok(Listen {
            http: surface("addresses.http", ports.http)?,
            https: surface("addresses.https", ports.https)?,
            dns,
        })
    }

    /// The IP addresses of `client_addr`.
    fn client(&self) -> Result<Vec<IpAddr>, ConfigError> {
        let ip = |place| match place {
            Place::Ip(ip) => Ok(ip),
            Place::Unix(_) => Err(self.error("client_addr", "cannot be a unix socket", " ")),
        };
        self.places("client_addr")?.into_iter().map(ip).collect()
    }

    /// The one address of `bind_addr`.
    fn bind(&self) -> Result<IpAddr, ConfigError> {
        let all = self.places("bind_addr")?;
        match all.as_slice() {
            [] => Err(ConfigError("bind_addr cannot be empty".to_owned())),
            [Place::Ip(ip)] => Ok(*ip),
            [Place::Unix(_)] => Err(ConfigError("bind_addr cannot be a unix socket".to_owned())),
            _ => Err(ConfigError(
                "bind_addr cannot contain multiple addresses. Use 'addresses.{dns,http,https}' instead."
                    .to_owned(),
            )),
        }
    }

    /// The one address of a key, when set.
    fn single_ip(&self, key: &'static str) -> Result<Option<IpAddr>, ConfigError> {
        let all = self.places(key)?;
        match all.as_slice() {
            [] => Ok(None),
            [Place::Ip(ip)] => Ok(Some(*ip)),
            [Place::Unix(_)] => Err(self.error(key, "cannot be a unix socket", " ")),
            _ => {
                let text = self.settings.text(key).unwrap_or_default();
                Err(self.error(key, &format!("multiple addresses found: {text}"), ": "))
            }
        }
    }

    /// The addresses of a key: a template, then words between blanks.
    fn places(&self, key: &'static str) -> Result<Vec<Place>, ConfigError> {
        let Some(text) = self.settings.filled(key) else { return Ok(Vec::new()) };
        let text = self.expand(key, text)?;
        let place = |word: &str| match word.strip_prefix("unix://") {
            Some(path) => Ok(Place::Unix(PathBuf::from(path))),
            None => word
                .trim_start_matches('[')
                .trim_end_matches(']')
                .parse()
                .map(Place::Ip)
                .map_err(|_| self.error(key, &format!("invalid ip address: {word}"), ": ")),
        };
        text.split_whitespace().map(place).collect()
    }

    /// Evaluates the templates of a text.
    pub fn expand(&self, key: &'static str, text: &str) -> Result<String, ConfigError> {
        template::expand(text, self.interfaces).map_err(|why| self.error(key, &why, ": "))
    }

    /// Chooses what to advertise when every address is bound.
    fn detect(&self, v6: bool) -> Result<IpAddr, ConfigError> {
        let usable = |i: &&InterfaceAddr| {
            i.up && if v6 { template::is_public_v6(i.addr) } else { template::is_private_v4(i.addr) }
        };
        let mut found: Vec<IpAddr> = self.interfaces.iter().filter(usable).map(|i| i.addr).collect();
        found.dedup();
        let what = if v6 { "public IPv6" } else { "private IPv4" };
        match found.as_slice() {
            [] => Err(ConfigError(format!("No {what} address found"))),
            [one] => Ok(*one),
            _ => Err(ConfigError(format!(
                "Multiple {what} addresses found. Please configure one with 'bind' and/or 'advertise'."
            ))),
        }
    }

    /// Tagged addresses of the node.
    fn tagged(&self, lan: IpAddr, wan: IpAddr) -> Result<StringMap, ConfigError> {
        let mut out: BTreeMap<String, String> = self.settings.text_map("tagged_addresses");
        let of_family = |addrs: [Option<IpAddr>; 3], v4: bool| {
            addrs.into_iter().flatten().find(|addr| addr.is_ipv4() == v4)
        };
        let (lan_v4, lan_v6) =
            (self.single_ip("advertise_addr_ipv4")?, self.single_ip("advertise_addr_ipv6")?);
        let (wan_v4, wan_v6) =
            (self.single_ip("advertise_addr_wan_ipv4")?, self.single_ip("advertise_addr_wan_ipv6")?);
        let pairs = [
            ("lan", Some(lan)),
            ("wan", Some(wan)),
            ("lan_ipv4", of_family([lan_v4, Some(lan), None], true)),
            ("lan_ipv6", of_family([lan_v6, Some(lan), None], false)),
            ("wan_ipv4", of_family([wan_v4, Some(wan), lan_v4], true)),
            ("wan_ipv6", of_family([wan_v6, Some(wan), lan_v6], false)),
        ];
        for (tag, addr) in pairs {
            if let Some(addr) = addr {
                out.insert(tag.to_owned(), addr.to_string());
            }
        }
        Ok(out)
    }

    /// An error of one key, with its source.
    fn error(&self, key: &str, text: &str, between: &str) -> ConfigError {
        ConfigError::of_key(self.settings, key, &format!("{key}{between}{text}"))
    }
}

/// A listener at a place.
fn listener(place: Place, port: u16) -> ListenAddr {
    match place {
        Place::Ip(ip) => ListenAddr::Tcp(SocketAddr::new(ip, port)),
        Place::Unix(path) => ListenAddr::Unix(path),
    }
}

/// Consul's text for advertising every address.
fn unspecified(which: &str) -> ConfigError {
    ConfigError(format!("Advertise {which}address cannot be 0.0.0.0, :: or [::]"))
}

/// Refuses two uses of one address, in Consul's words.
pub fn refuse_duplicates(listen: &Listen, addresses: &Addresses, ports: &Ports) -> Result<(), ConfigError> {
    let mut uses: Vec<(String, &str)> = Vec::new();
    let tcp = |ip: IpAddr, port: u16| SocketAddr::new(ip, port).to_string();
    let dns = listen.dns.iter().map(|a| (a.to_string(), "DNS"));
    let plain = |addr: &ListenAddr| match addr {
        ListenAddr::Tcp(addr) => addr.to_string(),
        ListenAddr::Unix(path) => path.display().to_string(),
    };
    let http = listen.http.iter().map(|a| (plain(a), "HTTP"));
    let https = listen.https.iter().map(|a| (plain(a), "HTTPS"));
    let cluster = [
        Some((tcp(addresses.advertise, ports.server), "RPC Advertise")),
        Some((tcp(addresses.advertise, ports.serf_lan), "Serf Advertise LAN")),
        ports.serf_wan.map(|port| (tcp(addresses.advertise_wan, port), "Serf Advertise WAN")),
    ];
    for (addr, name) in dns.chain(http).chain(https).chain(cluster.into_iter().flatten()) {
        if let Some((_, other)) = uses.iter().find(|(used, _)| *used == addr) {
            return Err(ConfigError(format!("{name} address {addr} already configured for {other}")));
        }
        uses.push((addr, name));
    }
    Ok(())
}
