//! Who this agent is: its node's row in the catalog, its ID, and the lock on its data folder.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha512};

use crate::config::Config;
use crate::runtime::{blocking, fs, host, random};
use crate::store::model::Node;

/// Name of the file with the node's ID.
const NODE_ID_FILE: &str = "node-id";

/// The row that this node should have in the catalog.
pub fn node_row(config: &Config, id: String) -> Node {
    let mut meta = config.node_meta.clone();
    meta.insert("consul-network-segment".to_owned(), config.segment.clone());
    Node {
        id,
        node: config.node_name.clone(),
        address: config.addresses.advertise.to_string(),
        datacenter: config.datacenter.clone(),
        tagged_addresses: Some(config.addresses.tagged.clone()),
        meta: Some(meta),
        create_index: 0,
        modify_index: 0,
    }
}

/// The node's ID: as configured, else from the data folder, else a new one, kept in the data folder; that is made of the
/// machine's where the configuration says so.
///
/// # Errors
/// The file cannot be read or written, or does not hold an ID.
pub async fn node_id(config: &Config) -> io::Result<String> {
    let kept = match &config.data_dir {
        Some(folder) => read_id(&folder.join(NODE_ID_FILE)).await?,
        None => None,
    };
    let id = match (&config.node_id, &kept) {
        (Some(id), _) => id.to_ascii_lowercase(),
        (None, Some(id)) => id.clone(),
        (None, None) if config.host_node_id => {
            let host = blocking::run(host::id).await.map_err(io::Error::other)?;
            id_of(&host).unwrap_or_else(random::uuid)
        }
        (None, None) => random::uuid(),
    };
    if let Some(folder) = &config.data_dir
        && kept.as_ref() != Some(&id)
    {
        let bytes = id.clone().into_bytes();
        fs::write_atomically(folder.join(NODE_ID_FILE), bytes, 0o600).await?;
    }
    Ok(id)
}

/// The ID that Consul makes of a machine's: machines of one series have nearly the same.
fn id_of(host: &str) -> Option<String> {
    let host = uuid::Uuid::try_parse(host).ok()?.to_string();
    let digest = Sha512::digest(host);
    let id = digest.first_chunk::<16>()?;
    Some(uuid::Uuid::from_bytes(*id).to_string())
}

async fn read_id(path: &Path) -> io::Result<Option<String>> {
    let bytes = match fs::read(path).await {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let text = String::from_utf8_lossy(&bytes).trim().to_ascii_lowercase();
    if uuid::Uuid::parse_str(&text).is_err() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} holds no node ID but {text:?}; put the node's UUID there, or remove it to get a new one",
                path.display()
            ),
        ));
    }
    Ok(Some(text))
}

/// Takes the lock on the data folder, held until dropped: a second agent on the same folder refuses to start.
/// Blocking; for start-up.
///
/// # Errors
/// Another process holds it, or the folder cannot be made.
pub fn lock_data_dir(folder: &Path) -> io::Result<fs::Lock> {
    fs::make_folder(folder)?;
    fs::lock(&folder.join("agent.lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Consul 1.8.7 said on the machine with that ID.
    #[test]
    fn a_node_takes_the_id_that_consul_makes_of_its_machine() {
        let id = id_of("3D1219C7-c4c5-404a-aa1f-6d2a48adfda4");
        assert_eq!(id.as_deref(), Some("333a158e-0d38-e425-ad6a-b7db4732c648"));
        assert_eq!(id_of("no uuid"), None);
    }
}
