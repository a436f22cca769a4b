//! A command as bytes: encoded once, carried and read in place.

use std::fmt;

use rkyv::rancor;
use rkyv::util::AlignedVec;

use crate::store::command::{ArchivedCommand, Command};

/// A valid archive of one [`Command`].
#[derive(Debug)]
pub struct Encoded(AlignedVec);

impl Encoded {
    /// Encodes a command. This happens once in its life.
    pub fn of(command: &Command) -> Encoded {
        let bytes = rkyv::to_bytes::<rancor::Error>(command);
        Encoded(bytes.expect("rows are plain data, which always encodes into memory"))
    }

    /// Takes bytes from outside this process, after checking that they hold a command.
    ///
    /// # Errors
    /// They do not.
    pub fn check(bytes: AlignedVec) -> Result<Encoded, Damaged> {
        Encoded::validate(&bytes)?;
        Ok(Encoded(bytes))
    }

    /// Checks bytes that stay where they are: an entry's body as it came in from another server.
    ///
    /// # Errors
    /// They do not hold a command, or lie unaligned.
    pub fn validate(bytes: &[u8]) -> Result<(), Damaged> {
        let read = rkyv::access::<ArchivedCommand, rancor::Error>(bytes);
        read.map(|_| ()).map_err(|error| Damaged(error.to_string()))
    }

    /// The command, read in place.
    pub fn command(&self) -> &ArchivedCommand {
        // SAFETY: the bytes are a valid archive of a `Command`: `of` has just made them from one or `check` has
        // validated them, and they cannot have changed since, as the field is private and only ever lent immutably.
        unsafe { rkyv::access_unchecked::<ArchivedCommand>(&self.0) }
    }

    /// The bytes, as they travel and lie in the log.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes that are not a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged(String);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not a valid command: {}; the sender runs another version or the bytes were damaged on the way",
            self.0
        )
    }
}

impl std::error::Error for Damaged {}
