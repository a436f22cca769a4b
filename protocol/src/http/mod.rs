//! HTTP/1.1: incremental request parser, response encoder, and heads of responses to requests of ours. Bytes to bytes; sockets are elsewhere.
//!
//! What is accepted, and the bytes of each refusal, follow Go's `net/http` as clients of Consul know it; where
//! RFC 9112 asks a server to be stricter for safety (folded headers), this one is.

mod body;
mod date;
mod encode;
mod head;
mod method;
mod reject;
mod response;
mod target;

pub use body::{Body, BodyError, CHUNK_LINE_MAX, Progress};
pub use date::{DATE_LEN, http_date};
pub use encode::{chunk, last_chunk, reason, status_line};
pub use head::{Framing, Head, HeadLimits, Headers, head_end};
pub use method::Method;
pub use reject::Reject;
pub use response::{BadResponse, ResponseHead};
pub use target::{Target, clean_path, decode_query, escape_path, percent_decode};
