use crate::store::{WatchId, Watchers};

use super::*;

#[test]
fn a_changed_key_wakes_itself_and_the_prefixes_over_it() {
    let mut watchers = Watchers::new();
    for topic in [key("a/b"), prefix(""), prefix("a"), prefix("a/b"), key("a"), prefix("a/bc"), prefix("b")] {
        watchers.insert(topic.clone(), topic);
    }
    let mut touched = Touched::new();
    touched.add(key("a/b"));
    let mut woken = Vec::new();
    watchers.wake(&touched, &mut woken);
    assert_eq!(woken, [key("a/b"), prefix(""), prefix("a"), prefix("a/b")]);
    assert_eq!(watchers.len(), 3);
    woken.clear();
    watchers.wake(&touched, &mut woken);
    assert!(woken.is_empty(), "the woken are parked no more");
}

#[test]
fn a_watcher_that_left_is_not_woken() {
    let mut watchers = Watchers::new();
    let first = watchers.insert(prefix("p"), 1);
    let second = watchers.insert(prefix("p"), 2);
    assert_eq!(
        (watchers.get(first).copied(), watchers.remove(first), watchers.remove(first)),
        (Some(1), Some(1), None)
    );
    let mut touched = Touched::new();
    touched.add(key("path"));
    let mut woken = Vec::new();
    watchers.wake(&touched, &mut woken);
    assert_eq!(woken, [2]);
    assert!(watchers.is_empty() && watchers.remove(second).is_none());
}

#[test]
fn services_of_the_local_agent_are_woken_by_name() {
    let mut watchers = Watchers::new();
    watchers.insert(Topic::LocalService("Web".into()), 1);
    watchers.insert(Topic::LocalService("db".into()), 2);
    let mut touched = Touched::new();
    touched.add(Topic::LocalService("Web".into()));
    let mut woken = Vec::new();
    watchers.wake(&touched, &mut woken);
    assert_eq!(woken, [1]);
}

#[test]
fn all_are_woken_oldest_first() {
    let mut watchers = Watchers::new();
    let ids: Vec<WatchId> = (0..20).map(|n| watchers.insert(key(&format!("k{}", n % 3)), n)).collect();
    watchers.remove(ids[4]);
    let mut woken = Vec::new();
    watchers.wake_all(&mut woken);
    assert_eq!(woken, (0..20).filter(|n| *n != 4).collect::<Vec<_>>());
}
