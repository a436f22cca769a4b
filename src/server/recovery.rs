//! `peers.json`: how an operator revives a cluster whose majority is lost, as with Consul. The file lies in `raft` in the
//! data folder beside `peers.info`, which explains it; it is read at the start, and removed once the log holds what it says.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::consensus::{Forced, Proposals};
use crate::runtime::{fs, time};

/// How often is looked whether the log holds it.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What the file says, until it is removed.
pub struct Recovery {
    path: PathBuf,
    forced: Forced,
}

impl Recovery {
    /// Reads the file of this data folder, if there is one. At the very first start there is no `peers.info`: then one is
    /// written, and a `peers.json` removed, for a new server has nothing to recover from.
    ///
    /// # Errors
    /// A file cannot be read or written, or does not say what it should.
    pub async fn read(data_dir: &Path) -> Result<Option<Recovery>, String> {
        let folder = data_dir.join("raft");
        let path = folder.join("peers.json");
        let info = folder.join("peers.info");
        let failed = |path: &Path, why: &io::Error| format!("recovery failed on {}: {why}", path.display());
        if !exists(&info).await.map_err(|why| failed(&info, &why))? {
            fs::make_folder(&folder).map_err(|why| failed(&folder, &why))?;
            let text = INFO.as_bytes().to_vec();
            fs::write_atomically(info.clone(), text, 0o600).await.map_err(|why| failed(&info, &why))?;
            if exists(&path).await.map_err(|why| failed(&path, &why))? {
                tracing::warn!(target: "agent.server", "deleting peers.json, as this server starts for the first time");
                fs::remove(path.clone()).await.map_err(|why| failed(&path, &why))?;
            }
            return Ok(None);
        }
        let bytes = match fs::read(path.clone()).await {
            Ok(bytes) => bytes,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(failed(&path, &why)),
        };
        tracing::info!(target: "agent.server", "found peers.json file, recovering Raft configuration...");
        let forced = Forced::parse(&bytes).map_err(|why| {
            format!(
                "recovery failed to parse {}: {why}; correct the file, or remove it to start without",
                path.display()
            )
        })?;
        Ok(Some(Recovery { path, forced }))
    }

    /// What the file says.
    pub fn forced(&self) -> &Forced {
        &self.forced
    }

    /// Waits until the log holds it, then removes the file.
    pub async fn finish(self, proposals: &Proposals) {
        let holds = || {
            let standing = proposals.standing();
            let servers = &standing.configuration.servers;
            servers.len() == self.forced.0.len()
                && servers.iter().all(|server| self.forced.0.iter().any(|f| f.address == server.address))
        };
        while !holds() {
            time::sleep(LOOK_INTERVAL).await;
        }
        match fs::remove(self.path.clone()).await {
            Ok(()) => {
                tracing::info!(target: "agent.server", "deleted peers.json file after successful recovery")
            }
            Err(why) => {
                tracing::error!(target: "agent.server", "{} was applied but cannot be deleted: {why}; delete it, or the next start applies it again",
                    self.path.display()
                )
            }
        }
    }
}

async fn exists(path: &Path) -> io::Result<bool> {
    match fs::read(path).await {
        Ok(_) => Ok(true),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(why) => Err(why),
    }
}

/// What `peers.info` says.
const INFO: &str = r#"
The file peers.json in this folder is only used for recovery after an outage, when a
majority of the servers is lost for good. Under normal operation it is not there.

To recover: stop all servers that remain, put the same peers.json into the folder
"raft" of each one's data_dir, and start them again. It names the servers of which the
cluster consists from then on, and is deleted once it has been applied:

[
  {
    "id": "adf4238a-882b-9ddc-4a9d-5b6758e4159e",
    "address": "10.1.0.1:8300",
    "non_voter": false
  },
  {
    "id": "8b6dda82-3103-11e7-93ae-92361f002671",
    "address": "10.1.0.2:8300",
    "non_voter": false
  }
]

"id" is the server's node ID. It can be found in the file "node-id" in its data_dir,
or in its log where it starts.

"address" is the address and port at which other servers reach it.

"non_voter" says whether it only receives the log. False when left out.

The form of Raft protocol 2 and earlier is read too, if the remaining log knows whose
addresses these are:

[
  "10.1.0.1:8300",
  "10.1.0.2:8300"
]

Writes that were acknowledged are kept if one of the servers that remain has them. It is
crucial that all servers are stopped before the file is written, and that all get the
same.

This file, peers.info, was written when the server started for the first time. A
peers.json that lies here without it is deleted, so that a new server recovers nothing.
"#;
