//! The door with a real runner behind it, on cores of the runtime.

use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::{self, FutureExt};
use muster_protocol::entry::{Configuration, Server, ServerId, Suffrage};

use crate::config::{Performance, RaftConfig};
use crate::runtime::cores::{self, CoreId, Driver, PerCore};
use crate::runtime::{mesh, task, time};
use crate::store::command::{Applied, Command, KvOp};
use crate::store::model::KvEntry;
use crate::store::topic::Topic;

use super::*;

/// A cluster's log begins with its servers and the first leader's own entry.
const BEFORE: u64 = 2;

fn set(key: &str, value: usize) -> Command {
    let value = vec![b'x'; value];
    Command::Kv(KvOp::Set(KvEntry { key: key.into(), value, ..KvEntry::default() }))
}

/// Runs `body` on one core.
fn on_a_core<F: Future<Output = ()> + 'static>(body: impl Fn() -> F + Send + Clone + 'static) {
    cores::run(Driver::Epoll, 1, move |_| body().boxed_local()).expect("the core runs to its end");
}

#[test]
fn an_acknowledged_write_is_published_and_told_to_the_edges() {
    on_a_core(async || {
        let (proposals, state, runner) = open("10.0.0.1:8300".into());
        let (edge, mut woken) = mesh::channel(1);
        let running = task::spawn(runner.run(vec![edge]));
        assert_eq!(proposals.propose(&set("a", 1)).await, Ok(Applied::Done));
        assert_eq!(state.load().kv(b"a").map(|row| row.modify_index), Some(BEFORE + 1));
        let touched = woken.try_recv().expect("an edge with room hears before the writer");
        assert!(touched.touches(&Topic::Key(b"a"[..].into())));
        assert_eq!(proposals.propose(&set("a", 1)).await, Ok(Applied::Done));
        assert!(woken.try_recv().is_none(), "nothing changed, nobody is told");
        let status = proposals.status();
        assert_eq!((status.applied_index, status.leader.as_deref()), (BEFORE + 2, Some("10.0.0.1:8300")));
        drop(proposals);
        running.await.expect("the runner ends with the last handle");
    });
}

/// A thousand agents have something to tell within a second: a handful of batches, and the first does not wait.
#[test]
fn writes_of_agents_are_gathered_and_others_are_not() {
    on_a_core(async || {
        let (proposals, _state, runner) = open(String::new());
        let (edge, mut batches) = mesh::channel(1024);
        task::spawn(runner.run(vec![edge])).detach();
        assert_eq!(proposals.propose(&set("warm", 1)).await, Ok(Applied::Done));
        while batches.try_recv().is_some() {}
        let begun = time::now();
        let write = |number: usize| {
            let proposals = proposals.clone();
            task::spawn(async move {
                time::sleep(Duration::from_millis(number as u64 % 200)).await;
                let command = Encoded::of(&set(&format!("agent/{number}"), 1));
                assert_eq!(proposals.propose_lazily(vec![command]).await, [Ok(Applied::Done)]);
                time::now()
            })
        };
        let writing: Vec<_> = (0..1000).map(write).collect();
        let hurried = time::now();
        assert_eq!(proposals.propose(&set("client", 1)).await, Ok(Applied::Done));
        assert!(time::now() - hurried < Duration::from_millis(40), "nobody holds up a client");
        let mut first = None;
        for writer in writing {
            let done = writer.await.expect("no panic");
            first = first.min(Some(done)).or(Some(done));
        }
        assert!(first.expect("many") - begun < Duration::from_millis(45), "the first goes at once");
        let mut count = 0;
        while batches.try_recv().is_some() {
            count += 1;
        }
        assert!((4..=12).contains(&count), "{count} batches");
    });
}

/// A thousand batches behind, one edge core once stood in the way of every write, and of Raft's signs of life.
#[test]
fn a_full_edge_holds_up_nobody_and_hears_later() {
    on_a_core(async || {
        let (proposals, state, runner) = open(String::new());
        let (edge, mut woken) = mesh::channel(1);
        task::spawn(runner.run(vec![edge])).detach();
        for key in ["a", "b", "c"] {
            assert_eq!(proposals.propose(&set(key, 1)).await, Ok(Applied::Done));
            assert!(state.load().kv(key.as_bytes()).is_some(), "what is acknowledged is there for all");
        }
        let topic = |key: &str| Topic::Key(key.as_bytes().into());
        let first = woken.recv().await.expect("the edge had room for one");
        assert!(first.touches(&topic("a")) && !first.touches(&topic("b")));
        // Nothing else happens that would remind the runner of it.
        let rest = woken.recv().await.expect("it has room again");
        assert!(rest.touches(&topic("b")) && rest.touches(&topic("c")));
    });
}

#[test]
fn writers_on_many_cores_are_put_in_one_order() {
    const CORES: usize = 3;
    const WRITES: usize = 300;
    let (proposals, state, runner) = open(String::new());
    let (edges, receivers): (Vec<_>, Vec<_>) = (0..CORES).map(|_| mesh::channel(8)).unzip();
    let receivers = PerCore::new(receivers);
    let control = Arc::new(Mutex::new(Some((runner, edges))));
    let writers = PerCore::new((0..CORES).map(|_| proposals.clone()));
    drop(proposals);
    let seen = state.clone();
    cores::run(Driver::Epoll, CORES, move |core: CoreId| {
        let (control, receivers, writers, seen) =
            (control.clone(), receivers.clone(), writers.clone(), seen.clone());
        async move {
            let work =
                (core == CoreId(0)).then(|| control.lock().expect("one core takes it").take()).flatten();
            let running = work.map(|(runner, edges)| task::spawn(runner.run(edges)));
            let mut woken = receivers.take(core).expect("one for each core");
            let listening = task::spawn(async move {
                let mut keys = 0;
                while let Some(touched) = woken.recv().await {
                    touched.for_each_topic(|_| keys += 1);
                }
                keys
            });
            let proposals = writers.take(core).expect("one for each core");
            for number in 0..WRITES {
                let key = format!("{}/{number}", core.0);
                assert_eq!(proposals.propose(&set(&key, 1)).await, Ok(Applied::Done));
                assert!(seen.load().kv(key.as_bytes()).is_some());
            }
            drop(proposals);
            if let Some(running) = running {
                running.await.expect("it ends when all writers have");
            }
            assert_eq!(listening.await.expect("it ends with the runner"), CORES * WRITES);
        }
        .boxed_local()
    })
    .expect("all cores run to their end");
    assert_eq!(state.load().index(), BEFORE + (CORES * WRITES) as u64);
}

#[test]
fn refusals_say_why() {
    on_a_core(async || {
        let absent = Proposals::without_server().propose(&set("a", 1)).await;
        assert_eq!(absent.map_err(|error| error.to_string()), Err("No known Consul servers".into()));
        let (proposals, _state, runner) = open(String::new());
        let large = proposals.propose(&set("a", COMMAND_LENGTH_MAX)).await;
        assert!(matches!(large, Err(ProposeError::TooLarge { max: COMMAND_LENGTH_MAX, .. })));
        let command = set("a", 1);
        let mut waiting: Vec<_> = (0..QUEUE_MAX).map(|_| Box::pin(proposals.propose(&command))).collect();
        for write in &mut waiting {
            assert!(future::poll_once(write).await.is_none());
        }
        assert_eq!(proposals.propose(&command).await, Err(ProposeError::TooBusy));
        drop(runner);
        assert_eq!(waiting.remove(0).await, Err(ProposeError::Stopping));
        assert_eq!(proposals.propose(&command).await, Err(ProposeError::Stopping));
    });
}

#[test]
fn waiting_bytes_are_bounded_and_given_back() {
    on_a_core(async || {
        let (proposals, _state, runner) = open(String::new());
        let command = set("a", COMMAND_LENGTH_MAX / 2);
        let mut waiting = Vec::new();
        let refused = loop {
            let mut write = Box::pin(proposals.propose(&command));
            match future::poll_once(&mut write).await {
                None => waiting.push(write),
                Some(refused) => break refused,
            }
        };
        assert_eq!(refused, Err(ProposeError::TooBusy));
        assert!((8..QUEUE_MAX).contains(&waiting.len()));
        task::spawn(runner.run(Vec::new())).detach();
        for write in waiting {
            assert_eq!(write.await, Ok(Applied::Done));
        }
        assert_eq!(proposals.propose(&command).await, Ok(Applied::Done));
    });
}

#[test]
fn bytes_from_outside_are_checked() {
    let encoded = Encoded::of(&set("a", 3));
    assert!(Encoded::check(encoded.bytes()).is_ok());
    let mut shifted = vec![0; 1];
    shifted.extend_from_slice(encoded.bytes());
    let copied =
        Encoded::check(&Bytes::from(shifted).slice(1..)).expect("the same command, moved into place");
    assert_eq!(copied.bytes(), encoded.bytes());
    assert!(Encoded::check(&Bytes::from(vec![0xff; encoded.bytes().len()])).is_err());
    assert!(Encoded::check(&Bytes::new()).is_err());
}

/// A crash between the entry and the end of the file `peers.json` put the same list into the log at each start.
#[test]
fn an_operators_list_is_put_into_the_log_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    on_a_core(move || {
        let path = path.clone();
        async move {
            let server = Server {
                id: ServerId([7; 16]),
                name: "s".into(),
                address: "10.0.0.1:8300".into(),
                suffrage: Suffrage::Voter,
            };
            let listed =
                ForcedServer { id: Some(server.id), address: "10.0.0.1:8301".into(), non_voter: false };
            let forced = Forced(vec![listed]);
            let first = start(&path, &server, None).await;
            let configuration = Configuration::new(vec![server.clone()]);
            first.proposals.admin(AdminOp::Bootstrap(configuration)).await.expect("it is blank");
            let before = first.led().await;
            first.stop().await;
            let mut terms = vec![before.term];
            let mut placed = Vec::new();
            for _ in 0..3 {
                let running = start(&path, &server, Some(forced.clone())).await;
                let standing = running.led().await;
                assert_eq!(standing.configuration.servers[0].address, "10.0.0.1:8301");
                placed.push(standing.configuration_index);
                terms.push(standing.term);
                running.stop().await;
            }
            assert!(placed[0] > before.configuration_index);
            assert!(placed.iter().all(|index| *index == placed[0]), "once: {placed:?}");
            assert!(terms[1] > terms[0] + 1_000_000 && terms[3] < terms[1] + 10, "one leap: {terms:?}");
        }
    });
}

/// A server on files.
struct Running {
    proposals: Proposals,
    task: task::Task<Result<(), String>>,
}

async fn start(folder: &Path, own: &Server, forced: Option<Forced>) -> Running {
    let (proposals, _state, opening) = door();
    let setup = Setup {
        id: own.id,
        data_dir: Some(folder.to_owned()),
        performance: Performance {
            leave_drain_time: Duration::ZERO,
            raft_multiplier: 1,
            rpc_hold_timeout: Duration::from_secs(7),
        },
        raft: RaftConfig {
            protocol: 3,
            snapshot_threshold: 16_384,
            snapshot_interval: Duration::from_secs(30),
            trailing_logs: 10_240,
        },
        expects_peers: false,
        forced: forced.map(|forced| (forced, own.clone())),
    };
    let runner = opening.open(setup).await.expect("its files are in order");
    let (_, events) = mesh::channel(1);
    let task = task::spawn(runner.run(Vec::new(), Rc::new(runner::NoLinks), events));
    Running { proposals, task }
}

impl Running {
    /// Waits until it leads and has committed so.
    async fn led(&self) -> Standing {
        loop {
            let standing = self.proposals.standing();
            if standing.leads() && self.proposals.barrier(Consistency::Consistent).await.is_ok() {
                return standing;
            }
            time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) {
        drop(self.proposals);
        self.task.await.expect("it is not cancelled").expect("its disk is in order");
    }
}
