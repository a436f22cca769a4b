//! HTTP/1.1: incremental request parser, response encoder. Bytes to bytes; sockets are elsewhere.
