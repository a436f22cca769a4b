//! Timing and limits of gossip. Sources: SWIM (Das, Gupta, Motivala: *SWIM*, 2002), Lifeguard (Dadgar, Phillips, Currey:
//! *Lifeguard: Local Health Awareness for More Accurate Failure Detection*, 2018), and the published defaults of memberlist and serf,
//! which fleets of Consul are tuned to.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::events::Coalescing;
use super::keyring::Keyring;
use super::member::{NodeId, Tags};
use crate::wire::PAYLOAD_LENGTH_MAX;

/// A datagram, bytes (memberlist: `UDPBufferSize`): fits an Ethernet frame also inside a tunnel.
pub const PACKET_LENGTH_MAX: usize = 1400;
/// A frame on a stream, bytes: what does not fit of a full state is told another time.
pub const FRAME_LENGTH_MAX: usize = 8 << 20;
/// A member's name, bytes (serf: `MaxNodeNameLength`).
pub const NAME_LENGTH_MAX: usize = 128;
/// All tags of a member, encoded, bytes (memberlist: `MetaMaxSize`).
pub const TAGS_LENGTH_MAX: usize = 512;
/// Members in the table. Others are not taken in; the log says so.
pub const MEMBERS_MAX: usize = 32 << 10;
/// What is remembered of members that were pruned or reaped, so that nobody's old state brings them back. The oldest is forgotten.
pub const TOMBSTONES_MAX: usize = 8 << 10;
/// Broadcasts that wait in one lane. At the limit the one that was sent most often is dropped: push/pull repairs what it said.
pub const BROADCASTS_MAX: usize = 16 << 10;
/// Probes under way for others. Further requests are not answered, and their senders count it as they count a lost packet.
pub const RELAYS_MAX: usize = 1024;
/// Streams under way; more are not dialled.
pub const STREAMS_MAX: usize = 256;
/// Addresses of one join; the rest is refused.
pub const JOIN_ADDRESSES_MAX: usize = 128;
/// Who is named as having confirmed a suspicion (memberlist: the default `SuspicionMult` of 4, less 2; the WAN's 6 gives 4).
pub const CONFIRMERS_MAX: usize = 4;
/// No member has changed what it says of itself this often.
pub const INCARNATION_MAX: u64 = 1 << 62;
/// Nor this often since it was last heard: taken, it could leave a member no incarnation to contradict with.
pub const INCARNATION_LEAP_MAX: u64 = 1 << 48;
/// Packets to one receiver at a time while much is to be told.
pub const BURST_MAX: usize = 6;
/// What cannot be understood is told in the log this often at most.
pub const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);
/// Reasons that are told apart for that. Others are not told while so many are fresh.
pub const COMPLAINTS_MAX: usize = 64;
/// All that goes over one stream (memberlist: `TCPTimeout`).
pub const STREAM_PATIENCE: Duration = Duration::from_secs(10);
/// Who is told of it at once when the state of another accuses many.
pub const TOLD_AT_ONCE_MAX: usize = 64;

const _: () = assert!(FRAME_LENGTH_MAX < PAYLOAD_LENGTH_MAX, "a frame travels as one payload");
const _: () =
    assert!(NAME_LENGTH_MAX * 8 < PACKET_LENGTH_MAX, "a message that names six members fits a packet");
const _: () = assert!(
    TAGS_LENGTH_MAX + 2 * NAME_LENGTH_MAX < PACKET_LENGTH_MAX,
    "what a member says of itself fits a packet"
);

/// How one pool gossips.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often news is spread, while there is some.
    pub gossip_interval: Duration,
    /// To how many at a time.
    pub gossip_nodes: usize,
    /// So long the failed still get news: they learn that they were declared failed, and can contradict (memberlist: `GossipToTheDeadTime`).
    pub gossip_to_the_dead: Duration,
    /// A period of the failure detector, at good local health: one member is probed in each.
    pub probe_interval: Duration,
    /// So long a direct answer is waited for, at good local health.
    pub probe_timeout: Duration,
    /// So many others are then asked to probe (SWIM, 3.1; memberlist: `IndirectChecks`).
    pub indirect_checks: usize,
    /// Whether a probe that gets no direct answer is also tried over a stream (memberlist: `DisableTcpPings`).
    pub stream_probes: bool,
    /// Shortest suspicion: this, times the logarithm of the members, times the probe interval.
    pub suspicion_mult: u32,
    /// Longest suspicion, in shortest ones (memberlist: `SuspicionMaxTimeoutMult`).
    pub suspicion_max_mult: u32,
    /// Each piece of news is sent so often, times the logarithm of the members.
    pub retransmit_mult: u32,
    /// Local health ends below this (memberlist: `AwarenessMaxMultiplier`).
    pub awareness_max: u32,
    /// A step that comes so much later than it was asked for shows that this process stood still: what others did not say meanwhile
    /// is no evidence against them.
    pub stall_min: Duration,
    /// How often the full state is exchanged with a random member, in pools of up to 32 (memberlist: `PushPullInterval`).
    pub push_pull_interval: Duration,
    /// How often one of the failed is tried again (serf: `ReconnectInterval`).
    pub reconnect_interval: Duration,
    /// The failed are forgotten after this (serf: `ReconnectTimeout`; Consul: 72 h).
    pub reconnect_timeout: Duration,
    /// Those who left are forgotten after this (serf: `TombstoneTimeout`).
    pub tombstone_timeout: Duration,
    /// So long a leaving member waits for its word to be sent as often as it should (serf: `BroadcastTimeout`).
    pub leave_broadcast_timeout: Duration,
    /// And so long it still answers, so that all hear it before it is silent (serf: `LeavePropagateDelay`).
    pub leave_propagate_delay: Duration,
    /// Tags in which all members of the pool agree, and what they name: `dc`, the datacenter. Others are refused.
    pub common_tags: Vec<(String, String)>,
    /// Tags in which those members agree that have them at all. Others are refused.
    pub agreed_tags: Vec<AgreedTag>,
    /// Whether members measure where they are (Consul: `disable_coordinates`).
    pub coordinates: bool,
    /// How events are coalesced.
    pub coalescing: Coalescing,
    /// Whether a pool with keys believes only what is sealed (Consul: `encrypt_verify_incoming`; off while a pool goes over to keys).
    pub verify_incoming: bool,
    /// Whether a member with keys seals what it sends (Consul: `encrypt_verify_outgoing`).
    pub verify_outgoing: bool,
    /// Networks that members may be in; none: all.
    pub allowed_networks: Vec<Network>,
}

impl Settings {
    /// Within a datacenter (memberlist: `DefaultLANConfig`; serf: `DefaultConfig`).
    pub fn lan() -> Settings {
        Settings {
            gossip_interval: Duration::from_millis(200),
            gossip_nodes: 3,
            gossip_to_the_dead: Duration::from_secs(30),
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(500),
            indirect_checks: 3,
            stream_probes: true,
            suspicion_mult: 4,
            suspicion_max_mult: 6,
            retransmit_mult: 4,
            awareness_max: 8,
            stall_min: Duration::from_millis(250),
            push_pull_interval: Duration::from_secs(30),
            reconnect_interval: Duration::from_secs(30),
            reconnect_timeout: Duration::from_secs(72 * 3600),
            tombstone_timeout: Duration::from_secs(24 * 3600),
            leave_broadcast_timeout: Duration::from_secs(5),
            leave_propagate_delay: Duration::from_secs(1),
            common_tags: Vec::new(),
            agreed_tags: Vec::new(),
            coordinates: true,
            coalescing: Coalescing::default(),
            verify_incoming: true,
            verify_outgoing: true,
            allowed_networks: Vec::new(),
        }
    }

    /// Between datacenters (memberlist: `DefaultWANConfig`; `gossip_nodes` as Consul sets it).
    pub fn wan() -> Settings {
        Settings {
            gossip_interval: Duration::from_millis(500),
            gossip_to_the_dead: Duration::from_secs(60),
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(3),
            suspicion_mult: 6,
            push_pull_interval: Duration::from_secs(60),
            ..Settings::lan()
        }
    }
}

/// A tag that members of one pool may lack, but not have with different values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgreedTag {
    /// Its name.
    pub tag: String,
    /// What it names, for the operator.
    pub noun: String,
    /// What the operator can do about members that differ.
    pub advice: String,
}

/// What this agent says of itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name, unique in the pool; 1 to [`NAME_LENGTH_MAX`] bytes.
    pub name: Arc<str>,
    /// Who it is, for good.
    pub id: NodeId,
    /// Where others reach it, for packets and for streams.
    pub address: std::net::SocketAddr,
    /// What else it says.
    pub tags: Tags,
    /// Where its incarnation begins. The higher of the last one it had and the seconds since 1970 lets it return without contradicting its
    /// former self; 1 works, too.
    pub incarnation: u64,
    /// With which keys all is sealed; none: nothing is, and what is sealed is refused. The seed of [`Gossip::new`](super::Gossip::new) must then be the
    /// system's, and be used only once.
    pub keyring: Option<Keyring>,
}

/// Addresses with a common prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address of it.
    pub address: IpAddr,
    /// Length of the prefix, bits.
    pub prefix: u8,
}

impl Network {
    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let differs = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        differs >= u32::from(self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_the_addresses_with_their_prefix() {
        let network = Network { address: "10.1.0.0".parse().expect("an address"), prefix: 16 };
        for (address, inside) in [("10.1.2.3", true), ("10.2.0.1", false), ("::1", false)] {
            assert_eq!(network.contains(address.parse().expect("an address")), inside, "{address}");
        }
        let all = Network { address: "0.0.0.0".parse().expect("an address"), prefix: 0 };
        assert!(all.contains("203.0.113.9".parse().expect("an address")));
    }
}
