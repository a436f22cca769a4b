//! The agent's files in the data folder: what [`super::persist`] describes, read at start and written as the registry
//! changes. A file that cannot be read is set aside with a warning; the others load.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::persist::{self, StoredCheck, StoredService, StoredState};
use super::registry::FileChange;
use crate::runtime::fs;

/// Rights of the files: they may hold tokens.
const MODE: u32 = 0o600;
/// What a file that could not be read is renamed to.
const ASIDE: &str = "corrupt";

/// The agent's part of the data folder.
#[derive(Clone, Debug)]
pub struct Files {
    folder: PathBuf,
}

/// What was found at start.
#[derive(Debug, Default)]
pub struct Found {
    /// Services.
    pub services: Vec<StoredService>,
    /// Checks.
    pub checks: Vec<StoredCheck>,
    /// States of TTL checks, by check ID.
    pub states: BTreeMap<String, StoredState>,
}

impl Files {
    /// The files below a data folder.
    pub fn new(folder: impl Into<PathBuf>) -> Files {
        Files { folder: folder.into() }
    }

    /// Reads all.
    ///
    /// # Errors
    /// A folder cannot be listed. Single damaged files are no error.
    pub async fn load(&self) -> io::Result<Found> {
        let states = self.load_kind(&self.folder.join("checks/state"), persist::decode_state).await?;
        Ok(Found {
            services: self.load_kind(&self.folder.join("services"), persist::decode_service).await?,
            checks: self.load_kind(&self.folder.join("checks"), persist::decode_check).await?,
            states: states.into_iter().map(|state| (state.check_id.clone(), state)).collect(),
        })
    }

    async fn load_kind<T>(
        &self,
        folder: &Path,
        decode: impl Fn(&[u8]) -> Result<T, String>,
    ) -> io::Result<Vec<T>> {
        let mut all = Vec::new();
        for path in fs::list(folder).await? {
            // Folders (`state`, the mesh's `configs`) and what was set aside before are not ours to read.
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.len() != 32 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
                continue;
            }
            match fs::read(&path).await.map_err(|e| e.to_string()).and_then(|bytes| decode(&bytes)) {
                Ok(one) => all.push(one),
                Err(why) => set_aside(&path, &why).await,
            }
        }
        Ok(all)
    }

    /// Applies changes in order. A file that cannot be written is logged, with what follows from it; the others are
    /// written all the same.
    ///
    /// # Errors
    /// The last registration that was not written: the text is for whoever asked for it.
    pub async fn apply(&self, changes: Vec<FileChange>) -> Result<(), String> {
        let mut outcome = Ok(());
        for change in changes {
            let registers = matches!(change, FileChange::PutService(_) | FileChange::PutCheck(_));
            let Err(why) = self.apply_one(change).await else { continue };
            if registers {
                let text = format!(
                    "a registration could not be persisted: {why}; it is active now and will be lost at the next restart"
                );
                tracing::error!("{text}");
                outcome = Err(text);
            } else {
                tracing::error!(
                    "a removal or a state could not be persisted: {why}; the next restart brings back what was there before"
                );
            }
        }
        outcome
    }

    async fn apply_one(&self, change: FileChange) -> io::Result<()> {
        let path = |kind: &str, id: &str| self.folder.join(kind).join(persist::file_name(id));
        match change {
            FileChange::PutService(service) => {
                let bytes = persist::encode_service(&service);
                fs::write_atomically(path("services", &service.row.id), bytes, MODE).await
            }
            FileChange::DropService(id) => fs::remove(path("services", &id)).await,
            FileChange::PutCheck(check) => {
                let bytes = persist::encode_check(&check);
                fs::write_atomically(path("checks", &check.row.check_id), bytes, MODE).await
            }
            FileChange::DropCheck(id) => {
                fs::remove(path("checks", &id)).await?;
                fs::remove(path("checks/state", &id)).await
            }
            FileChange::DropCheckFile(id) => fs::remove(path("checks", &id)).await,
            FileChange::PutState(state) => {
                let bytes = persist::encode_state(&state);
                fs::write_atomically(path("checks/state", &state.check_id), bytes, MODE).await
            }
        }
    }
}

async fn set_aside(path: &Path, why: &str) {
    let aside = path.with_extension(ASIDE);
    let from = path.to_owned();
    let to = aside.clone();
    let moved = fs::rename(from, to).await;
    match moved {
        Ok(()) => tracing::warn!(
            "{} cannot be read: {why}; it is kept as {} and what it registered is missing until registered again",
            path.display(),
            aside.display()
        ),
        Err(e) => {
            tracing::warn!("{} cannot be read: {why}; setting it aside failed too: {e}", path.display())
        }
    }
}
