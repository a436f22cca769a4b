//! What membership needs to know before it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use muster_protocol::entry::ServerId;
use muster_protocol::gossip::{self, AgreedTag, Network};

use super::events::Event;
use super::facts::{self, OwnTags};
use crate::config::{Config, GossipConfig};
use crate::runtime::net::{Listener, Udp};

/// What membership needs to know.
pub struct Settings {
    /// This agent.
    pub own: Own,
    /// Whether it is a server: its lines in the log are named so, and it may begin a cluster.
    pub server: bool,
    /// Port of addresses that name none.
    pub default_port: u16,
    /// Joining and keys.
    pub gossip: GossipConfig,
    /// Pace and rules of the pool.
    pub pool: gossip::Settings,
    /// Where members and keys are kept across restarts.
    pub data_dir: Option<PathBuf>,
    /// Which events are heeded.
    pub heed: Heed,
}

/// Whether this agent keeps an event for its clients: the event is for it, and for nobody within.
pub type Heed = Box<dyn Fn(&Event) -> bool>;

/// This agent as it shows itself to others.
pub struct Own {
    /// Who it is.
    pub id: ServerId,
    /// Name of its node.
    pub name: Arc<str>,
    /// Where others reach it.
    pub address: SocketAddr,
    /// What it says of itself.
    pub tags: OwnTags,
}

/// What it listens on: both at the same address.
pub struct Sockets {
    /// For packets.
    pub udp: Udp,
    /// For streams.
    pub tcp: Listener,
}

impl Settings {
    /// As an agent of this configuration has them.
    pub fn of(config: &Config, id: ServerId) -> Settings {
        Settings {
            own: Own {
                id,
                name: config.node_name.as_str().into(),
                address: SocketAddr::new(config.addresses.advertise, config.ports.serf_lan),
                tags: facts::own_tags(config, &id.to_string()),
            },
            server: config.server,
            default_port: config.ports.serf_lan,
            gossip: config.gossip.clone(),
            pool: pool(config),
            data_dir: config.data_dir.clone(),
            heed: Box::new(|_| true),
        }
    }

    /// The configured key.
    pub(super) fn key(&self) -> Option<gossip::keyring::Key> {
        let text = self.gossip.encrypt_key.as_ref()?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
        gossip::keyring::Key::new(&bytes).ok()
    }
}

fn pool(config: &Config) -> gossip::Settings {
    let GossipConfig { pace, .. } = &config.gossip;
    let network = |cidr: &crate::config::Cidr| Network { address: cidr.network, prefix: cidr.prefix };
    gossip::Settings {
        gossip_interval: pace.gossip_interval,
        gossip_nodes: pace.gossip_nodes,
        probe_interval: pace.probe_interval,
        probe_timeout: pace.probe_timeout,
        suspicion_mult: pace.suspicion_mult,
        retransmit_mult: pace.retransmit_mult,
        reconnect_timeout: config.gossip.reconnect_timeout,
        common_tags: vec![("dc".to_owned(), "datacenter".to_owned())],
        agreed_tags: vec![AgreedTag {
            tag: facts::CLUSTER.to_owned(),
            noun: "cluster".to_owned(),
            advice: "they were bootstrapped apart. Keep the one whose data you want, stop the servers of the other, remove their \
                     DATA/raft and start them again to join it"
                .to_owned(),
        }],
        coordinates: !config.disable_coordinates,
        verify_incoming: config.gossip.encrypt_verify_incoming,
        verify_outgoing: config.gossip.encrypt_verify_outgoing,
        allowed_networks: config.gossip.allowed_networks.iter().map(network).collect(),
        ..gossip::Settings::lan()
    }
}
