//! The log on a disk that fails as disks do.

mod crash;
mod damage;
mod disk;
mod faults;
mod fixtures;
mod properties;
mod world;
