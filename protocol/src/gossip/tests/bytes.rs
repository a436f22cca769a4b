//! Bytes: whatever comes is refused or understood, and what is understood means the same when it is said again.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::super::*;
use super::network::{address, identity};
use crate::entry::{Now, ServerId};

fn short_name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z][a-z0-9.-]{0,12}", "[a-zäß€]{1,40}".prop_filter("short", |name| name.len() <= 128)]
}

fn tags() -> impl Strategy<Value = Tags> {
    prop::collection::btree_map("[a-z_]{1,10}", "[ -~]{0,30}", 0..8)
        .prop_map(|tags| Tags::new(tags.iter().map(|(name, value)| (&**name, &**value))).expect("short"))
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    (any::<std::net::IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

/// Whatever a message is made of, to borrow from.
type Parts = (String, String, String, Tags, SocketAddr, (u32, u64, [u8; 16], Vec<u8>));

fn parts() -> impl Strategy<Value = Parts> {
    let numbers = (
        any::<u32>(),
        0..settings::INCARNATION_MAX,
        any::<[u8; 16]>(),
        prop::collection::vec(any::<u8>(), 0..100),
    );
    (short_name(), short_name(), short_name(), tags(), addresses(), numbers)
}

fn messages<'a>(parts: &'a Parts, confirmers: &'a [u8]) -> Vec<Message<'a>> {
    let (name, by, from, tags, address, (token, incarnation, id, coordinate)) = parts;
    let (token, incarnation) = (*token, *incarnation);
    let versions = Versions::OWN;
    let kinds = [IntentKind::Join, IntentKind::Leave, IntentKind::Prune];
    vec![
        Message::Ping(Ping { token, to: name, from }),
        Message::PingRequest(PingRequest { token, target: name, from }),
        Message::Ack(Ack { token, coordinate }),
        Message::Nack { token },
        Message::Alive(Alive {
            name,
            id: ServerId(*id),
            address: *address,
            incarnation,
            versions,
            tags: tags.view(),
        }),
        Message::Suspect(Suspect { name, incarnation, by }),
        Message::Dead(Dead { name, incarnation, by, suspected_by: from, confirmed_by: Names(confirmers) }),
        Message::Intent(Intent { ltime: incarnation, name, kind: kinds[token as usize % 3] }),
    ]
}

fn confirmers(parts: &Parts) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet::put_name(&mut bytes, &parts.1);
    packet::put_name(&mut bytes, &parts.2);
    bytes
}

proptest! {
    #[test]
    fn messages_are_read_as_they_were_said(parts in parts()) {
        let names = confirmers(&parts);
        let said = messages(&parts, &names);
        let mut body = Vec::new();
        said.iter().for_each(|message| put_message(&mut body, message));
        let packet = close_plain(&body);
        let body = open_plain(&packet).expect("our own packet");
        let read: Vec<Message<'_>> = Messages::new(body).collect::<Result<_, _>>().expect("our own messages");
        prop_assert_eq!(read, said);
    }

    #[test]
    fn states_are_read_as_they_were_said(parts in parts(), join: bool, clocks: [u64; 3], age_s: u32) {
        let Some(Message::Alive(alive)) = messages(&parts, &[]).into_iter().nth(4) else { unreachable!() };
        let statuses = [Status::Alive, Status::Suspect, Status::Leaving, Status::Left, Status::Failed];
        let known = |status| Known { alive, status, age_s, ltime: clocks[0] };
        let members = statuses.into_iter().map(known).collect();
        let tombstones = vec![Tombstone { name: &parts.1, incarnation: 9, age_s }];
        let said = Frame::State(State { join, clocks, members, tombstones });
        let bytes = encode_frame(&said);
        prop_assert_eq!(read_frame(&bytes), Ok(said));
        let said = Frame::Here(alive);
        let bytes = encode_frame(&said);
        prop_assert_eq!(read_frame(&bytes), Ok(said));
        let said = Frame::Call(Call { to: &parts.0, from: &parts.1, suspected: parts.5.1 });
        let bytes = encode_frame(&said);
        prop_assert_eq!(read_frame(&bytes), Ok(said));
        let said = Frame::Refused(&parts.0);
        let bytes = encode_frame(&said);
        prop_assert_eq!(read_frame(&bytes), Ok(said));
    }

    #[test]
    fn any_bytes_are_refused_or_understood(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = open_plain(&bytes);
        let _ = read_frame(&bytes);
        let mut again = Vec::new();
        for message in Messages::new(&bytes).map_while(Result::ok) {
            again.clear();
            put_message(&mut again, &message);
            let read: Vec<_> = Messages::new(&again).collect();
            prop_assert_eq!(read, [Ok(message)]);
        }
    }

    #[test]
    fn a_damaged_packet_is_not_believed_and_harms_nobody(parts in parts(), place: prop::sample::Index, bit in 0..8u8) {
        let mut body = Vec::new();
        messages(&parts, &[]).iter().for_each(|message| put_message(&mut body, message));
        let mut packet = close_plain(&body).to_vec();
        let place = place.index(packet.len());
        packet[place] ^= 1u8 << bit;
        prop_assert!(open_plain(&packet).is_err());
    }

    #[test]
    fn a_member_survives_whatever_messages_come(all in prop::collection::vec((parts(), 0..8usize, 0..3000u64), 1..40)) {
        let mut core = Gossip::new(Settings::lan(), identity(0), 1, Now::from_secs(100));
        let (mut out, mut now) = (Vec::new(), Now::from_secs(100));
        for (parts, kind, later) in &all {
            let names = confirmers(parts);
            let mut body = Vec::new();
            put_message(&mut body, &messages(parts, &names)[*kind]);
            now += Now::from_millis(*later);
            core.step(now, Input::Packet { from: address(1), bytes: close_plain(&body) }, &mut out);
            for effect in out.drain(..) {
                if let Effect::Send { packet, .. } = effect {
                    prop_assert!(packet.len() <= PACKET_LENGTH_MAX);
                }
            }
        }
    }
}

#[test]
fn a_newer_version_is_refused_by_its_number() {
    let newer = [9, 0, 1, 2, 3, 4, 5];
    assert_eq!(open_plain(&newer), Err(Unreadable::NewerVersion(9)));
    assert!(Unreadable::NewerVersion(9).to_string().contains("upgrade this agent first"));
    assert_eq!(open_plain(&[1, 1, 0, 0]), Err(Unreadable::Sealed));
}

#[test]
fn messages_of_later_versions_are_skipped() {
    let mut body = vec![200, 2, 0, 7, 7];
    put_message(&mut body, &Message::Nack { token: 5 });
    let read: Vec<_> = Messages::new(&body).collect();
    assert_eq!(read, [Ok(Message::Nack { token: 5 })]);
}

#[test]
fn names_that_could_mislead_a_terminal_are_refused() {
    let mut body = Vec::new();
    put_message(&mut body, &Message::Suspect(Suspect { name: "a\x1b[2J", incarnation: 1, by: "b" }));
    assert!(Messages::new(&body).next().is_some_and(|read| read.is_err()));
}
