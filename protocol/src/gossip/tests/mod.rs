//! Stories of small pools on a network of their own, on virtual time.

mod bytes;
mod failures;
mod hostile;
mod joining;
mod leaving;
mod network;
