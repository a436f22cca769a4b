//! The one door through which writes reach the replicated state. A [`Proposals`] is held by whoever accepts writes,
//! on any core; [`run`] orders and applies them on the control core.
//!
//! Today one voter sequences alone and in memory. A replicated log comes in behind the same door: nothing above
//! may know more of consensus than this face.

mod error;
mod status;

pub use error::ProposeError;
pub use status::Status;
