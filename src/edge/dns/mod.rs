//! UDP and TCP front, lookups, answer cache, recursion.
