//! The follower against a server of a few lines that answers as it is told.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use super::*;
use crate::config::flags::Parsed;

/// What the server does with one request.
enum Act {
    /// Answers with an index and a body.
    Answer(u16, u64, &'static str),
    /// Closes the connection without an answer.
    Close,
    /// Says nothing until the other side goes.
    Silence,
}

/// A server that does `acts` in turn, and gives the targets that it was asked for.
fn server(acts: Vec<Act>) -> (Arc<Client>, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let (asked, targets) = mpsc::sync_channel(64);
    thread::spawn(move || {
        let mut acts = acts.into_iter();
        while let Ok((stream, _)) = listener.accept() {
            if serve(stream, &mut acts, &asked).is_none() {
                return;
            }
        }
    });
    let flags = Parsed { flags: vec![("http-addr", address)], args: Vec::new() };
    (Arc::new(Client::new(&flags).expect("a client")), targets)
}

/// Serves one connection; `None` when all is done.
fn serve(
    mut stream: TcpStream,
    acts: &mut impl Iterator<Item = Act>,
    asked: &mpsc::SyncSender<String>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().expect("a clone"));
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return Some(());
            }
            if line == "\r\n" {
                break;
            }
            head.push(line);
        }
        asked.send(head[0].split(' ').nth(1).unwrap_or_default().to_owned()).ok()?;
        match acts.next()? {
            Act::Answer(status, index, body) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\nX-Consul-Index: {index}\r\nTransfer-Encoding: chunked\r\n\r\n"
                );
                let chunk =
                    if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) };
                stream.write_all(format!("{head}{chunk}0\r\n\r\n").as_bytes()).ok()?;
            }
            Act::Close => return Some(()),
            Act::Silence => {
                let _ = reader.read_line(&mut String::new());
                return Some(());
            }
        }
    }
}

fn follower(client: &Arc<Client>) -> Follower {
    let mut question = Question::new("/v1/kv/a", &[("recurse", "")]);
    question.wait = Some(Duration::from_secs(2));
    Follower::new(client.clone(), question)
}

fn body(event: &Event) -> &str {
    match event {
        Event::Changed(answer) => std::str::from_utf8(&answer.body).expect("text"),
        other => panic!("no answer: {other:?}"),
    }
}

#[test]
fn a_change_is_told_once_over_one_connection_and_a_new_one() {
    let (client, targets) = server(vec![
        Act::Answer(200, 7, "a"),
        Act::Answer(200, 9, "a"),
        // Started anew: a connection that rested is replaced without a word.
        Act::Close,
        Act::Answer(200, 11, "b"),
        Act::Answer(500, 0, "No cluster leader\n"),
        Act::Answer(200, 12, "b"),
        Act::Answer(404, 13, ""),
    ]);
    let mut follower = follower(&client);
    assert_eq!(body(&follower.wait()), "a");
    assert_eq!(body(&follower.wait()), "b");
    let Event::Failed(failure) = follower.wait() else { panic!("no failure") };
    assert_eq!(failure.why, "Unexpected response code: 500 (No cluster leader)");
    assert_eq!((failure.status, failure.is_refusal()), (Some(500), false));
    let Event::Changed(answer) = follower.wait() else { panic!("no answer") };
    assert_eq!((answer.status, answer.index), (404, 13));
    let asked: Vec<String> = targets.try_iter().collect();
    let with = |index: u64| format!("/v1/kv/a?index={index}&recurse=&wait=2s");
    assert_eq!(asked[0], "/v1/kv/a?recurse=");
    assert_eq!(asked[1..], [with(7), with(9), with(9), with(11), with(11), with(12)]);
}

#[test]
fn it_is_stopped_while_it_waits_and_while_it_rests() {
    let (client, targets) = server(vec![Act::Answer(200, 7, "a"), Act::Silence]);
    let mut waiting = follower(&client);
    let stopper = waiting.stopper();
    assert_eq!(body(&waiting.wait()), "a");
    let waiter = thread::spawn(move || matches!(waiting.wait(), Event::Stopped));
    assert!(targets.iter().nth(1).is_some_and(|target| target.contains("index=7")));
    stopper.stop();
    assert!(waiter.join().expect("ends"));

    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").to_string();
    let flags = Parsed { flags: vec![("http-addr", nobody.clone())], args: Vec::new() };
    let mut resting = follower(&Arc::new(Client::new(&flags).expect("a client")));
    let Event::Failed(failure) = resting.wait() else { panic!("no failure") };
    let why =
        format!("Get \"http://{nobody}/v1/kv/a?recurse=\": dial tcp {nobody}: connect: connection refused");
    assert_eq!((failure.why, failure.status), (why, None));
    resting.stopper().stop();
    assert!(matches!(resting.wait(), Event::Stopped));
}

#[test]
fn an_answer_that_does_not_come_is_a_failure() {
    let (client, _targets) = server(vec![Act::Silence]);
    let mut follower = follower(&client);
    follower.question.wait = Some(Duration::ZERO);
    let limit = Duration::from_millis(50);
    let answer = follower.exchange("/", limit);
    assert_eq!(answer.err().as_deref(), Some("i/o timeout"));
}
