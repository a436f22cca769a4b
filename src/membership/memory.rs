//! Where the other members were, kept across restarts: a server that was told of one other only finds all of them again,
//! even when all have stopped (Consul: `serf/local.snapshot`).

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::runtime::fs;

/// The file within the data folder: one address in a line.
const FILE: &str = "serf/members.txt";

/// A file longer than this is not one of ours, bytes.
const LENGTH_MAX: usize = 64 << 10;

/// The file, and what is in it.
pub(super) struct Memory {
    path: Option<PathBuf>,
    kept: Vec<SocketAddr>,
}

impl Memory {
    /// Reads the file of this data folder. One that cannot be read is as good as none: others may find this server.
    pub async fn open(data_dir: Option<&Path>) -> Memory {
        let Some(path) = data_dir.map(|folder| folder.join(FILE)) else {
            return Memory { path: None, kept: Vec::new() };
        };
        let kept = match fs::read(path.clone()).await {
            Ok(bytes) if bytes.len() <= LENGTH_MAX => parse(&bytes),
            Ok(_) => Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(target: "agent.server.serf.lan", "the members of the last run are not known: {error}");
                Vec::new()
            }
        };
        Memory { path: Some(path), kept }
    }

    /// Where members were.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.kept
    }

    /// Keeps these instead.
    pub async fn keep(&mut self, mut addresses: Vec<SocketAddr>) {
        addresses.sort_unstable();
        addresses.dedup();
        let Some(path) = self.path.as_ref().filter(|_| addresses != self.kept) else { return };
        let text: String = addresses.iter().map(|address| format!("{address}\n")).collect();
        match fs::write_atomically(path.clone(), text.into_bytes(), 0o600).await {
            Ok(()) => self.kept = addresses,
            // The next change tries again.
            Err(error) => {
                tracing::warn!(target: "agent.server.serf.lan", "the members are not kept: {error}")
            }
        }
    }
}

/// Lines that are no addresses are passed over.
fn parse(bytes: &[u8]) -> Vec<SocketAddr> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}
