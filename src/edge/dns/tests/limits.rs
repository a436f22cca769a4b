//! How large replies are, and what is left of an answer that is larger.

use std::collections::BTreeSet;

use muster_protocol::dns::rtype;
use proptest::prelude::*;

use super::*;

fn many(count: usize, config: DnsConfig) -> Bench {
    let mut bench = Bench::new(config);
    for i in 0..count {
        let address = format!("10.1.{}.{}", i / 250, i % 250);
        bench.instance(&format!("many-{i:02}"), &address, "many", 8000);
    }
    bench
}

#[test]
fn plain_udp_gets_three_at_random() {
    let mut bench = many(12, config());
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let read = bench.ask("many.service.consul", rtype::A);
        assert_eq!((read.answer.len(), read.head.as_str()), (3, "NOERROR qr aa rd"));
        seen.extend(read.answer);
    }
    assert_eq!(seen.len(), 12, "every instance is told in a hundred questions");
}

#[test]
fn srv_answers_keep_their_own_addresses() {
    let mut bench = many(12, config());
    for _ in 0..20 {
        for read in
            [bench.ask("many.service.consul", rtype::SRV), bench.ask_tcp("many.service.consul", rtype::SRV)]
        {
            let targets: Vec<&str> = read.answer.iter().filter_map(|line| line.rsplit(' ').next()).collect();
            let owners: Vec<&str> =
                read.additional.iter().filter_map(|line| line.split(' ').next()).collect();
            assert_eq!(targets, owners);
        }
    }
}

#[test]
fn edns_and_tcp_get_all_that_fits() {
    let mut bench = many(60, config());
    assert_eq!(bench.ask_edns("many.service.consul", rtype::A, 512).answer.len(), 3);
    assert_eq!(bench.ask_edns("many.service.consul", rtype::A, 513).answer.len(), 29);
    let all = bench.ask_edns("many.service.consul", rtype::A, 1232);
    assert_eq!((all.answer.len(), all.edns), (60, Some(1232)));
    assert_eq!(bench.ask_edns("many.service.consul", rtype::SRV, 4096).additional.len(), 60);
    assert_eq!(bench.ask_tcp("many.service.consul", rtype::A).answer.len(), 60);
    let shown: BTreeSet<String> = all.answer.into_iter().collect();
    assert_eq!(shown.len(), 60, "shuffling loses none and doubles none");
}

#[test]
fn limits_and_marks_are_those_of_the_configuration() {
    let mut bench =
        many(6, DnsConfig { enable_truncate: true, udp_answer_limit: 2, a_record_limit: 4, ..config() });
    let read = bench.ask("many.service.consul", rtype::A);
    assert_eq!((read.answer.len(), read.head.as_str()), (2, "NOERROR qr aa tc rd"));
    let read = bench.ask_tcp("many.service.consul", rtype::A);
    assert_eq!((read.answer.len(), read.head.as_str()), (4, "NOERROR qr aa rd"));
    let mut wide = many(20, DnsConfig { udp_answer_limit: 50, ..config() });
    assert_eq!(wide.ask("many.service.consul", rtype::A).answer.len(), 8);
}

#[test]
fn without_compression_names_are_written_out() {
    let mut plain = many(5, DnsConfig { disable_compression: true, udp_answer_limit: 8, ..config() });
    let read = plain.ask("many.service.consul", rtype::SRV);
    assert_eq!((read.answer.len(), read.additional.len()), (4, 4));
    assert!(!read.bytes[12..].contains(&0xc0));
    let mut compressed = many(5, DnsConfig { udp_answer_limit: 8, ..config() });
    assert_eq!(compressed.ask("many.service.consul", rtype::SRV).answer.len(), 5);
}

#[test]
fn tcp_holds_what_no_pointer_reaches() {
    let mut bench = many(1200, config());
    let read = bench.ask_tcp("many.service.consul", rtype::SRV);
    assert!(read.answer.len() > 500, "{} answers", read.answer.len());
    assert_eq!(read.answer.len(), read.additional.len());
    assert!(read.bytes.len() <= 65_523);
    let targets: BTreeSet<&str> = read.answer.iter().filter_map(|line| line.rsplit(' ').next()).collect();
    assert!(read.additional.iter().all(|line| targets.contains(line.split(' ').next().expect("an owner"))));
}

#[test]
fn one_large_answer_never_exceeds_what_the_client_takes() {
    let mut bench = Bench::new(config());
    let mut wordy = instance("wordy", "10.0.0.1", "w", 1);
    wordy.node.meta = Some((0..8).map(|i| (format!("key-{i}"), "v".repeat(300))).collect());
    bench.register(wordy);
    let read = bench.ask("wordy.node.consul", rtype::A);
    assert!(read.bytes.len() <= 512 && read.answer.len() == 1);
    let read = bench.ask("wordy.node.consul", rtype::TXT);
    assert!(read.bytes.len() <= 512 && read.answer.len() == 1);
    let read = bench.ask_tcp("wordy.node.consul", rtype::TXT);
    assert_eq!(read.answer.len(), 8);
    assert!(read.answer[0].contains(&"v".repeat(300)));
}

#[test]
fn malformed_packets_get_an_error_or_nothing() {
    let mut bench = many(1, config());
    let send =
        |bench: &mut Bench, bytes: &[u8]| bench.send(bytes, false).map(|reply| (reply[3] & 0xf, reply.len()));
    let query = packet("many.service.consul", rtype::A, None);
    assert_eq!(send(&mut bench, &[]), None);
    assert_eq!(send(&mut bench, &query[..11]), None);
    assert_eq!(send(&mut bench, &query[..20]), Some((1, 12)));
    let with = |at: usize, value: u8| {
        let mut bytes = query.clone();
        bytes[at] = value;
        bytes
    };
    assert_eq!(send(&mut bench, &with(2, 0x81)), None, "a response");
    assert_eq!(send(&mut bench, &with(2, 0x29)), Some((4, 12)), "an update");
    assert_eq!(send(&mut bench, &with(5, 2)), Some((1, 12)), "two questions");
    assert_eq!(send(&mut bench, &with(12, 0xc0)), Some((1, 12)), "a pointer");
    let mut edns = packet("many.service.consul", rtype::A, Some(1232));
    edns.truncate(edns.len() - 3);
    assert_eq!(send(&mut bench, &edns), Some((1, query.len())), "half an OPT record");
}

proptest! {
    /// Whatever comes in, a reply is a reply to it, within its size.
    #[test]
    fn arbitrary_packets_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), tcp: bool) {
        let mut bench = many(3, config());
        if let Some(reply) = bench.send(&bytes, tcp) {
            prop_assert_eq!(&reply[..2], &bytes[..2]);
            prop_assert!(reply[2] & 0x80 != 0);
        }
    }

    /// A well-formed question with flipped bytes.
    #[test]
    fn damaged_queries_never_panic(at in 0usize..48, value: u8, size: u16) {
        let mut bench = many(3, config());
        let mut bytes = packet("many.service.consul", rtype::SRV, Some(size));
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = bench.send(&bytes, false);
    }

    /// Every reply reads back and is no larger than its client takes.
    #[test]
    fn replies_read_back_within_their_size(
        count in 1usize..80,
        size in proptest::option::of(0u16..5000),
        limit in 0usize..10,
        srv: bool,
        compressed: bool,
    ) {
        let mut bench =
            many(count, DnsConfig { udp_answer_limit: limit, disable_compression: !compressed, ..config() });
        let qtype = if srv { rtype::SRV } else { rtype::A };
        let reply = bench.send(&packet("many.service.consul", qtype, size), false).expect("a reply");
        prop_assert!(reply.len() <= usize::from(size.unwrap_or(0)).max(512));
        let read = read(reply);
        let distinct: BTreeSet<&String> = read.answer.iter().collect();
        prop_assert_eq!(distinct.len(), read.answer.len());
        prop_assert!(read.answer.len() <= count);
        prop_assert_eq!(read.edns, size);
    }
}
