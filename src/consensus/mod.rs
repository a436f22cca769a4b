//! The one door through which writes reach the replicated state.

mod encoded;
mod error;
mod status;

pub use encoded::{Damaged, Encoded};
pub use error::ProposeError;
pub use status::Status;
