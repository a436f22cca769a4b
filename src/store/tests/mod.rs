//! The store against naive models of itself.
