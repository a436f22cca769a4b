//! The log on a disk that fails as disks do.

mod crash;
mod disk;
mod world;
