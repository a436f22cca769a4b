//! A command as bytes: encoded once, carried and read in place.

use std::fmt;

use bytes::Bytes;
use muster_protocol::entry::{BODY_ALIGNMENT, body};
use rkyv::rancor;
use rkyv::util::AlignedVec;

use crate::store::command::{ArchivedCommand, Command};

/// Version of the archives that [`Encoded`] holds, as entries of the log name it.
pub const COMMAND_VERSION: u8 = 1;

/// A valid archive of one [`Command`]. A clone shares the bytes.
#[derive(Clone, Debug)]
pub struct Encoded(Bytes);

impl Encoded {
    /// Encodes a command. This happens once in its life.
    pub fn of(command: &Command) -> Encoded {
        let archive = AlignedVec::<BODY_ALIGNMENT>::new();
        let archive = rkyv::api::high::to_bytes_in::<_, rancor::Error>(command, archive);
        Encoded(body(archive.expect("rows are plain data, which always encodes into memory")))
    }

    /// Takes bytes from outside this process, after checking that they hold a command. They are copied only if their
    /// address does not suit an archive.
    ///
    /// # Errors
    /// They do not.
    pub fn check(bytes: &Bytes) -> Result<Encoded, Damaged> {
        let bytes = aligned(bytes);
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
        unsafe { Encoded::trusted(&self.0) }
    }

    /// The command in the body of an entry, read in place.
    ///
    /// # Safety
    /// The bytes are those of an [`Encoded`], at an aligned address.
    pub unsafe fn trusted(body: &[u8]) -> &ArchivedCommand {
        debug_assert!(body.as_ptr().addr().is_multiple_of(BODY_ALIGNMENT), "bodies lie aligned");
        // SAFETY: the caller says so.
        unsafe { rkyv::access_unchecked::<ArchivedCommand>(body) }
    }

    /// The bytes, as they travel and lie in the log.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes, to be sent on their way.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// The same bytes, at an address that suits an archive.
pub(super) fn aligned(bytes: &Bytes) -> Bytes {
    if bytes.as_ptr().addr().is_multiple_of(BODY_ALIGNMENT) {
        return bytes.clone();
    }
    let mut copy = AlignedVec::<BODY_ALIGNMENT>::with_capacity(bytes.len());
    copy.extend_from_slice(bytes);
    body(copy)
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
