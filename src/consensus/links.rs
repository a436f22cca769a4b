//! What consensus needs of the links to other servers.

use muster_protocol::entry::{Configuration, ServerId};
use muster_protocol::rpc::PeerMessage;

/// The way out. Called on the control core.
pub trait Links {
    /// Puts a message on its way.
    ///
    /// # Errors
    /// There is no link, or its queue is full: the message comes back, and nothing of it was sent. So consensus may hand a
    /// write to another leader without fear that it is done twice; all else it repeats when it matters.
    fn send(&self, to: ServerId, message: PeerMessage) -> Result<(), PeerMessage>;

    /// The servers to be linked with, this one among them; told at the start and at each change, before a message for a
    /// new one.
    fn servers(&self, configuration: &Configuration);
}

/// The way in, through a bounded channel to the control core. A link whose channel is full waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A message of a server that has shown who it is.
    Message {
        /// Who.
        from: ServerId,
        /// What it says.
        message: PeerMessage,
    },
    /// The link to a server broke: answers that were under way are lost.
    Lost(ServerId),
}
