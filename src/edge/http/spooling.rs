//! Request bodies that may be too large for memory: archives of the whole state. What has come of one goes into a file without
//! a name in the data folder, a piece at a time, and its client is not read from while a piece is on its way there. An agent
//! without a data folder keeps them in memory, and takes no large ones.

use std::io;
use std::path::PathBuf;

use super::connection::{Phase, Receiving};
use super::exchange::Response;
use super::limits::SPOOLED_AT;
use super::park::ConnId;
use super::router::BodyLimit;
use super::server::Server;
use super::stream::News;
use crate::runtime::spool::Spool;
use crate::runtime::{blocking, task};

/// A piece that has been added to a body's file, and the buffer that it came in.
pub type Spooled = (io::Result<Spool>, Vec<u8>);

impl Receiving {
    /// Bytes of the body so far.
    pub fn size(&self) -> usize {
        let spooled = self.spool.as_ref().map_or(0, Spool::length);
        usize::try_from(spooled).unwrap_or(usize::MAX).saturating_add(self.data.len())
    }

    /// Whether what is in memory is to go into the file now. `done`: nothing more comes.
    pub fn is_to_be_spooled(&self, done: bool) -> bool {
        let enough = self.data.len() >= SPOOLED_AT || (done && self.spool.is_some());
        self.admitted.route.body == BodyLimit::Archive && self.folder.is_some() && enough
    }
}

impl Server {
    /// Hands what is in memory of a body to its file.
    pub(super) fn spool(&mut self, id: ConnId, done: bool) {
        let inbox = self.inbox.clone();
        let Some(conn) = self.conn(id) else { return };
        let Phase::Body(mut receiving) = std::mem::replace(&mut conn.phase, Phase::Head) else { return };
        receiving.done = done;
        let (spool, folder) = (receiving.spool.take(), receiving.folder.clone());
        let data = std::mem::take(&mut receiving.data);
        conn.phase = Phase::Spooling(receiving);
        let work = async move {
            let written = blocking::run(move || append(spool, folder, data)).await;
            let failed = |panicked| (Err(io::Error::other(panicked)), Vec::new());
            inbox.post(News::Spooled(id, written.unwrap_or_else(failed)));
        };
        task::spawn(work).detach();
    }

    /// Goes on with a body of which a piece has been written.
    pub(super) fn spooled(&mut self, id: ConnId, (spool, buffer): Spooled) {
        let tick = self.clock.tick;
        let Some(conn) = self.conn(id) else { return };
        let Phase::Spooling(mut receiving) = std::mem::replace(&mut conn.phase, Phase::Head) else { return };
        let spool = match spool {
            Ok(spool) => spool,
            Err(error) => {
                let text = format!("the archive cannot be kept until it is whole: {error}");
                tracing::warn!("http: {text}");
                return self.answer_and_close(id, &Response::internal(text));
            }
        };
        receiving.spool = Some(spool);
        receiving.data = buffer;
        let done = receiving.done;
        conn.progress = tick;
        conn.phase = Phase::Body(receiving);
        if done {
            self.on_body(id);
        }
        self.pump(id);
    }
}

/// The file, made if there is none yet, with the bytes behind what is in it; and their buffer, empty.
fn append(spool: Option<Spool>, folder: Option<PathBuf>, mut data: Vec<u8>) -> Spooled {
    let spool = match spool {
        Some(spool) => Ok(spool),
        None => Spool::create(&folder.unwrap_or_else(|| PathBuf::from("."))),
    };
    let written = spool.and_then(|mut spool| spool.append(&data).map(|()| spool));
    data.clear();
    (written, data)
}
