//! The keeper over servers that a test plays: a state that answers as the real route does, and may die.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::FutureExt as _;

use super::*;
use crate::consensus::Encoded;
use crate::runtime::cores::{self, Driver};
use crate::runtime::mesh::Receiver;
use crate::runtime::task;
use crate::store::Touched;
use crate::store::command::{CatalogOp, Command, Deregister, Register};
use crate::store::model::{Check, Node, Service, Status};

fn on_core<F: Future<Output = ()> + 'static>(body: impl Fn() -> F + Send + Clone + 'static) {
    let mut drivers = vec![Driver::Epoll];
    drivers.extend(Driver::choose(Some(Driver::Glommio)));
    for driver in drivers {
        let body = body.clone();
        cores::run(driver, 1, move |_| body().boxed_local()).expect("the core runs to its end");
    }
}

/// All servers at once.
struct Servers {
    state: RefCell<State>,
    alive: Cell<bool>,
    history: RefCell<String>,
    asked: RefCell<Vec<String>>,
    /// Questions that are refused for want of room.
    refused: Cell<usize>,
}

impl Servers {
    fn new() -> Rc<Servers> {
        Rc::new(Servers {
            state: RefCell::default(),
            alive: Cell::new(true),
            history: RefCell::new("one".into()),
            asked: RefCell::default(),
            refused: Cell::new(0),
        })
    }

    fn run(&self, op: CatalogOp) {
        run(&mut self.state.borrow_mut(), op);
    }

    fn register(&self, node: &str, status: Status) {
        let row = Node { node: node.into(), address: "10.0.0.1".into(), ..Node::default() };
        let service = Service { id: "web".into(), name: "web".into(), ..Service::default() };
        let check = Check { check_id: "c".into(), service_id: "web".into(), status, ..Check::default() };
        let register =
            Register { node: row, service: Some(service), checks: vec![check], ..Register::default() };
        self.run(CatalogOp::Register(Box::new(register)));
    }

    fn deregister(&self, node: &str) {
        self.run(CatalogOp::Deregister(Deregister { node: node.into(), ..Deregister::default() }));
    }

    /// What the route of a server does.
    async fn answer(self: Rc<Self>, target: String) -> Result<Told, String> {
        self.asked.borrow_mut().push(target.clone());
        if self.refused.get() > 0 {
            self.refused.set(self.refused.get() - 1);
            return Ok(Told::refusal(503, "too busy".to_owned()));
        }
        let (path, query) = target.split_once('?').expect("all questions have parameters");
        let get = |name: &str| {
            let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            pairs.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
        };
        let told = |body: Bytes| Told {
            status: 200,
            history: self.history.borrow().clone(),
            is_current: true,
            body,
        };
        if path == "/v1/internal/rpc/address" {
            let dead = || "no server answers".to_owned();
            return if self.alive.get() { Ok(told("node n1".into())) } else { Err(dead()) };
        }
        let name = get("name").expect("a name");
        let view = if path.ends_with("/service") { View::service(&name) } else { View::node(&name) };
        let number = |name: &str| get(name).map_or(0, |text| text.parse::<u64>().expect("a number"));
        let (since, index) = (number("since"), number("index"));
        loop {
            task::yield_now().await;
            if !self.alive.get() {
                return Err("no server answers".to_owned());
            }
            let ours = get("history").as_ref() == Some(&*self.history.borrow());
            {
                let state = self.state.borrow();
                let same = ours && state.last_change(&view.topic()) <= index;
                if !same || get("wait").as_deref() != Some("10m") {
                    let bytes = state.view_since(&view, if ours { since } else { 0 });
                    return Ok(told(Bytes::from_owner(bytes)));
                }
            }
            time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn run(state: &mut State, op: CatalogOp) {
    let index = state.index() + 1;
    state.apply(index, Encoded::of(&Command::Catalog(op)).command(), &mut Touched::new());
}

/// Puts an instance of a service into a server's state.
pub(super) fn register(state: &mut State, service: &str) {
    let node = Node { node: "n1".into(), address: "10.0.0.1".into(), ..Node::default() };
    let service = Service { id: service.into(), name: service.into(), ..Service::default() };
    let register = Register { node, service: Some(service), ..Register::default() };
    run(state, CatalogOp::Register(Box::new(register)));
}

struct Bench {
    servers: Rc<Servers>,
    views: Views,
    state: Published<State>,
    changes: Receiver<Arc<Touched>>,
    /// What the agent knows of its own node, to be told once.
    own: Rc<RefCell<Option<OwnRows>>>,
    keeper: task::Task<()>,
}

impl Bench {
    fn new() -> Bench {
        let servers = Servers::new();
        let (views, state, keeper) = views();
        let (edge, changes) = mesh::channel(4);
        let asked = servers.clone();
        let ask: Ask = Box::new(move |target| asked.clone().answer(target).boxed_local());
        let own = Rc::new(RefCell::new(None));
        let told = own.clone();
        let keeper = task::spawn(keeper.run(ask, Box::new(move || told.take()), vec![edge]));
        Bench { servers, views, state, changes, own, keeper }
    }

    fn passing(&self) -> Vec<String> {
        let state = self.state.load_full();
        let passing = state.instances("web").filter(|it| it.checks().all(|c| c.status == Status::Passing));
        passing.map(|it| it.node.node.clone()).collect()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Bench) -> bool) {
        let deadline = time::now() + Duration::from_secs(20);
        while !holds(self) {
            assert!(time::now() < deadline, "waited in vain until {what}");
            time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[test]
fn the_first_question_waits_and_then_changes_come_by_themselves() {
    on_core(|| async {
        let mut bench = Bench::new();
        bench.servers.register("n1", Status::Passing);
        let view = View::service("WEB");
        assert!(!bench.state.load().holds(&view));
        bench.views.hold(view.clone()).await.expect("the servers answer");
        assert_eq!(bench.passing(), ["n1"]);
        assert!(bench.changes.recv().await.is_some_and(|touched| touched.touches(&view.topic())));
        bench.servers.register("n2", Status::Passing);
        bench.until("another instance is there", |bench| bench.passing().len() == 2).await;
        bench.servers.register("n1", Status::Critical);
        bench.until("a check has flipped", |bench| bench.passing() == ["n2"]).await;
        bench.servers.deregister("n2");
        bench.until("an instance is gone", |bench| bench.passing().is_empty()).await;
        assert!(bench.changes.recv().await.is_some_and(|touched| touched.touches(&view.topic())));
        let wholes = bench.servers.asked.borrow().iter().filter(|target| !target.contains("since")).count();
        assert_eq!(wholes, 1, "everything was asked for once only");
        bench.views.hold(view).await.expect("it is held");
    });
}

#[test]
fn a_question_for_which_there_is_no_room_is_asked_again() {
    on_core(|| async {
        let bench = Bench::new();
        bench.servers.register("n1", Status::Passing);
        bench.servers.refused.set(2);
        bench.views.hold(View::service("web")).await.expect("there is room at last");
        assert_eq!((bench.passing(), bench.servers.asked.borrow().len()), (vec!["n1".to_owned()], 3));
        assert!(bench.views.contact().known_leader);
    });
}

#[test]
fn nothing_is_left_of_a_keeper_that_is_dropped() {
    on_core(|| async {
        let bench = Bench::new();
        bench.views.hold(View::service("web")).await.expect("the servers answer");
        let Bench { servers, views, keeper, .. } = bench;
        drop(keeper);
        // The task that followed the view was the last to hold the servers.
        while Rc::strong_count(&servers) > 1 {
            task::yield_now().await;
        }
        assert!(views.hold(View::service("other")).await.is_err());
    });
}

#[test]
fn absence_is_kept_too() {
    on_core(|| async {
        let bench = Bench::new();
        let (service, node) = (View::service("web"), View::node("n1"));
        bench.views.hold(service.clone()).await.expect("the servers answer");
        bench.views.hold(node).await.expect("the servers answer");
        // As in a real cluster, the first index is not the catalog's.
        bench.servers.deregister("nobody");
        assert!(bench.state.load().is_empty_view(&service));
        bench.servers.register("n1", Status::Passing);
        bench.until("the service has come", |bench| bench.passing() == ["n1"]).await;
        bench.until("the node has come", |bench| bench.state.load().node("N1").is_some()).await;
    });
}

#[test]
fn without_servers_all_stays_and_with_them_all_converges() {
    on_core(|| async {
        let bench = Bench::new();
        bench.servers.register("n1", Status::Passing);
        let views = [View::service("web"), View::node("n1"), View::service("none")];
        for view in views.clone() {
            bench.views.hold(view).await.expect("the servers answer");
        }
        assert!(bench.views.contact().known_leader);
        bench.servers.alive.set(false);
        bench.until("the loss is noticed", |bench| !bench.views.contact().known_leader).await;
        assert_eq!(bench.passing(), ["n1"]);
        assert_eq!(bench.views.hold(View::service("new")).await, Err(HoldError("no server answers".into())));
        bench.servers.register("n1", Status::Critical);
        bench.servers.register("n2", Status::Passing);
        bench
            .until("age grows", |bench| {
                bench.views.contact().last.is_some_and(|age| age > Duration::from_millis(300))
            })
            .await;
        assert!(views.iter().all(|view| bench.state.load().holds(view)));
        assert_eq!(bench.passing(), ["n1"]);
        bench.servers.alive.set(true);
        bench.until("what has changed meanwhile is there", |bench| bench.passing() == ["n2"]).await;
        assert!(bench.views.contact().known_leader && bench.views.contact().last == Some(Duration::ZERO));
        bench.views.hold(View::service("new")).await.expect("the servers answer again");
    });
}

/// What the agent of node `name` has: `web`, with a check.
fn own(name: &str, status: Status) -> OwnRows {
    let row = |id: &str| Service { id: id.into(), name: id.into(), node: name.into(), ..Service::default() };
    let check = Check { check_id: "c".into(), service_id: "web".into(), status, ..Check::default() };
    OwnRows {
        node: Arc::new(Node { node: name.into(), address: "10.0.0.9".into(), ..Node::default() }),
        node_checks: Vec::new(),
        services: vec![(Arc::new(row("web")), vec![Arc::new(check)]), (Arc::new(row("mine")), Vec::new())],
    }
}

#[test]
fn without_servers_the_agent_s_own_services_stand_as_it_knows_them() {
    on_core(|| async {
        let bench = Bench::new();
        bench.servers.register("n1", Status::Passing);
        bench.servers.register("me", Status::Passing);
        let (web, mine) = (View::service("web"), View::service("mine"));
        bench.views.hold(web.clone()).await.expect("the servers answer");
        bench.servers.alive.set(false);
        bench.own.replace(Some(own("me", Status::Critical)));
        bench.until("the agent's own check counts", |bench| bench.passing() == ["n1"]).await;
        let index = bench.state.load().view_index(&web);
        bench.own.replace(Some(own("me", Status::Passing)));
        bench.until("it counts again", |bench| bench.passing() == ["me", "n1"]).await;
        assert_eq!(bench.state.load().view_index(&web), index);
        assert_eq!(bench.state.load().instances_len("mine"), 1);
        bench.servers.alive.set(true);
        bench.until("the servers' word counts", |bench| !bench.state.load().holds(&mine)).await;
        assert_eq!(bench.passing(), ["me", "n1"]);
        bench.views.hold(mine.clone()).await.expect("the servers answer");
        assert!(bench.state.load().is_empty_view(&mine));
    });
}

#[test]
fn an_agent_that_never_found_a_server_knows_itself_and_notices_the_first_one() {
    on_core(|| async {
        let bench = Bench::new();
        bench.servers.alive.set(false);
        bench.own.replace(Some(own("me", Status::Passing)));
        bench.views.hold(View::service("mine")).await.expect("the agent itself knows");
        assert!(bench.views.hold(View::service("other")).await.is_err());
        assert_eq!(bench.passing(), ["me"]);
        bench.servers.register("n1", Status::Passing);
        bench.servers.alive.set(true);
        bench.until("the first server is noticed", |bench| bench.views.contact().known_leader).await;
        bench.views.hold(View::service("web")).await.expect("the servers answer");
        assert_eq!(bench.passing(), ["n1"]);
    });
}

#[test]
fn another_cluster_is_found_out_even_where_its_indexes_are_the_same() {
    on_core(|| async {
        let bench = Bench::new();
        bench.servers.register("n1", Status::Passing);
        bench.views.hold(View::service("web")).await.expect("the servers answer");
        let history = bench.state.load().history();
        bench.servers.alive.set(false);
        bench.until("the loss is noticed", |bench| !bench.views.contact().known_leader).await;
        bench.servers.state.replace(State::new());
        bench.servers.history.replace("two".into());
        bench.servers.register("n2", Status::Passing);
        bench.servers.alive.set(true);
        bench.until("the other cluster's instance is there", |bench| bench.passing() == ["n2"]).await;
        assert_ne!(bench.state.load().history(), history);
        bench.servers.register("n3", Status::Passing);
        bench.until("it is followed", |bench| bench.passing() == ["n2", "n3"]).await;
    });
}

#[test]
fn a_flood_of_made_up_names_costs_no_real_one_its_place() {
    on_core(|| async {
        let bench = Bench::new();
        bench.servers.register("n1", Status::Passing);
        bench.views.hold(View::service("web")).await.expect("the servers answer");
        for number in 0..VIEWS_MAX + 50 {
            bench.views.hold(View::service(&format!("made-up-{number}"))).await.expect("the servers answer");
        }
        let state = bench.state.load_full();
        assert!(state.holds(&View::service("web")));
        assert!(!state.holds(&View::service("made-up-0")));
        assert!(state.holds(&View::service(&format!("made-up-{}", VIEWS_MAX + 49))));
    });
}

#[test]
fn names_of_addresses_are_asked_for_each_time_and_remembered_for_bad_ones() {
    on_core(|| async {
        let bench = Bench::new();
        let (known, unknown) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let node = Ok(Some(NameOf::Node("n1".into())));
        assert_eq!(bench.views.name_of(known).await, node);
        assert_eq!(bench.servers.asked.borrow().len(), 1);
        bench.servers.alive.set(false);
        assert_eq!(bench.views.name_of(known).await, node);
        assert!(bench.views.name_of(unknown).await.is_err());
    });
}
