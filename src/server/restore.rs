//! Restoring an archive: read once to know that it is whole, then once more to send it through the log.

use std::fmt;
use std::io::{Cursor, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_lite::future;

use crate::archive;
use crate::consensus::{Proposals, ProposeError};
use crate::runtime::spool::Spool;
use crate::runtime::{blocking, mesh, random, task, time};
use crate::store::command::{Applied, Command, RestoreOp};
use crate::store::{RESTORE_LENGTH_MAX, RESTORE_PART_LENGTH_MAX, Section, StateBuilder};

/// Sections that are unpacked ahead of the log.
const SECTIONS_AHEAD: usize = 2;

/// Pause before a part is proposed again that found the queue of writes full, and how often.
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);
const BUSY_RETRIES: usize = 200;

/// Whether an archive is being restored: a cluster takes one at a time.
static RESTORING: AtomicBool = AtomicBool::new(false);

/// The right to restore. Given back when dropped.
pub struct Turn(());

impl Turn {
    /// Takes it, unless somebody has it.
    pub fn take() -> Option<Turn> {
        (!RESTORING.swap(true, Ordering::AcqRel)).then_some(Turn(()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        RESTORING.store(false, Ordering::Release);
    }
}

/// An archive as it came.
#[derive(Clone, Debug)]
pub enum Archive {
    /// In memory.
    Memory(Bytes),
    /// In a file.
    File(Spool),
}

impl Archive {
    /// Its bytes from the first on. Blocking.
    fn reader(&self) -> Box<dyn Read + Send> {
        match self {
            Archive::Memory(bytes) => Box::new(Cursor::new(bytes.clone())),
            Archive::File(spool) => Box::new(spool.reader()),
        }
    }
}

/// Why nothing was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// The archive is not taken, or the servers gave it up. The tables are as they were.
    Archive(String),
    /// A step was not taken. When it was the last one, the outcome may be unknown; the error says so then.
    Propose(ProposeError),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Archive(text) => f.write_str(text),
            RestoreError::Propose(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RestoreError {}

/// Replaces all tables of the cluster by those of an archive. From any server; nothing is proposed of a damaged archive.
///
/// # Errors
/// See [`RestoreError`].
pub async fn restore(proposals: &Proposals, archive: Archive) -> Result<(), RestoreError> {
    let whole = archive.clone();
    let sections = off_the_core(move || check(whole.reader(), RESTORE_LENGTH_MAX))
        .await?
        .map_err(RestoreError::Archive)?;
    let id = random::seed();
    propose(proposals, RestoreOp::Begin { id, sections }).await?;
    match send(proposals, id, archive).await {
        Ok(()) => {
            tracing::info!("the state was replaced by that of a snapshot of {sections} sections");
            Ok(())
        }
        Err(error) => {
            tracing::warn!("a snapshot was not restored: {error}");
            // If this fails too, a change of leader or the silence ends the restore.
            let _ = proposals.propose(&Command::Restore(RestoreOp::Abort { id })).await;
            Err(error)
        }
    }
}

/// Reads the archive to its end: how many sections it has. One that holds more than the state takes is refused before anything
/// goes into the log, at its first byte too many: packed zeros unpack to a thousand times as much.
fn check(archive: impl Read, length_max: usize) -> Result<u64, String> {
    let mut length = 0;
    let contents = archive::read(archive, &mut |Section { kind, version, bytes }| {
        length += bytes.len();
        if length > length_max {
            return Err(format!("the archive holds more than the {length_max} bytes that a restore takes"));
        }
        StateBuilder::check(kind, version, &bytes).map(drop).map_err(|why| why.to_string())
    });
    let contents = contents.map_err(|why| why.to_string())?;
    contents.origin.check().map_err(|why| why.to_string())?;
    Ok(contents.sections)
}

/// Sends the parts and the commit.
async fn send(proposals: &Proposals, id: u64, archive: Archive) -> Result<(), RestoreError> {
    let (ahead, mut sections) = mesh::channel(SECTIONS_AHEAD);
    let reading = task::spawn(blocking::run(move || {
        archive::read(archive.reader(), &mut |section| {
            future::block_on(ahead.send(section)).map_err(|_| "nobody wants the rest".to_owned())
        })
    }));
    let mut number = 0;
    while let Some(Section { kind, version, bytes }) = sections.recv().await {
        let mut pieces = bytes.chunks(RESTORE_PART_LENGTH_MAX).peekable();
        while let Some(piece) = pieces.next() {
            let (last, bytes) = (pieces.peek().is_none(), piece.to_vec());
            propose(proposals, RestoreOp::Part { id, number, kind, version, last, bytes }).await?;
            number += 1;
        }
    }
    drop(reading);
    propose(proposals, RestoreOp::Commit { id }).await
}

/// Proposes a step; waits where the queue of writes is full.
async fn propose(proposals: &Proposals, op: RestoreOp) -> Result<(), RestoreError> {
    let command = Command::Restore(op);
    for _ in 0..BUSY_RETRIES {
        match proposals.propose(&command).await {
            Ok(Applied::Refused(text)) => return Err(RestoreError::Archive(text)),
            Ok(_) => return Ok(()),
            Err(ProposeError::TooBusy) => time::sleep(BUSY_PAUSE).await,
            Err(error) => return Err(RestoreError::Propose(error)),
        }
    }
    Err(RestoreError::Propose(ProposeError::TooBusy))
}

async fn off_the_core<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RestoreError> {
    blocking::run(job).await.map_err(|why| RestoreError::Archive(why.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::State;

    #[test]
    fn an_archive_of_too_many_bytes_is_refused_before_anything_is_proposed() {
        let facts = archive::Facts { term: 1, servers: Vec::new(), configuration_index: 1, unix_ms: 0 };
        let mut writer = archive::Writer::new(&State::new(), facts);
        let bytes: Vec<u8> = std::iter::from_fn(|| writer.next_piece()).flatten().collect();
        assert_eq!(check(&bytes[..], 1 << 20), Ok(1), "the head is a section");
        let refused = check(&bytes[..], 8).expect_err("it has more bytes than these");
        assert!(refused.contains("more than the 8 bytes that a restore takes"), "{refused}");
    }
}
