//! Tests of the whole of Raft: its rules one by one, and clusters on a bad network.

mod changes;
mod cluster;
mod elections;
mod healing;
mod liars;
mod network;
mod one;
mod reads;
mod replication;
mod window;
