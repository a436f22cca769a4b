//! The registry's rules, in virtual time.
