//! Two sides that are wired together: what one writes the other reads, whatever is done in between.

use proptest::prelude::*;

use super::limits::STREAM_WINDOW;
use super::*;

/// Both sides of a connection, and what each was told.
struct Pair {
    sides: [Mux; 2],
    events: [Vec<MuxEvent>; 2],
}

const AGENT: usize = 0;
const SERVER: usize = 1;

impl Pair {
    fn new() -> Pair {
        Pair { sides: [Mux::new(Side::Agent), Mux::new(Side::Server)], events: Default::default() }
    }

    /// Carries at most so many bytes from one side to the other.
    fn carry(&mut self, from: usize, most: usize) {
        let bytes = self.sides[from].output();
        let bytes = bytes[..bytes.len().min(most)].to_vec();
        self.sides[from].sent(bytes.len(), &mut self.events[from]);
        self.sides[1 - from].receive(&bytes, &mut self.events[1 - from]).expect("our own frames");
    }

    /// Carries until both have nothing to say.
    fn settle(&mut self) {
        while self.sides.iter().any(|side| !side.output().is_empty()) {
            self.carry(AGENT, usize::MAX);
            self.carry(SERVER, usize::MAX);
        }
    }

    fn open(&mut self) -> u32 {
        self.sides[AGENT].open(b"", false).expect("room").0
    }

    fn told(&mut self, side: usize) -> Vec<MuxEvent> {
        std::mem::take(&mut self.events[side])
    }
}

fn read_all(mux: &mut Mux, id: u32) -> (Vec<u8>, Input) {
    let mut all = Vec::new();
    let mut buffer = [0; 1000];
    loop {
        match mux.read(id, &mut buffer) {
            Input::Read(length) => all.extend_from_slice(&buffer[..length]),
            last => return (all, last),
        }
    }
}

#[test]
fn a_request_and_its_answer() {
    let mut pair = Pair::new();
    let (id, taken) = pair.sides[AGENT].open(b"ask", true).expect("room");
    assert_eq!(taken, 3);
    pair.settle();
    assert_eq!(pair.told(SERVER), [MuxEvent::Opened(id), MuxEvent::Input(id)]);
    assert_eq!(read_all(&mut pair.sides[SERVER], id), (b"ask".to_vec(), Input::End));
    pair.sides[SERVER].write(id, b"answer", true);
    pair.sides[SERVER].close(id, ResetReason::Cancelled);
    pair.settle();
    assert_eq!(pair.told(AGENT), [MuxEvent::Input(id)]);
    assert_eq!(read_all(&mut pair.sides[AGENT], id), (b"answer".to_vec(), Input::End));
    pair.sides[AGENT].close(id, ResetReason::Cancelled);
    assert!(pair.sides.iter().all(|side| side.output().is_empty()), "both had ended it");
    assert_eq!(pair.sides[AGENT].streams() + pair.sides[SERVER].streams(), 0);
}

#[test]
fn a_stream_that_nobody_reads_takes_one_window_and_holds_up_no_other() {
    let mut pair = Pair::new();
    let (slow, fast) = (pair.open(), pair.open());
    let long = vec![7; 3 * STREAM_WINDOW as usize];
    let mut sent = 0;
    for _ in 0..10 {
        sent += pair.sides[AGENT].write(slow, &long[sent..], true);
        pair.settle();
    }
    assert_eq!(sent, STREAM_WINDOW as usize);
    assert_eq!(pair.sides[AGENT].write(fast, b"x", true), 1);
    pair.settle();
    assert_eq!(read_all(&mut pair.sides[SERVER], fast), (b"x".to_vec(), Input::End));
    pair.told(AGENT);
    // Reading gives credit, and tells the writer.
    let (read, last) = read_all(&mut pair.sides[SERVER], slow);
    assert_eq!((read.len(), last), (STREAM_WINDOW as usize, Input::Empty));
    pair.settle();
    assert_eq!(pair.told(AGENT), [MuxEvent::Room(slow)]);
}

#[test]
fn a_connection_that_takes_nothing_holds_a_bounded_amount_and_tells_when_it_goes_on() {
    let mut pair = Pair::new();
    let ids: Vec<u32> = (0..8).map(|_| pair.open()).collect();
    let body = vec![1; STREAM_WINDOW as usize];
    let taken: Vec<usize> = ids.iter().map(|id| pair.sides[AGENT].write(*id, &body, true)).collect();
    assert!(taken.iter().sum::<usize>() <= OUTPUT_MAX);
    assert!(pair.sides[AGENT].output().len() < OUTPUT_MAX + 2 * DATA_LENGTH_MAX);
    pair.carry(AGENT, OUTPUT_MAX);
    let room: Vec<_> = pair.told(AGENT);
    assert!(room.len() >= 7 && room.iter().all(|event| matches!(event, MuxEvent::Room(_))), "{room:?}");
}

#[test]
fn what_is_given_up_is_told_once_and_what_was_under_way_is_dropped() {
    let mut pair = Pair::new();
    let (id, _) = pair.sides[AGENT].open(b"ask", false).expect("room");
    pair.settle();
    pair.told(SERVER);
    pair.sides[AGENT].close(id, ResetReason::Cancelled);
    pair.sides[SERVER].write(id, b"late", true);
    pair.settle();
    assert_eq!(pair.told(SERVER), [MuxEvent::Reset(id, ResetReason::Cancelled)]);
    assert_eq!(pair.told(AGENT), []);
    assert_eq!(read_all(&mut pair.sides[SERVER], id).1, Input::Reset);
    assert_eq!(pair.sides[SERVER].write(id, b"later", true), 5, "it takes everything and sends nothing");
    pair.sides[SERVER].close(id, ResetReason::Broken);
    assert!(pair.sides[SERVER].output().is_empty());
}

/// A question that waits for its answer, as blocking ones do for minutes.
#[test]
fn whole_questions_are_given_up_too() {
    let mut pair = Pair::new();
    let (id, _) = pair.sides[AGENT].open(b"ask", true).expect("room");
    pair.settle();
    pair.told(SERVER);
    pair.sides[AGENT].close(id, ResetReason::Cancelled);
    pair.settle();
    assert_eq!(pair.told(SERVER), [MuxEvent::Reset(id, ResetReason::Cancelled)]);
    pair.sides[SERVER].close(id, ResetReason::Broken);
    assert_eq!(pair.sides[AGENT].streams() + pair.sides[SERVER].streams(), 0);
}

#[test]
fn a_slow_reader_does_not_keep_what_it_has_read() {
    let mut pair = Pair::new();
    let id = pair.open();
    let mut buffer = vec![0; 48 * 1024];
    for _ in 0..200 {
        pair.sides[AGENT].write(id, &[7; 64 * 1024], false);
        pair.settle();
        assert!(matches!(pair.sides[SERVER].read(id, &mut buffer), Input::Read(_)));
        let held = pair.sides[SERVER].streams[&id].held();
        assert!(held <= 2 * STREAM_WINDOW as usize, "{held} bytes");
    }
}

#[test]
fn an_answer_given_before_the_whole_question_stays() {
    let mut pair = Pair::new();
    let (id, _) = pair.sides[AGENT].open(b"a long", false).expect("room");
    pair.settle();
    pair.sides[SERVER].write(id, b"too long", true);
    pair.sides[SERVER].close(id, ResetReason::Cancelled);
    pair.settle();
    assert_eq!(pair.sides[AGENT].write(id, b" story", true), 6, "it goes nowhere");
    assert_eq!(read_all(&mut pair.sides[AGENT], id), (b"too long".to_vec(), Input::End));
    pair.sides[AGENT].close(id, ResetReason::Cancelled);
    assert!(pair.sides[AGENT].output().is_empty());
}

#[test]
fn past_the_limits_streams_are_refused_and_the_connection_lives() {
    let mut pair = Pair::new();
    let ids: Vec<u32> = (0..STREAMS_MAX).map(|_| pair.open()).collect();
    assert_eq!(pair.sides[AGENT].open(b"", true), None);
    let mut last = Vec::new();
    for (number, id) in ids.iter().enumerate() {
        let body: &[u8] = if number % 100 == 0 { &[0; STREAM_WINDOW as usize] } else { b"x" };
        pair.sides[AGENT].write(*id, body, false);
        pair.settle();
        last = pair.told(SERVER);
    }
    assert!(pair.sides[SERVER].unread <= INPUT_MAX + STREAMS_MAX, "a byte of each that is spared");
    let is_reset = |event: &MuxEvent| matches!(event, MuxEvent::Reset(_, ResetReason::TooBusy));
    let reset: Vec<_> = pair.told(AGENT).into_iter().filter(is_reset).collect();
    let long = |id: &u32| (id - ids[0]).is_multiple_of(100);
    assert!(!reset.is_empty());
    assert!(
        reset.iter().all(|event| matches!(event, MuxEvent::Reset(id, _) if long(id))),
        "short ones stay: {reset:?}"
    );
    assert!(!last.is_empty());
}

#[test]
fn stuck_readers_of_an_agent_cost_no_other_stream_and_what_they_lose_is_broken_off() {
    let mut pair = Pair::new();
    let ids: Vec<u32> = (0..=INPUT_MAX / STREAM_WINDOW as usize).map(|_| pair.open()).collect();
    let short = pair.open();
    pair.settle();
    for id in &ids {
        pair.sides[SERVER].write(*id, &[0; STREAM_WINDOW as usize], true);
        pair.settle();
    }
    let told = pair.told(AGENT);
    let resets: Vec<_> = told.iter().filter(|event| matches!(event, MuxEvent::Reset(..))).collect();
    assert_eq!(resets, [&MuxEvent::Reset(ids[ids.len() - 1], ResetReason::Broken)]);
    // What is full stays full, and a short answer is heard.
    let (fill, _) = pair.sides[AGENT].open(b"", true).expect("room");
    pair.settle();
    pair.sides[SERVER].write(fill, &[0; INPUT_SPARED], true);
    pair.sides[SERVER].write(short, b"answer", true);
    pair.settle();
    assert!(pair.sides[AGENT].unread > INPUT_MAX);
    assert_eq!(read_all(&mut pair.sides[AGENT], short), (b"answer".to_vec(), Input::End));
    assert_eq!(read_all(&mut pair.sides[AGENT], fill).0.len(), INPUT_SPARED);
}

#[test]
fn whoever_leaves_takes_no_new_streams_and_ends_those_it_has() {
    let mut pair = Pair::new();
    let (old, _) = pair.sides[AGENT].open(b"a", true).expect("room");
    pair.settle();
    pair.sides[SERVER].go_away(Departure::Leaving);
    pair.sides[SERVER].write(old, b"b", true);
    let (new, _) = pair.sides[AGENT].open(b"c", true).expect("room");
    pair.settle();
    assert_eq!(
        pair.told(AGENT),
        [
            MuxEvent::GoAway(Departure::Leaving),
            MuxEvent::Input(old),
            MuxEvent::Reset(new, ResetReason::Leaving)
        ]
    );
}

#[test]
fn when_the_numbers_are_used_up_it_says_so() {
    let mut pair = Pair::new();
    pair.sides[AGENT].next = u32::MAX - 1;
    assert!(!pair.sides[AGENT].is_used_up());
    let last = pair.open();
    pair.settle();
    assert_eq!(pair.told(SERVER), [MuxEvent::Opened(last), MuxEvent::Input(last)]);
    assert_eq!(pair.sides[AGENT].open(b"", true), None);
    assert!(pair.sides[AGENT].is_used_up());
}

#[test]
fn signs_of_life_do_not_pile_up() {
    let mut server = Mux::new(Side::Server);
    let mut pings = Vec::new();
    (0..1000).for_each(|token| MuxFrame::Ping(token).encode(&mut pings));
    let mut events = Vec::new();
    server.receive(&pings, &mut events).expect("sound");
    let mut agent = Mux::new(Side::Agent);
    agent.receive(server.output(), &mut events).expect("sound");
    assert_eq!(events, [MuxEvent::Pong(999)]);
}

#[test]
fn what_no_agent_and_no_server_says_ends_the_connection() {
    let bad = |side: Side, frames: &[MuxFrame<'_>]| {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        Mux::new(side).receive(&bytes, &mut Vec::new()).expect_err("refused")
    };
    let data = |stream, first| MuxFrame::Data { stream, first, end: false, bytes: b"x" };
    let end = MuxFrame::Data { stream: 1, first: false, end: true, bytes: b"" };
    bad(Side::Agent, &[data(1, true)]);
    bad(Side::Server, &[data(1, false)]);
    bad(Side::Server, &[data(0, true)]);
    bad(Side::Server, &[data(2, true), data(1, true)]);
    bad(Side::Server, &[data(u32::MAX, true)]);
    bad(Side::Server, &[data(1, true), end, end]);
    bad(Side::Server, &[data(1, true), MuxFrame::Window { stream: 1, credit: 1 }]);
    let full = [0; DATA_LENGTH_MAX];
    let flood = |first| MuxFrame::Data { stream: 1, first, end: false, bytes: &full };
    let mut frames = vec![flood(true)];
    frames.extend((0..STREAM_WINDOW as usize / DATA_LENGTH_MAX).map(|_| flood(false)));
    bad(Side::Server, &frames);
}

#[test]
fn a_peer_that_causes_answers_and_reads_none_is_cut_off() {
    let mut server = Mux::new(Side::Server);
    server.go_away(Departure::Leaving);
    let mut id = 0;
    let refused = (0..100_000).find_map(|_| {
        id += 1;
        let mut bytes = Vec::new();
        MuxFrame::Data { stream: id, first: true, end: true, bytes: b"" }.encode(&mut bytes);
        server.receive(&bytes, &mut Vec::new()).err()
    });
    assert!(refused.is_some());
}

/// What one side does next.
#[derive(Clone, Debug)]
enum Deed {
    Open,
    Write { side: usize, stream: usize, length: usize },
    End { side: usize, stream: usize },
    Read { side: usize, stream: usize, most: usize },
    Carry { from: usize, most: usize },
}

fn deed() -> impl Strategy<Value = Deed> {
    let place = || (0..2usize, 0..6usize);
    prop_oneof![
        1 => Just(Deed::Open),
        4 => (place(), 0..200_000usize).prop_map(|((side, stream), length)| Deed::Write { side, stream, length }),
        1 => place().prop_map(|(side, stream)| Deed::End { side, stream }),
        3 => (place(), 1..100_000usize).prop_map(|((side, stream), most)| Deed::Read { side, stream, most }),
        4 => (0..2usize, 1..100_000usize).prop_map(|(from, most)| Deed::Carry { from, most }),
    ]
}

/// The bytes of one direction of a stream: each says where it stands.
#[derive(Default)]
struct Direction {
    written: usize,
    read: usize,
    ended: bool,
}

fn octet(at: usize) -> u8 {
    (at % 251) as u8
}

proptest! {
    #[test]
    fn every_byte_arrives_once_and_in_order(deeds in prop::collection::vec(deed(), 0..200)) {
        let mut pair = Pair::new();
        let mut streams: Vec<(u32, [Direction; 2])> = Vec::new();
        let known = |pair: &Pair, id: u32| pair.sides[SERVER].streams.contains_key(&id);
        for deed in deeds {
            match deed {
                Deed::Open => streams.push((pair.open(), Default::default())),
                Deed::Write { side, stream, length } => {
                    let Some((id, ways)) = streams.get_mut(stream) else { continue };
                    if ways[side].ended || (side == SERVER && !known(&pair, *id)) { continue }
                    let at = ways[side].written;
                    let bytes: Vec<u8> = (at..at + length).map(octet).collect();
                    ways[side].written += pair.sides[side].write(*id, &bytes, false);
                }
                Deed::End { side, stream } => {
                    let Some((id, ways)) = streams.get_mut(stream) else { continue };
                    if side == SERVER && !known(&pair, *id) { continue }
                    pair.sides[side].end(*id);
                    ways[side].ended = true;
                }
                Deed::Read { side, stream, most } => {
                    let Some((id, ways)) = streams.get_mut(stream) else { continue };
                    let mut buffer = vec![0; most];
                    if let Input::Read(length) = pair.sides[side].read(*id, &mut buffer) {
                        let way = &mut ways[1 - side];
                        prop_assert!(buffer[..length].iter().enumerate().all(|(n, byte)| *byte == octet(way.read + n)));
                        way.read += length;
                    }
                }
                Deed::Carry { from, most } => pair.carry(from, most),
            }
            for side in &pair.sides {
                let held: usize = side.streams.values().map(Stream::unread).sum();
                prop_assert_eq!(held, side.unread);
                prop_assert!(side.output().len() <= OUTPUT_MAX + CONTROL_MAX);
            }
        }
        // In the end all of it is there.
        for _ in 0..20 {
            pair.settle();
            for (id, ways) in &mut streams {
                for side in [AGENT, SERVER] {
                    let (bytes, last) = read_all(&mut pair.sides[side], *id);
                    let way = &mut ways[1 - side];
                    prop_assert!(bytes.iter().enumerate().all(|(n, byte)| *byte == octet(way.read + n)));
                    way.read += bytes.len();
                    let begun = pair.sides[side].streams.contains_key(id);
                    let expected = if way.ended { Input::End } else { Input::Empty };
                    prop_assert!(!begun || last == expected);
                }
            }
        }
        for (_, ways) in &streams {
            prop_assert!(ways.iter().all(|way| way.read == way.written));
        }
    }

    #[test]
    fn any_bytes_are_taken_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..400), piece in 1usize..50) {
        for side in [Side::Agent, Side::Server] {
            let mut mux = Mux::new(side);
            let mut events = Vec::new();
            let _ = bytes.chunks(piece).try_for_each(|piece| mux.receive(piece, &mut events));
        }
    }

    #[test]
    fn frames_mean_the_same_behind_every_cutting(piece in 1usize..5000, lengths in prop::collection::vec(0usize..70_000, 1..6)) {
        let mut pair = Pair::new();
        let id = pair.open();
        let body: Vec<u8> = (0..lengths.iter().sum()).map(octet).collect();
        let (mut sent, mut read) = (0, Vec::new());
        while read.len() < body.len() {
            sent += pair.sides[AGENT].write(id, &body[sent..], false);
            pair.carry(AGENT, piece);
            pair.carry(SERVER, piece);
            read.extend(read_all(&mut pair.sides[SERVER], id).0);
        }
        prop_assert_eq!(read, body);
    }
}
