//! Which cluster this server belongs to: nobody's at first, then one for good.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use muster_protocol::entry::{Configuration, Server, ServerId, Suffrage};
use muster_protocol::wire::ClusterId;
use serde_json::{Value, json};

use crate::runtime::bell::Turns;
use crate::runtime::fs;
use crate::runtime::publish::Published;

/// The file within the folder of the log: who takes the log away makes the server blank again.
const FILE: &str = "raft/cluster.json";

/// The cluster, on disk and then in memory. Clones are handles to the same, on one core.
#[derive(Clone)]
pub struct Cluster {
    kept: Published<Kept>,
    /// Whoever makes this server a member of something has the turn until that is durable.
    turns: Rc<Turns>,
    /// `None` for a server without a data folder.
    file: Option<Arc<PathBuf>>,
}

/// What is kept.
#[derive(Clone, Default)]
struct Kept {
    id: Option<ClusterId>,
    /// The cluster's first servers, on each of them. They are written down with the ID, in one piece: a server that
    /// crashes before its log holds them begins with the same ones again.
    founding: Option<Arc<Configuration>>,
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
    /// Reads what an earlier run kept in this data folder.
    ///
    /// # Errors
    /// The file cannot be read, or is not such a file.
    pub async fn open(data_dir: Option<&Path>) -> io::Result<Cluster> {
        let file = data_dir.map(|folder| Arc::new(folder.join(FILE)));
        let kept = match &file {
            Some(path) => read(path).await?,
            None => Kept::default(),
        };
        Ok(Cluster { kept: Published::new(kept), turns: Rc::default(), file })
    }

    /// The cluster; `None` while the server is nobody's.
    pub fn id(&self) -> Option<ClusterId> {
        self.kept.load().id
    }

    /// The first servers of the cluster, if this one is one of them.
    pub fn founding(&self) -> Option<Arc<Configuration>> {
        self.kept.load().founding.clone()
    }

    /// Becomes a member of a cluster that is there already: durably, when it returns.
    ///
    /// # Errors
    /// It belongs to another one, or the disk refuses.
    pub async fn adopt(&self, id: ClusterId) -> Result<(), AdoptError> {
        self.take(Kept { id: Some(id), founding: None }).await
    }

    /// Becomes one of the first servers of a cluster: durably, when it returns.
    ///
    /// # Errors
    /// It belongs to another one, or the disk refuses.
    pub async fn found(&self, id: ClusterId, servers: Configuration) -> Result<(), AdoptError> {
        self.take(Kept { id: Some(id), founding: Some(Arc::new(servers)) }).await
    }

    async fn take(&self, kept: Kept) -> Result<(), AdoptError> {
        let _turn = self.turns.take().await;
        match self.id() {
            Some(own) if Some(own) == kept.id => return Ok(()),
            Some(own) => return Err(AdoptError::Belongs(own)),
            None => {}
        }
        if let Some(file) = &self.file {
            let written = fs::write_atomically(file.as_ref().clone(), text(&kept), 0o600).await;
            written.map_err(AdoptError::Disk)?;
        }
        if let Some(id) = kept.id {
            tracing::info!(target: "agent.server", "this server belongs to cluster {id}");
        }
        self.kept.store(kept);
        Ok(())
    }
}

fn text(kept: &Kept) -> Vec<u8> {
    let servers = kept.founding.iter().flat_map(|founding| &founding.servers);
    let server = |server: &Server| json!({"ID": server.id.to_string(), "Name": server.name, "Address": server.address});
    let document = json!({
        "ClusterID": kept.id.map(|id| id.to_string()),
        "FirstServers": servers.map(server).collect::<Vec<_>>(),
    });
    format!("{document:#}\n").into_bytes()
}

async fn read(path: &Path) -> io::Result<Kept> {
    let bytes = match fs::read(path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(error),
    };
    parse(&bytes).ok_or_else(|| {
        let why = format!(
            "{} does not name a cluster; copy the ClusterID from this file of another server of the cluster: {{\"ClusterID\": \"...\"}}",
            path.display()
        );
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}

fn parse(bytes: &[u8]) -> Option<Kept> {
    let document: Value = serde_json::from_slice(bytes).ok()?;
    let id = ClusterId::parse(document["ClusterID"].as_str()?)?;
    let mut servers = Vec::new();
    for server in document["FirstServers"].as_array().into_iter().flatten() {
        servers.push(Server {
            id: ServerId::parse(server["ID"].as_str()?)?,
            name: server["Name"].as_str()?.to_owned(),
            address: server["Address"].as_str()?.to_owned(),
            suffrage: Suffrage::Voter,
        });
    }
    let founding = (!servers.is_empty()).then(|| Arc::new(Configuration::new(servers)));
    Some(Kept { id: Some(id), founding })
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{FutureExt, poll_once};

    use super::*;
    use crate::runtime::cores::{self, Driver};

    /// Two servers may tell a third of the new cluster at the same time: the second one heard yes while the first one's word was
    /// still on its way to the disk, and after a crash the third knew of no cluster.
    #[test]
    fn whoever_is_told_yes_can_rely_on_the_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_owned();
        let work = move |_| {
            let path = path.clone();
            async move {
                let (ours, other) = (ClusterId([7; 16]), ClusterId([8; 16]));
                let cluster = Cluster::open(Some(&path)).await.expect("nothing yet");
                let mut first = Box::pin(cluster.adopt(ours));
                assert!(poll_once(&mut first).await.is_none(), "the disk takes a while");
                let mut second = Box::pin(cluster.adopt(ours));
                let mut stranger = Box::pin(cluster.adopt(other));
                assert!(poll_once(&mut second).await.is_none(), "nor is anybody else told yes before");
                assert!(poll_once(&mut stranger).await.is_none());
                assert_eq!(cluster.id(), None);
                first.await.expect("it is written down");
                assert_eq!(Cluster::open(Some(&path)).await.expect("a file").id(), Some(ours));
                second.await.expect("it is the same");
                assert!(matches!(stranger.await, Err(AdoptError::Belongs(id)) if id == ours));
            }
            .boxed_local()
        };
        cores::run(Driver::Epoll, 1, work).expect("the core runs to its end");
    }

    #[test]
    fn what_is_kept_comes_back() {
        let server = |n: u8| Server {
            id: ServerId([n; 16]),
            name: format!("s{n}"),
            address: format!("10.0.0.{n}:8300"),
            suffrage: Suffrage::Voter,
        };
        let founding = Some(Arc::new(Configuration::new(vec![server(1), server(2)])));
        for founding in [founding, None] {
            let kept = Kept { id: Some(ClusterId([7; 16])), founding };
            let read = parse(&text(&kept)).expect("it was written so");
            assert_eq!((read.id, read.founding), (kept.id, kept.founding));
        }
        assert!(parse(b"").is_none() && parse(b"{}").is_none() && parse(b"{\"ClusterID\": 1}").is_none());
    }
}
