//! What the leader concludes from what it is told: tables of facts and of what follows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_protocol::entry::{Configuration, Server, ServerId, Suffrage};
use muster_protocol::gossip::Tags;
use muster_protocol::wire::ClusterId;
use rkyv::rancor;

use super::autopilot::{Stay, Step, View};
use super::health::{ClusterHealth, Seen};
use super::members::{Facts, differences, differences_since};
use super::witness::Witness;
use crate::config::Config;
use crate::consensus::{Encoded, PeerProgress, Role, Standing};
use crate::membership::{Member, MemberStatus, Roster, ServerFacts};
use crate::store::command::{CatalogOp, Command, Register};
use crate::store::model::{AutopilotConfig, Node, Status};
use crate::store::{State, Touched};

use MemberStatus::{Alive, Failed, Left};
use Suffrage::{Learner, NonVoter, Voter};

/// A moment, since 1970.
const NOW: Duration = Duration::from_secs(1_000_000);
const CLUSTER: ClusterId = ClusterId([7; 16]);

fn id(n: u8) -> ServerId {
    ServerId([n; 16])
}

fn server(n: u8, suffrage: Suffrage) -> Server {
    Server { id: id(n), name: format!("s{n}"), address: format!("10.0.0.{n}:8300"), suffrage }
}

fn member(n: u8, status: MemberStatus) -> Member {
    Member {
        id: id(n),
        name: format!("s{n}").into(),
        ip: [10, 0, 0, n].into(),
        serf_lan_port: 8301,
        tags: Tags::new([("dc", "dc1")]).expect("short"),
        server: Some(ServerFacts { port: 8300, cluster: Some(CLUSTER), ..ServerFacts::default() }.into()),
        incarnation: 1,
        status,
        since: NOW,
        evidence: None,
    }
}

/// A member whose server says something else.
fn with_facts(member: Member, change: impl FnOnce(&mut ServerFacts)) -> Member {
    let mut facts = ServerFacts::clone(member.server.as_deref().expect("a server"));
    change(&mut facts);
    Member { server: Some(facts.into()), ..member }
}

/// Server 1 leads in term 3, its log ends at 1000; the others hold all of it and have just answered.
fn standing(servers: &[(u8, Suffrage)]) -> Standing {
    let configuration = Configuration::new(servers.iter().map(|(n, s)| server(*n, *s)).collect());
    let peers = servers.iter().filter(|(n, _)| *n != 1).map(|(n, _)| PeerProgress {
        id: id(*n),
        match_index: 1000,
        match_term: 3,
        last_contact: Some(Duration::from_millis(20)),
        in_snapshot: false,
    });
    Standing {
        id: Some(id(1)),
        role: Role::Leader,
        term: 3,
        leader: Some(id(1)),
        configuration: Arc::new(configuration),
        configuration_committed: true,
        peers: peers.collect::<Vec<_>>().into(),
        last_log_index: 1000,
        last_log_term: 3,
        ..Standing::default()
    }
}

/// The same, some of whose servers have been silent for a minute.
fn with_silent(mut standing: Standing, silent: &[u8]) -> Standing {
    let mut peers = standing.peers.to_vec();
    for peer in peers.iter_mut().filter(|peer| silent.iter().any(|n| id(*n) == peer.id)) {
        peer.last_contact = Some(Duration::from_secs(60));
    }
    standing.peers = peers.into();
    standing
}

fn roster(members: &[(u8, MemberStatus)]) -> Roster {
    Roster::new(members.iter().map(|(n, status)| member(*n, *status)))
}

fn judge(standing: &Standing, roster: &Roster) -> ClusterHealth {
    let rules = AutopilotConfig::default();
    ClusterHealth::judge(&rules, standing, roster, &ClusterHealth::default(), NOW)
}

/// The facts, long after the judgement, so that what was healthy then is stable; and it is time to look for dead servers.
fn view<'a>(
    rules: &'a AutopilotConfig,
    standing: &'a Standing,
    roster: &'a Roster,
    health: &'a ClusterHealth,
) -> View<'a> {
    static NOBODY: BTreeMap<ServerId, Instant> = BTreeMap::new();
    let now = NOW + Duration::from_secs(60);
    View { rules, standing, roster, health, expelled: &NOBODY, now, prune: true }
}

fn step(rules: &AutopilotConfig, standing: &Standing, roster: &Roster) -> Result<Option<Step>, Stay> {
    view(rules, standing, roster, &judge(standing, roster)).next_step()
}

#[test]
fn servers_are_healthy_when_they_answer_and_keep_up() {
    let three = standing(&[(1, Voter), (2, Voter), (3, Voter)]);
    let all = roster(&[(1, Alive), (2, Alive), (3, Alive)]);
    let health = judge(&three, &all);
    assert!(health.healthy);
    assert_eq!(health.failure_tolerance, 1);
    assert_eq!(health.servers.iter().filter(|server| server.leader).count(), 1);

    let mut slow = three.clone();
    let change = |slow: &mut Standing, change: &dyn Fn(&mut PeerProgress)| {
        let mut peers = three.peers.to_vec();
        change(&mut peers[0]);
        slow.peers = peers.into();
    };
    type Change<'a> = &'a dyn Fn(&mut PeerProgress);
    let unwell: [Change<'_>; 4] = [
        &|peer| peer.last_contact = Some(Duration::from_millis(201)),
        &|peer| peer.last_contact = None,
        &|peer| peer.match_index = 749,
        &|peer| peer.match_term = 2,
    ];
    for how in unwell {
        change(&mut slow, how);
        let health = judge(&slow, &all);
        assert!(!health.healthy && !health.servers[1].healthy && health.servers[2].healthy);
        assert_eq!(health.failure_tolerance, 0);
    }
    change(&mut slow, &|peer| peer.match_index = 750);
    assert!(judge(&slow, &all).healthy, "250 entries behind are allowed");

    let failed = judge(&three, &roster(&[(1, Alive), (2, Failed)]));
    assert_eq!(
        failed.servers.iter().map(|s| s.seen).collect::<Vec<_>>(),
        [Seen::Alive, Seen::Failed, Seen::None]
    );
    assert!(!failed.healthy && failed.failure_tolerance == 0);
}

#[test]
fn health_knows_since_when() {
    let (three, all) = (standing(&[(1, Voter), (2, Voter)]), roster(&[(1, Alive), (2, Alive)]));
    let rules = AutopilotConfig::default();
    let first = judge(&three, &all);
    let later = NOW + Duration::from_secs(30);
    let second = ClusterHealth::judge(&rules, &three, &all, &first, later);
    assert_eq!(second.servers[1].stable_since_s, NOW.as_secs());
    let third = ClusterHealth::judge(&rules, &three, &roster(&[(1, Alive), (2, Failed)]), &second, later);
    assert_eq!(third.servers[0].stable_since_s, NOW.as_secs());
    assert_eq!(third.servers[1].stable_since_s, later.as_secs());
    assert!(
        !third.servers[1].is_stable(&rules, later + Duration::from_secs(99)),
        "sick for long is not stable"
    );
}

#[test]
fn new_servers_join_as_learners_and_vote_once_they_are_stable() {
    let rules = AutopilotConfig::default();
    let one = standing(&[(1, Voter)]);
    let two = roster(&[(1, Alive), (2, Alive)]);
    assert_eq!(step(&rules, &one, &two), Ok(Some(Step::Add(server(2, Learner)))));

    let learning = standing(&[(1, Voter), (2, Learner)]);
    let health = judge(&learning, &two);
    let after = |seconds| {
        let now = NOW + Duration::from_secs(seconds);
        View { now, ..view(&rules, &learning, &two, &health) }.next_step()
    };
    assert_eq!(after(9), Ok(None));
    assert_eq!(after(10), Ok(Some(Step::Promote(id(2)))));

    let pending = Standing { configuration_committed: false, ..one.clone() };
    assert_eq!(step(&rules, &pending, &two), Ok(None), "one change at a time");
    let gone = roster(&[(1, Alive), (2, Failed)]);
    assert_eq!(step(&rules, &one, &gone), Ok(None));
}

#[test]
fn non_voters_stay_what_they_are() {
    let rules = AutopilotConfig::default();
    let silent = with_facts(member(2, Alive), |facts| facts.non_voter = true);
    let both = Roster::new(vec![member(1, Alive), silent]);
    let one = standing(&[(1, Voter)]);
    assert_eq!(step(&rules, &one, &both), Ok(Some(Step::Add(server(2, NonVoter)))));
    let joined = standing(&[(1, Voter), (2, NonVoter)]);
    assert_eq!(step(&rules, &joined, &both), Ok(None));
    assert_eq!(judge(&joined, &both).failure_tolerance, 0, "a non-voter makes nothing safer");
    let voting = standing(&[(1, Voter), (2, Voter)]);
    assert_eq!(step(&rules, &voting, &both), Ok(Some(Step::Demote(id(2)))), "its configuration has changed");
    let wants = roster(&[(1, Alive), (2, Alive)]);
    assert_eq!(step(&rules, &joined, &wants), Ok(Some(Step::Promote(id(2)))), "and back");
}

#[test]
fn strangers_are_not_let_in() {
    let rules = AutopilotConfig::default();
    let one = standing(&[(1, Voter)]);
    let blank = || with_facts(member(2, Alive), |facts| facts.cluster = None);
    let with = |other: Member| Roster::new(vec![member(1, Alive), other]);
    assert_eq!(step(&rules, &one, &with(blank())), Ok(Some(Step::Add(server(2, Learner)))), "a blank one");
    let strangers = [
        with_facts(blank(), |facts| facts.cluster = Some(ClusterId([8; 16]))),
        with_facts(blank(), |facts| facts.bootstrap = true),
        Member { tags: Tags::new([("dc", "dc2")]).expect("short"), ..blank() },
        Member { server: None, ..blank() },
    ];
    for stranger in strangers {
        assert_eq!(step(&rules, &one, &with(stranger)), Ok(None));
    }
}

#[test]
fn a_server_that_an_operator_took_out_is_not_let_in_again_at_once() {
    let (rules, one) = (AutopilotConfig::default(), standing(&[(1, Voter)]));
    let both = roster(&[(1, Alive), (2, Alive)]);
    let health = judge(&one, &both);
    let expelled = BTreeMap::from([(id(2), crate::runtime::time::now())]);
    let view = View { expelled: &expelled, ..view(&rules, &one, &both, &health) };
    assert_eq!(view.next_step(), Ok(None));
}

#[test]
fn a_server_that_moved_or_was_replaced_is_put_right() {
    let rules = AutopilotConfig::default();
    let two = standing(&[(1, Voter), (2, Voter)]);
    let mut moved = member(2, Alive);
    moved.ip = [10, 0, 0, 9].into();
    let expected = Server { address: "10.0.0.9:8300".into(), ..server(2, Voter) };
    let seen = Roster::new(vec![member(1, Alive), moved]);
    assert_eq!(step(&rules, &two, &seen), Ok(Some(Step::Add(expected))), "its vote stays");

    let mut new = member(3, Alive);
    new.ip = [10, 0, 0, 2].into();
    let seen = Roster::new(vec![member(1, Alive), member(2, Failed), new.clone()]);
    assert_eq!(step(&rules, &two, &seen), Ok(Some(Step::RemoveReplaced(server(2, Voter)))));
    let seen = Roster::new(vec![member(1, Alive), member(2, Alive), new]);
    assert!(!matches!(step(&rules, &two, &seen), Ok(Some(Step::RemoveReplaced(_)))), "it is there, too");
}

#[test]
fn dead_servers_go_while_most_are_alive() {
    let rules = AutopilotConfig::default();
    let three = with_silent(standing(&[(1, Voter), (2, Voter), (3, Voter)]), &[3]);
    let lost_one = roster(&[(1, Alive), (2, Alive), (3, Failed)]);
    assert_eq!(step(&rules, &three, &lost_one), Ok(Some(Step::RemoveDead(server(3, Voter)))));
    let unknown = roster(&[(1, Alive), (2, Alive)]);
    assert_eq!(step(&rules, &three, &unknown), Ok(Some(Step::RemoveDead(server(3, Voter)))));

    let health = judge(&three, &lost_one);
    let early = View { prune: false, ..view(&rules, &three, &lost_one, &health) };
    assert_eq!(early.next_step(), Ok(None), "not each time");
    let answering = standing(&[(1, Voter), (2, Voter), (3, Voter)]);
    assert_eq!(step(&rules, &answering, &lost_one), Ok(None), "who answers the leader is not dead");
    let off = AutopilotConfig { cleanup_dead_servers: false, ..rules.clone() };
    assert_eq!(step(&off, &three, &lost_one), Ok(None));
    let least = AutopilotConfig { min_quorum: 3, ..rules.clone() };
    assert_eq!(step(&least, &three, &lost_one), Err(Stay::MinQuorum { dead: 1, voters: 3, least: 3 }));

    let three = with_silent(three, &[2, 3]);
    let lost_two = roster(&[(1, Alive), (2, Failed), (3, Failed)]);
    assert_eq!(step(&rules, &three, &lost_two), Err(Stay::Majority { dead: 2, voters: 3 }));
    let two = with_silent(standing(&[(1, Voter), (2, Voter)]), &[2]);
    let lost = roster(&[(1, Alive), (2, Failed)]);
    let helpers = with_silent(standing(&[(1, Voter), (2, NonVoter), (3, Learner)]), &[2, 3]);
    assert_eq!(step(&rules, &helpers, &lost_two), Ok(Some(Step::RemoveDead(server(2, NonVoter)))));
    let why = step(&rules, &two, &lost).expect_err("half of the servers");
    assert_eq!(why.to_string(), "denied, because removing the majority of servers 1/2 is not safe");
}

/// A server that took some seconds to start again with much to read was removed one second after it had failed.
#[test]
fn a_failed_server_keeps_its_place_for_a_while() {
    let rules = AutopilotConfig::default();
    let three = with_silent(standing(&[(1, Voter), (2, Voter), (3, Voter)]), &[3]);
    let lost_one = roster(&[(1, Alive), (2, Alive), (3, Failed)]);
    let health = judge(&three, &lost_one);
    let after = |rules: &AutopilotConfig, millis| {
        let now = NOW + Duration::from_millis(millis);
        View { now, ..view(rules, &three, &lost_one, &health) }.next_step()
    };
    // Ten seconds, and the time after which a silent server counts as unwell (200 ms).
    assert_eq!(after(&rules, 10_199), Ok(None));
    assert_eq!(after(&rules, 10_200), Ok(Some(Step::RemoveDead(server(3, Voter)))));
    let patient = AutopilotConfig { last_contact_threshold_ns: 5_000_000_000, ..rules };
    assert_eq!(after(&patient, 14_999), Ok(None));
    assert_eq!(after(&patient, 15_000), Ok(Some(Step::RemoveDead(server(3, Voter)))));
}

#[test]
fn servers_that_left_go_at_once() {
    let rules = AutopilotConfig { cleanup_dead_servers: false, ..AutopilotConfig::default() };
    let two = standing(&[(1, Voter), (2, Voter)]);
    let gone = roster(&[(1, Alive), (2, Left)]);
    assert_eq!(step(&rules, &two, &gone), Ok(Some(Step::RemoveLeft(server(2, Voter)))));
    let own = roster(&[(1, Left), (2, Alive)]);
    assert_eq!(step(&rules, &two, &own), Ok(None), "a leader does not remove itself");
}

/// A configuration of development mode.
fn config() -> Config {
    let words = ["-dev".to_owned()];
    let parsed = crate::config::flags::parse(&crate::config::sources::agent_flags(), &words).expect("a flag");
    crate::config::Sources::from_flags(&parsed).expect("sources").load().expect("valid")
}

/// Applies writes, one index each.
fn apply(state: &mut State, ops: Vec<CatalogOp>) {
    for op in ops {
        let encoded = Encoded::of(&Command::Catalog(op));
        state.apply(state.index() + 1, encoded.command(), &mut Touched::new());
    }
}

#[test]
fn the_catalog_says_of_servers_what_membership_says() {
    let config = config();
    let three = standing(&[(1, Voter), (2, Voter), (3, Voter)]);
    let mut state = State::new();
    let witness = Witness::default();
    let differ = |state: &State, roster: &Roster, strangers| {
        let facts = Facts { config: &config, state, roster, standing: &three, witness: &witness };
        differences(&facts, strangers)
    };
    let all = roster(&[(1, Alive), (2, Alive), (3, Alive)]);
    let ops = differ(&state, &all, false);
    assert_eq!(ops.len(), 3);
    apply(&mut state, ops);
    assert!(differ(&state, &all, true).is_empty(), "nothing twice");
    assert_eq!(state.instances("consul").count(), 3);
    let meta = state.node_service("s2", "consul").and_then(|row| row.meta.clone()).expect("metadata");
    assert_eq!((meta["non_voter"].as_str(), meta["raft_version"].as_str()), ("false", "3"));

    let two_down = roster(&[(1, Alive), (2, Failed), (3, Left)]);
    let ops = differ(&state, &two_down, false);
    assert_eq!(ops.len(), 2);
    apply(&mut state, ops);
    let check = state.node_check("s2", "serfHealth").expect("a check");
    assert_eq!((check.status, check.output.as_str()), (Status::Critical, "Agent not live or unreachable"));
    assert!(state.node("s3").is_none());
    assert!(differ(&state, &two_down, true).is_empty());

    let ops = differ(&state, &roster(&[(1, Alive), (2, Alive)]), false);
    apply(&mut state, ops);
    let check = state.node_check("s2", "serfHealth").expect("a check");
    assert_eq!((check.status, check.output.as_str()), (Status::Passing, "Agent alive and reachable"));
}

/// Rows of a pool of a server and clients, and of a node that never had an agent.
fn pool() -> (State, Roster) {
    let (config, one, witness) = (config(), standing(&[(1, Voter)]), Witness::default());
    let client = |n| Member { server: None, ..member(n, Alive) };
    let all = Roster::new([member(1, Alive), client(2), client(3), client(4)]);
    let mut state = State::new();
    let ops = differences(
        &Facts { config: &config, state: &state, roster: &all, standing: &one, witness: &witness },
        false,
    );
    assert_eq!(ops.len(), 4);
    apply(&mut state, ops);
    let other = Node { node: "other".into(), address: "10.9.9.9".into(), ..Node::default() };
    apply(&mut state, vec![CatalogOp::Register(Box::new(Register { node: other, ..Register::default() }))]);
    (state, all)
}

fn nodes(state: &State) -> Vec<&str> {
    state.nodes().map(|node| node.node.as_str()).collect()
}

#[test]
fn clients_are_nodes_without_the_service_of_servers() {
    let (state, _) = pool();
    assert_eq!(nodes(&state), ["other", "s1", "s2", "s3", "s4"]);
    assert_eq!(state.instances("consul").count(), 1);
    assert_eq!(state.checks_in_state(Status::Passing).count(), 4);
}

#[test]
fn a_node_leaves_the_catalog_only_when_its_member_was_seen_to_go() {
    let (config, one) = (config(), standing(&[(1, Voter)]));
    let (mut state, all) = pool();
    let all = Arc::new(all);
    let mut without = Roster::clone(&all);
    without.remove("s2");
    let without = Arc::new(without);

    // Whoever has come without any memory meets fewer members, and has seen none of them go.
    let mut stranger = Witness::default();
    stranger.look(&without);
    let facts =
        Facts { config: &config, state: &state, roster: &without, standing: &one, witness: &stranger };
    assert!(differences(&facts, false).is_empty(), "not at once");
    let ops = differences(&facts, true);
    apply(&mut state, ops);
    assert_eq!(nodes(&state).len(), 5);
    assert_eq!(state.node_check("s2", "serfHealth").map(|check| check.status), Some(Status::Critical));
    let facts =
        Facts { config: &config, state: &state, roster: &without, standing: &one, witness: &stranger };
    assert!(differences(&facts, true).is_empty(), "nothing twice");

    let mut witness = Witness::default();
    witness.look(&all);
    witness.look(&without);
    let facts = Facts { config: &config, state: &state, roster: &without, standing: &one, witness: &witness };
    let ops = differences_since(&facts, &all);
    apply(&mut state, ops);
    assert_eq!(nodes(&state), ["other", "s1", "s3", "s4"]);

    // It comes back, under its name, as another.
    let mut again = Roster::clone(&without);
    again.insert(Member { id: id(9), name: "s2".into(), server: None, ..member(2, Alive) });
    witness.look(&Arc::new(again));
    assert!(!witness.saw_go("s2", &id(2).to_string()));
}

#[test]
fn only_what_has_changed_is_looked_at_between() {
    let (config, one, witness) = (config(), standing(&[(1, Voter)]), Witness::default());
    let (mut state, all) = pool();
    let mut later = all.clone();
    later.insert(Member { server: None, ..member(3, Failed) });
    later.insert(Member { server: None, ..member(4, Left) });
    let facts = Facts { config: &config, state: &state, roster: &later, standing: &one, witness: &witness };
    let ops = differences_since(&facts, &all);
    assert_eq!(ops.len(), 2);
    apply(&mut state, ops);
    assert_eq!(nodes(&state), ["other", "s1", "s2", "s3"]);
    assert_eq!(state.node_check("s3", "serfHealth").map(|check| check.status), Some(Status::Critical));

    // A name that another has taken over is not removed with the one that left.
    let mut namesake = Member { server: None, ..member(5, Left) };
    namesake.name = "s2".into();
    later.insert(namesake);
    let facts = Facts { config: &config, state: &state, roster: &later, standing: &one, witness: &witness };
    assert!(differences(&facts, true).is_empty());
}

#[test]
fn health_survives_its_way_to_another_server() {
    let health = judge(&standing(&[(1, Voter), (2, NonVoter)]), &roster(&[(1, Alive)]));
    let bytes = rkyv::to_bytes::<rancor::Error>(&health).expect("plain data");
    assert_eq!(rkyv::from_bytes::<ClusterHealth, rancor::Error>(&bytes).expect("the same"), health);
}
