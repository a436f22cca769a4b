//! How long requests took, by route, under Consul's names: `http.GET.v1.kv._`.
//!
//! Each core has figures of its own that only it writes, so that noting a request costs a few plain loads and stores.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::{SampleCells, Summary, bucket};
use crate::runtime::publish::Published;

/// The figures of all cores, by the names of their routes. It grows when a core meets a route for the first time.
static ALL: LazyLock<Published<Vec<Named>>> = LazyLock::new(|| Published::new(Vec::new()));

/// One route's name and its figures on one core.
type Named = (String, Arc<SampleCells>);

/// One route's figures on one core.
#[derive(Clone)]
pub struct Meter {
    cells: Arc<SampleCells>,
    /// Never on another core: see [`Meter::note`].
    _here: PhantomData<Rc<()>>,
}

impl Meter {
    fn new(name: String) -> Meter {
        let cells = Arc::new(SampleCells::new());
        ALL.update(|all| {
            let mut all = all.clone();
            all.push((name.clone(), cells.clone()));
            all
        });
        Meter { cells, _here: PhantomData }
    }

    /// Notes one request.
    pub fn note(&self, took: Duration) {
        // Nobody else writes these cells, so nothing is lost between the load and the store.
        let add = |cell: &AtomicU64, n: u64| cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        add(&self.cells.count, 1);
        add(&self.cells.sum_us, us);
        add(&self.cells.buckets[bucket(us)], 1);
    }
}

/// The meters of one core, made as routes are met. Bounded by the table of routes and the methods told apart.
#[derive(Default)]
pub struct Meters(HashMap<(&'static str, &'static str), Meter>);

impl Meters {
    /// The meter of a method and a route's pattern.
    pub fn of(&mut self, method: &'static str, pattern: &'static str) -> &Meter {
        self.0.entry((method, pattern)).or_insert_with(|| Meter::new(name(method, pattern)))
    }
}

/// As Consul names a route: dots for slashes, and `_` for what follows the last one.
fn name(method: &str, pattern: &str) -> String {
    let mut name = format!("http.{method}");
    for part in pattern.strip_prefix('/').unwrap_or(pattern).split('/') {
        name.push('.');
        name.push_str(if part.is_empty() { "_" } else { part });
    }
    name
}

/// All routes that were asked for, in order, each over all cores.
pub(super) fn summaries() -> BTreeMap<String, Summary> {
    let mut found: BTreeMap<String, Summary> = BTreeMap::new();
    for (name, cells) in ALL.load().iter() {
        found.entry(name.clone()).or_default().add(cells);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_consul_s() {
        assert_eq!(name("GET", "/v1/kv/"), "http.GET.v1.kv._");
        assert_eq!(name("PUT", "/v1/agent/service/register"), "http.PUT.v1.agent.service.register");
        assert_eq!(name("GET", "/"), "http.GET._");
    }

    #[test]
    fn cores_are_added_up() {
        let core = || {
            let mut meters = Meters::default();
            for ms in [1, 3] {
                meters.of("GET", "/test/added/up").note(Duration::from_millis(ms));
            }
        };
        for _ in 0..2 {
            std::thread::spawn(core).join().unwrap();
        }
        let found = &summaries()["http.GET.test.added.up"];
        assert_eq!((found.count, found.sum_us), (4, 8000));
    }
}
