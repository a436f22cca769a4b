//! Archives: round trips, Consul's texts for every damage, no panic whatever the bytes.

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use rkyv::rancor;
use sha2::{Digest, Sha256};
use std::io::Write;

use super::*;
use crate::store::command::{ArchivedCommand, Command, KvOp};
use crate::store::model::KvEntry;
use crate::store::{Section, State, StateBuilder, Touched};

fn filled(keys: usize) -> State {
    let mut state = State::new();
    for number in 0..keys {
        let key = format!("key/{number}").into_bytes();
        let command = Command::Kv(KvOp::Set(KvEntry { key, value: vec![7; 64], ..KvEntry::default() }));
        let bytes = rkyv::to_bytes::<rancor::Error>(&command).unwrap();
        let archived = rkyv::access::<ArchivedCommand, rancor::Error>(&bytes).unwrap();
        state.apply(state.log_index() + 1, archived, &mut Touched::new());
    }
    state
}

fn written(state: &State) -> Vec<u8> {
    let server = Server { suffrage: 0, id: "id".into(), address: "10.0.0.1:8300".into() };
    let facts = Facts { term: 3, servers: vec![server], configuration_index: 1, unix_ms: 1_600_000_000_123 };
    let mut writer = Writer::new(state, facts);
    std::iter::from_fn(|| writer.next_piece()).flatten().collect()
}

/// An archive of files, as another program might pack it.
fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    for (name, bytes) in files {
        let length = bytes.len() as u64;
        for part in [&super::tar::header(name, length, 0)[..], bytes, super::tar::padding(length)] {
            out.write_all(part).unwrap();
        }
    }
    out.write_all(&super::tar::END).unwrap();
    out.finish().unwrap()
}

fn refused(bytes: &[u8]) -> String {
    read(bytes, &mut |_| Ok(())).expect_err("it is damaged").to_string()
}

/// The three files of a good archive.
fn files() -> [Vec<u8>; 3] {
    let meta = b"{\"Version\":1,\"ID\":\"2-5-1\",\"Index\":5,\"Term\":2,\"Size\":3}\n".to_vec();
    let state = b"abc".to_vec();
    let sums = [(META, Sha256::digest(&meta).into()), (STATE, Sha256::digest(&state).into())];
    let sums = super::sums::encode(&sums);
    [meta, state, sums]
}

#[test]
fn a_state_survives_its_archive() {
    for keys in [0, 1, 40_000] {
        let state = filled(keys);
        let mut builder = StateBuilder::new();
        let contents = read(&written(&state)[..], &mut |Section { kind, version, bytes }| {
            builder.section(kind, version, &bytes).map_err(|why| why.to_string())
        });
        let contents = contents.unwrap();
        assert_eq!(builder.finish().unwrap().fingerprint(), state.fingerprint());
        assert_eq!(
            (contents.origin, contents.meta.index, contents.meta.term),
            (Origin::Muster, keys as u64, 3)
        );
        assert_eq!(contents.meta.id, format!("3-{keys}-1600000000123"));
        assert_eq!(contents.sections, state.sections().count() as u64);
    }
}

#[test]
fn damage_is_told_in_consul_s_words() {
    let [meta, state, sums] = files();
    let good = [(META, &meta[..]), (STATE, &state[..]), (SUMS, &sums[..])];
    let whole = packed(&good);
    assert_eq!(read(&whole[..], &mut |_| Ok(())).map(|it| it.origin), Ok(Origin::Consul));
    assert_eq!(refused(b""), "failed to decompress snapshot: EOF");
    assert_eq!(refused(&[0x1f, 0x8b]), "failed to decompress snapshot: unexpected EOF");
    assert_eq!(refused(b"not a snapshot"), "failed to decompress snapshot: gzip: invalid header");
    let text = |files: &[(&str, &[u8])]| {
        let text = refused(&packed(files));
        text.strip_prefix("failed to read snapshot file: ").map(str::to_owned).unwrap_or(text)
    };
    let broken = "failed checking integrity of snapshot: ";
    assert_eq!(
        text(&[good[0], (STATE, b"abd"), good[2]]),
        format!("{broken}hash check failed for \"state.bin\"")
    );
    assert_eq!(text(&[good[0], good[2]]), format!("{broken}hash check failed for \"state.bin\""));
    let other = [&meta[..], b"\n"].concat();
    assert_eq!(
        text(&[(META, &other), good[1], good[2]]),
        format!("{broken}hash check failed for \"meta.json\"")
    );
    assert_eq!(text(&good[..2]), format!("{broken}file missing for \"meta.json\""));
    assert_eq!(text(&[good[0], good[1], good[2], ("x.txt", b"")]), "unexpected file \"x.txt\" in snapshot");
    assert_eq!(
        text(&[(META, b"{nope"), good[1], good[2]]),
        "failed to decode snapshot metadata: invalid character 'n' looking for beginning of object key string"
    );
    let list = |extra: &str| [&sums[..], extra.as_bytes()].concat();
    let more = list(&format!("{}  x.txt\n", "00".repeat(32)));
    assert_eq!(text(&[good[0], good[1], (SUMS, &more)]), format!("{broken}list missing hash for \"x.txt\""));
    assert_eq!(
        text(&[good[0], good[1], (SUMS, &list("hello\n"))]),
        format!("{broken}no hex data for %x string")
    );
    assert_eq!(text(&[good[0], good[1], (SUMS, &list("\n"))]), format!("{broken}EOF"));
    assert_eq!(refused(&whole[..whole.len() - 4]), "unexpected EOF");
    let mut sum = whole.clone();
    let at = sum.len() - 8;
    sum[at] ^= 1;
    assert_eq!(refused(&sum), "gzip: invalid checksum");
    let mut tail = GzEncoder::new(Vec::new(), Compression::fast());
    tail.write_all(b"garbage").unwrap();
    assert_eq!(refused(&[whole, tail.finish().unwrap()].concat()), "7 unread uncompressed bytes remain");
    let mut no_tar = GzEncoder::new(Vec::new(), Compression::fast());
    no_tar.write_all(&b"hello world".repeat(100)).unwrap();
    assert_eq!(
        refused(&no_tar.finish().unwrap()),
        "failed to read snapshot file: failed reading snapshot: archive/tar: invalid tar header"
    );
}

#[test]
fn cut_and_flipped_archives_are_refused() {
    let state = filled(100);
    let (whole, fingerprint) = (written(&state), state.fingerprint());
    for length in 0..whole.len() {
        assert!(read(&whole[..length], &mut |_| Ok(())).is_err(), "cut at {length}");
    }
    // Byte 3 to 9 are gzip's own: time, system, nothing that anybody reads.
    for at in (0..3).chain(10..whole.len()) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let mut builder = StateBuilder::new();
        let taken = read(&bytes[..], &mut |it| {
            builder.section(it.kind, it.version, &it.bytes).map_err(|why| why.to_string())
        });
        // A bit of the code table that no byte uses may differ, and nothing else.
        let same = |state: State| state.fingerprint() == fingerprint;
        assert!(taken.is_err() || builder.finish().is_ok_and(same), "flipped at {at}");
    }
}

#[test]
fn a_well_hashed_file_of_nonsense_is_refused_too() {
    let mut state = super::state::file_header().to_vec();
    state.extend([1; 16]);
    let [meta, ..] = files();
    let sums = [(META, Sha256::digest(&meta).into()), (STATE, Sha256::digest(&state).into())];
    let text = refused(&packed(&[(META, &meta), (STATE, &state), (SUMS, &super::sums::encode(&sums))]));
    assert!(text.ends_with("state.bin: a section is longer than any can be"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_panic(junk in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut builder = StateBuilder::new();
        let mut visit = |it: Section| builder.section(it.kind, it.version, &it.bytes).map_err(|why| why.to_string());
        prop_assert!(read(&junk[..], &mut visit).is_err());
        let state = [&super::state::file_header()[..], &junk].concat();
        prop_assert!(read(&packed(&[(META, &junk), (STATE, &state)])[..], &mut visit).is_err());
    }
}
