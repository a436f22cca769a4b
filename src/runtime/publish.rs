//! State that one core writes and every core reads: the writer swaps in a whole new value, readers never wait.

use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;

/// A shared place for an immutable value. Clones are handles to the same place.
pub struct Published<T>(Arc<ArcSwap<T>>);

impl<T> Published<T> {
    /// A place that holds `value`.
    pub fn new(value: T) -> Published<T> {
        Published(Arc::new(ArcSwap::from_pointee(value)))
    }

    /// The value as of now; cheap, for short use. Do not hold it across an await.
    pub fn load(&self) -> Guard<Arc<T>> {
        self.0.load()
    }

    /// The value as of now, to keep.
    pub fn load_full(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Puts a new value in place; who loads after this sees it.
    pub fn store(&self, value: T) {
        self.0.store(Arc::new(value));
    }

    /// Puts a value in place that is made from the one there, however many do so at once. `make` may run again.
    pub fn update(&self, mut make: impl FnMut(&T) -> T) {
        self.0.rcu(|old| Arc::new(make(old)));
    }

    /// The same for a value that is shared already.
    pub fn store_arc(&self, value: Arc<T>) {
        self.0.store(value);
    }
}

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Published(self.0.clone())
    }
}
