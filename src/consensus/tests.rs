//! The door, driven without cores.
