//! Which cluster this server belongs to: nobody's at first, then one for good.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_protocol::wire::ClusterId;

use crate::runtime::fs;
use crate::runtime::publish::Published;

/// File of the ID within the folder of the log. Who takes the log away makes the server blank again.
const FILE: &str = "raft/cluster-id";

/// The cluster's ID, in memory and on disk. Clones are handles to the same.
#[derive(Clone)]
pub struct Cluster {
    id: Published<Option<ClusterId>>,
    /// `None` for a server without a data folder.
    file: Option<Arc<PathBuf>>,
}

/// Why a server does not take the ID of a cluster.
#[derive(Debug)]
pub enum AdoptError {
    /// It belongs to another one.
    Belongs(ClusterId),
    /// The ID cannot be written down.
    Disk(io::Error),
}

impl Cluster {
    /// Reads the ID that an earlier run kept in this data folder.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold an ID.
    pub async fn open(data_dir: Option<&Path>) -> io::Result<Cluster> {
        let file = data_dir.map(|folder| Arc::new(folder.join(FILE)));
        let id = match &file {
            Some(path) => read(path).await?,
            None => None,
        };
        Ok(Cluster { id: Published::new(id), file })
    }

    /// The cluster; `None` while the server is blank.
    pub fn id(&self) -> Option<ClusterId> {
        **self.id.load()
    }

    /// Becomes a member of a cluster: durably, when it returns.
    ///
    /// # Errors
    /// It belongs to another one, or the disk refuses.
    pub async fn adopt(&self, id: ClusterId) -> Result<(), AdoptError> {
        match self.id() {
            Some(own) if own == id => return Ok(()),
            Some(own) => return Err(AdoptError::Belongs(own)),
            None => {}
        }
        // From here on nobody else's ID is taken.
        self.id.store(Some(id));
        if let Some(file) = &self.file {
            let text = format!("{id}\n").into_bytes();
            if let Err(error) = fs::write_atomically(file.as_ref().clone(), text, 0o600).await {
                self.id.store(None);
                return Err(AdoptError::Disk(error));
            }
        }
        tracing::info!("server: this server belongs to cluster {id} now");
        Ok(())
    }
}

async fn read(path: &Path) -> io::Result<Option<ClusterId>> {
    let bytes = match fs::read(path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&bytes);
    ClusterId::parse(text.trim()).map(Some).ok_or_else(|| {
        let why = format!(
            "{} holds no cluster ID but {:?}; put the ID there that the other servers of this cluster have in theirs",
            path.display(),
            text.trim()
        );
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}
