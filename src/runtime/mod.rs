//! The shell over the kernel: cores, sockets, files, timers, processes, signals, mesh. Nothing else in the tree
//! names glommio, a raw descriptor, a thread or a clock.
