//! DNS: question in, answer out, truncation, EDNS. Bytes to bytes; sockets are elsewhere.
