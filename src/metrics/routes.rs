//! How long requests took, by route, under Consul's names: `http.GET.v1.kv._`.
//!
//! Each core has figures of its own that only it writes, so that noting a request costs a few plain loads and stores.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Figures, Kind, Name, Row, SampleCells, Summary, bucket};
use crate::runtime::publish::Published;

/// The figures of all cores, by the names of their routes. It grows when a core meets a route for the first time.
static ALL: LazyLock<Published<Vec<Named>>> = LazyLock::new(|| Published::new(Vec::new()));

/// How many questions were asked about each service, on all cores.
static SERVICES: Mutex<Vec<Service>> = Mutex::new(Vec::new());
/// Services that one core counts by name. Who asks makes up the names, so that all others share a row without one.
const SERVICES_MAX: usize = 1024;

/// The questions of one kind about one service on one core.
struct Service {
    metric: &'static str,
    /// Empty: those beyond [`SERVICES_MAX`].
    service: String,
    asked: Arc<AtomicU64>,
}

fn services() -> MutexGuard<'static, Vec<Service>> {
    SERVICES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One route's name and its figures on one core.
type Named = (String, Arc<SampleCells>);

/// One route's figures on one core.
#[derive(Clone)]
pub struct Meter {
    cells: Arc<SampleCells>,
    /// Counted too.
    also: Option<Arc<AtomicU64>>,
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
        Meter { cells, also: None, _here: PhantomData }
    }

    /// Notes one request.
    pub fn note(&self, took: Duration) {
        // Nobody else writes these cells, so nothing is lost between the load and the store.
        let add = |cell: &AtomicU64, n: u64| cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        add(&self.cells.count, 1);
        add(&self.cells.sum, us);
        add(&self.cells.squares, us.wrapping_mul(us));
        add(&self.cells.buckets[bucket(us)], 1);
        self.cells.stretch(us);
        if let Some(also) = &self.also {
            add(also, 1);
        }
    }
}

/// The meters of one core, made as routes are met. Bounded by the table of routes and the methods told apart.
#[derive(Default)]
pub struct Meters {
    routes: HashMap<(&'static str, &'static str), Meter>,
    services: HashMap<(&'static str, String), Arc<AtomicU64>>,
}

impl Meters {
    /// The meter of a method and a route's pattern.
    pub fn of(&mut self, method: &'static str, pattern: &'static str) -> &Meter {
        self.routes.entry((method, pattern)).or_insert_with(|| Meter::new(name(method, pattern)))
    }
}

impl Meters {
    /// The same meter, that also counts under the name of the service that is asked about, where Consul does.
    pub fn about_service(&mut self, meter: Meter, pattern: &str, service: impl FnOnce() -> String) -> Meter {
        let metric = match pattern {
            "/v1/catalog/service/" => "catalog.service.query",
            "/v1/health/service/" => "health.service.query",
            _ => return meter,
        };
        let mut key = (metric, service());
        if self.services.len() >= SERVICES_MAX && !self.services.contains_key(&key) {
            key.1.clear();
        }
        let asked = self.services.entry(key).or_insert_with_key(|(metric, service)| {
            let asked = Arc::<AtomicU64>::default();
            services().push(Service { metric, service: service.clone(), asked: asked.clone() });
            asked
        });
        Meter { also: Some(asked.clone()), ..meter }
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

/// All routes and services that were asked for, in order, each over all cores. `taken`: the extremes begin anew.
pub(super) fn rows(taken: bool) -> Vec<Row> {
    let mut found: BTreeMap<Name, (Kind, Figures)> = BTreeMap::new();
    for (name, cells) in ALL.load().iter() {
        let row = found.entry(Name::plain(name.clone())).or_insert((Kind::Sample, Figures::default()));
        row.1.merge(&cells.figures(taken));
    }
    for Service { metric, service, asked } in services().iter() {
        let label = (!service.is_empty()).then(|| ("service", service.clone()));
        let name = Name { base: (*metric).into(), label };
        let row = found.entry(name).or_insert((Kind::Counter, Figures::default()));
        row.1.merge(&Figures::ones(asked.load(Relaxed)));
    }
    found.into_iter().map(|(name, (kind, figures))| Row { name, kind, figures }).collect()
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
        let found = rows(false).into_iter().find(|row| row.name.base == "http.GET.test.added.up").unwrap();
        assert_eq!((found.figures.count, found.sum(), found.min(), found.max()), (4, 8.0, 1.0, 3.0));
        assert_eq!(summaries()["http.GET.test.added.up"].count, 4);
    }

    #[test]
    fn services_are_counted_by_name_as_long_as_they_are_few() {
        let mut meters = Meters::default();
        let mut ask = |service: String| {
            let meter = meters.of("GET", "/test/services").clone();
            meters.about_service(meter, "/v1/health/service/", || service).note(Duration::ZERO);
        };
        (0..SERVICES_MAX + 7).for_each(|n| ask(format!("test-{n}")));
        ask("test-3".to_owned());
        let count = |label: Option<(&'static str, String)>| {
            let name = Name { base: "health.service.query".into(), label };
            rows(false).into_iter().find(|row| row.name == name).map(|row| row.figures.count)
        };
        assert_eq!(count(Some(("service", "test-3".to_owned()))), Some(2));
        assert_eq!(count(Some(("service", format!("test-{SERVICES_MAX}")))), None);
        assert_eq!(count(None), Some(7));
        assert_eq!(meters.services.len(), SERVICES_MAX + 1);
    }
}
