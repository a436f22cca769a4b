//! Tests of the whole of Raft: its rules one by one, and clusters on a bad network.

mod network;
