//! Folders that released versions wrote, and that every later one must read.
