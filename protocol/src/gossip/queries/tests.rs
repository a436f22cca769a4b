//! Queries between two or three members, without a network.

use proptest::prelude::*;

use super::*;

const START: Now = Now::ZERO;
const INTERVAL: Duration = Duration::from_millis(200);

fn queries(name: &str) -> Queries {
    Queries::new(name.into())
}

/// The identity of the query and the body that is spread; what else the asker is to do is in the list.
fn ask(queries: &mut Queries, draft: Draft) -> (QueryId, Bytes, Vec<Outcome>) {
    let mut out = Vec::new();
    let id = queries.ask(START, draft, 3, INTERVAL, &mut Random::new(1), &mut out).expect("it is short");
    let Outcome::Spread(body) = out.remove(0) else { panic!("{out:?}") };
    (id, body, out)
}

fn draft() -> Draft {
    Draft { name: "load".into(), payload: Bytes::from_static(b"?"), ..Draft::default() }
}

fn receive(queries: &mut Queries, body: &[u8]) -> Vec<Outcome> {
    let mut out = Vec::new();
    queries.receive(START, body, &mut out).expect("well-formed");
    out
}

fn respond(queries: &mut Queries, id: QueryId, payload: &[u8]) -> Vec<Outcome> {
    let mut out = Vec::new();
    queries.respond(START, id, payload, &mut out).expect("it is wanted");
    out
}

fn hear(queries: &mut Queries, at: Now, body: &[u8]) -> Vec<Outcome> {
    let mut out = Vec::new();
    queries.on_reply(at, body, &mut out).expect("well-formed");
    out
}

fn answer(outcome: &Outcome) -> (&str, &Bytes) {
    let Outcome::Answer { to, body } = outcome else { panic!("{outcome:?}") };
    (to, body)
}

#[test]
fn a_query_is_answered_once_by_each() {
    let (mut one, mut other) = (queries("one"), queries("other"));
    let (id, body, own) = ask(&mut one, draft());
    assert!(matches!(&own[..], [Outcome::Deliver(query)] if query.id == id), "the asker is asked, too");

    let delivered = receive(&mut other, &body);
    let [Outcome::Spread(again), Outcome::Deliver(query)] = &delivered[..] else { panic!("{delivered:?}") };
    assert_eq!((again, &*query.asker, &query.payload[..]), (&body, "one", &b"?"[..]));
    assert_eq!(receive(&mut other, &body), [], "it is heard once");
    assert_eq!(other.time(), Time(2));

    let answers = respond(&mut other, id, b"0.7");
    let (to, reply) = answer(&answers[0]);
    assert_eq!((to, answers.len()), ("one", 1));
    assert_eq!(other.respond(START, id, b"0.8", &mut Vec::new()), Err(QueryError::Over));
    let replied = Outcome::Replied { id, from: "other".into(), payload: Bytes::from_static(b"0.7") };
    assert_eq!(hear(&mut one, START, reply), [replied]);
    assert_eq!(hear(&mut one, START, reply), [], "a duplicate tells nothing");

    let deadline = one.next_deadline().expect("it is open");
    assert_eq!(deadline.as_millis(), 3200, "16 times the gossip interval, for up to 9 members");
    let mut out = Vec::new();
    one.tick(deadline, &mut out);
    assert_eq!(out, [Outcome::Closed { id }]);
    assert_eq!(one.next_deadline(), None);
    assert_eq!(hear(&mut one, deadline, reply), []);
}

#[test]
fn what_is_late_is_not_sent_and_not_taken() {
    let (mut one, mut other) = (queries("one"), queries("other"));
    let timeout = Some(Duration::from_secs(1));
    let (id, body, _) = ask(&mut one, Draft { timeout, ..draft() });
    receive(&mut other, &body);
    let late = Duration::from_millis(1001);
    assert_eq!(other.respond(late, id, b"", &mut Vec::new()), Err(QueryError::Over));
    let answers = respond(&mut other, id, b"");
    assert_eq!(hear(&mut one, late, answer(&answers[0]).1), []);
}

#[test]
fn timeouts_are_those_of_serf() {
    let seconds = |members| default_timeout(members, INTERVAL).as_secs_f64();
    assert_eq!([1, 9, 10, 99, 100, 1000].map(seconds), [3.2, 3.2, 6.4, 6.4, 9.6, 12.8]);
}

#[test]
fn names_are_filtered_here_and_tags_by_the_driver() {
    let (mut one, mut other) = (queries("one"), queries("other"));
    let nodes = vec!["third".to_owned()];
    let filters = Filters { nodes, tags: Vec::new() };
    let (_, body, own) = ask(&mut one, Draft { filters, ack: true, ..draft() });
    assert_eq!(own, []);
    assert_eq!(receive(&mut other, &body), [Outcome::Spread(body)], "others are told all the same");

    let tags = vec![("role".to_owned(), "^web".to_owned())];
    let filters = Filters { nodes: vec!["other".into()], tags };
    let (id, body, _) = ask(&mut one, Draft { filters: filters.clone(), ack: true, ..draft() });
    let delivered = receive(&mut other, &body);
    let [_, Outcome::Deliver(query)] = &delivered[..] else { panic!("no ack yet: {delivered:?}") };
    assert_eq!(query.filters, filters);
    let mut out = Vec::new();
    other.matches(id, &mut out);
    other.matches(id, &mut out);
    assert_eq!(out.len(), 1, "one ack");
    let acked = Outcome::Acked { id, from: "other".into() };
    assert_eq!(hear(&mut one, START, answer(&out[0]).1), [acked]);
}

#[test]
fn acks_and_answers_go_through_others_too() {
    let (mut one, mut other, third) = (queries("one"), queries("other"), queries("third"));
    let (id, body, _) = ask(&mut one, Draft { ack: true, relays: 9, ..draft() });
    let delivered = receive(&mut other, &body);
    let [_, Outcome::Relay { count, asker, body }, Outcome::Answer { .. }, Outcome::Deliver(_)] =
        &delivered[..]
    else {
        panic!("{delivered:?}")
    };
    assert_eq!((*count, &**asker), (RELAYS_MAX, "one"));
    let mut relayed = Vec::new();
    third.on_relay(body, &mut relayed).expect("well-formed");
    assert_eq!(answer(&relayed[0]).0, "one");
    assert_eq!(hear(&mut one, START, answer(&relayed[0]).1), [Outcome::Acked { id, from: "other".into() }]);

    let longest = vec![b'x'; other.answer_room()];
    let answers = respond(&mut other, id, &longest);
    let Outcome::Relay { body, .. } = &answers[0] else { panic!("{answers:?}") };
    assert!(body.len() <= MESSAGE_LENGTH_MAX);
    assert!(third.on_relay(body, &mut relayed).is_ok());
    assert_eq!(hear(&mut one, START, answer(&relayed[1]).1).len(), 1);
    assert!(third.on_relay(b"\x03onewhatever", &mut relayed).is_err(), "only answers are sent on");
}

#[test]
fn lengths_have_an_end() {
    let mut one = queries("one");
    let mut refused = |draft| {
        let mut out = Vec::new();
        one.ask(START, draft, 3, INTERVAL, &mut Random::new(1), &mut out).map_err(|error| error.to_string())
    };
    let text = Err("query exceeds limit of 1024 bytes".to_owned());
    assert_eq!(refused(Draft { payload: vec![0; 1000].into(), ..draft() }), text);
    assert_eq!(refused(Draft { payload: vec![0; 70_000].into(), ..draft() }), text);
    assert_eq!(refused(Draft { name: "x".repeat(70_000), ..draft() }), text);
    let nodes = vec!["n".to_owned(); 300];
    assert_eq!(refused(Draft { filters: Filters { nodes, tags: vec![] }, ..draft() }), text);
    let tags = vec![("t".repeat(300), String::new())];
    assert_eq!(refused(Draft { filters: Filters { nodes: vec![], tags }, ..draft() }), text);
    assert_eq!(one.time(), Time(1), "what is refused takes no time");

    let (id, ..) = ask(&mut one, draft());
    let too_long = vec![0; one.answer_room() + 1];
    let refused = one.respond(START, id, &too_long, &mut Vec::new()).map_err(|error| error.to_string());
    assert_eq!(refused, Err("response exceeds limit of 1024 bytes".to_owned()));
}

#[test]
fn numbers_have_an_end() {
    let mut one = queries("one");
    let mut random = Random::new(1);
    let mut asking = || one.ask(START, draft(), 3, INTERVAL, &mut random, &mut Vec::new());
    assert!((0..ASKED_MAX).all(|_| asking().is_ok()));
    assert_eq!(asking(), Err(QueryError::TooMany));

    let mut other = queries("other");
    let query = |ltime, number| {
        let (_, body, _) = ask(&mut queries("one"), draft());
        let mut query = Query::decode(&body).expect("it was encoded");
        query.id = QueryId { ltime: Time(ltime), number };
        query.encode().expect("it is short")
    };
    receive(&mut other, &query(4, 0));
    for number in 0..SEEN_MAX as u32 {
        receive(&mut other, &query(5, number));
    }
    assert_eq!((other.seen.len(), other.held.len()), (SEEN_MAX, HELD_MAX));
    assert_eq!(receive(&mut other, &query(5, u32::MAX)), [], "there is no room for more of one time");
    assert_eq!(receive(&mut other, &query(4, 0)), [], "what was forgotten does not come again");
    assert_eq!(receive(&mut other, &query(6, 0)).len(), 2);
    receive(&mut other, &query(1000, 0));
    assert_eq!(other.seen.len(), 1);
    assert_eq!(receive(&mut other, &query(400, 0)), [], "what is older than the window is too old");
    assert!(other.receive(START, &query(u64::MAX, 0), &mut Vec::new()).is_err());
}

#[test]
fn a_later_life_does_not_answer_again() {
    let (mut one, mut other) = (queries("one"), queries("other"));
    let (_, body, _) = ask(&mut one, draft());
    other.resume(Time(1));
    assert_eq!(receive(&mut other, &body), []);
    let (_, body, _) = ask(&mut one, draft());
    assert_eq!(receive(&mut other, &body).len(), 2);
}

#[test]
fn strangers_cannot_answer_more_often_than_there_are_members() {
    let mut one = queries("one");
    let (id, ..) = ask(&mut one, draft());
    let mut taken = 0;
    for stranger in 0..10 {
        let reply = Reply { id, from: format!("s{stranger}").into(), ack: false, payload: Bytes::new() };
        taken += hear(&mut one, START, &reply.encode()).len();
    }
    assert_eq!(taken, 3);
}

#[test]
fn the_keyring_is_asked_by_a_query() {
    let (mut one, mut other) = (queries("one"), queries("other"));
    let payload = keyring::Request::List.encode().into();
    let (id, body, own) = ask(&mut one, Draft { name: keyring::QUERY.into(), payload, ..Draft::default() });
    let asked = Outcome::Keyring { id, request: keyring::Request::List };
    assert_eq!(own, std::slice::from_ref(&asked));
    assert_eq!(receive(&mut other, &body)[1], asked);
    let (answered, _) = keyring::Request::List.carry_out(None);
    let payload = answered.encode(other.answer_room());
    let answers = respond(&mut other, id, &payload);
    let heard = hear(&mut one, START, answer(&answers[0]).1);
    let [Outcome::Replied { from, payload, .. }] = &heard[..] else { panic!("{heard:?}") };
    let mut tally = keyring::Tally::new(2);
    tally.take(from, payload);
    assert_eq!(tally.messages["other"], "Keyring is empty (encryption not enabled)");

    let payload = Bytes::from_static(b"what?");
    let (_, body, _) = ask(&mut one, Draft { name: keyring::QUERY.into(), payload, ..Draft::default() });
    let answers = receive(&mut other, &body);
    assert_eq!(answer(&answers[1]).0, "one", "what cannot be understood is answered at once");
}

proptest! {
    #[test]
    fn queries_are_read_back(
        ltime in any::<u64>(), number in any::<u32>(), ack in any::<bool>(), relays in 0..=RELAYS_MAX, timeout in 0u64..600_000,
        nodes in prop::collection::vec("[a-z]{1,10}", 0..5), tags in prop::collection::vec(("[a-z]{0,10}", ".{0,20}"), 0..3),
        payload in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let id = QueryId { ltime: Time(ltime), number };
        let query = Query {
            id, asker: "one".into(), filters: Filters { nodes, tags }, ack, relays,
            timeout: Duration::from_millis(timeout), name: "n".into(), payload: payload.into(),
        };
        let body = query.encode().expect("it is short");
        prop_assert!(Query::decode(&body[..body.len() - 1]).is_err());
        let reply = Reply { id, from: "two".into(), ack, payload: query.payload.clone() };
        prop_assert_eq!(Query::decode(&body), Ok(query));
        prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..1200)) {
        let mut queries = queries("one");
        let mut out = Vec::new();
        let _ = queries.receive(START, &bytes, &mut out);
        let _ = queries.on_reply(START, &bytes, &mut out);
        let _ = queries.on_relay(&bytes, &mut out);
        queries.tick(START, &mut out);
    }
}
