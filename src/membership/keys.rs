//! The keyring on disk, and what operators ask all members to do with theirs.
//!
//! `DATA/serf/local.keyring` is Consul's: a JSON list of keys in base64, the primary one first. Once it is there it counts, not the
//! configured key.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use muster_protocol::gossip::keyring::{Key, Keyring, QUERY, Request, Tally};
use muster_protocol::gossip::queries::{Draft, QueryId};
use muster_protocol::gossip::{Effect, Input};

use super::driver::Inner;
use super::settings::Settings;
use crate::runtime::{fs, mesh};

/// The file of the LAN pool within the data folder.
const FILE: &str = "serf/local.keyring";
/// And of the WAN pool.
const WAN_FILE: &str = "serf/remote.keyring";

/// The keyrings of an agent.
pub(super) struct Keyrings {
    /// Of the LAN pool.
    pub lan: Option<Keyring>,
    /// Of the WAN pool, in which this server is alone.
    pub wan: Option<Keyring>,
}

/// Reads the keyrings, or begins them with the configured key.
///
/// # Errors
/// For the operator: a file is none.
pub(super) async fn open(settings: &Settings) -> Result<Keyrings, String> {
    let lan = open_one(settings, FILE, "LAN").await?;
    let wan = if settings.server { open_one(settings, WAN_FILE, "WAN").await? } else { None };
    Ok(Keyrings { lan, wan })
}

async fn open_one(settings: &Settings, file: &str, pool: &str) -> Result<Option<Keyring>, String> {
    let configured = settings.key().and_then(|key| Keyring::new([key]));
    let Some(path) = path(settings, file) else { return Ok(configured) };
    match fs::read(path.clone()).await {
        Ok(bytes) => {
            if configured.is_some() {
                tracing::warn!("agent: {pool} keyring exists but -encrypt given, using keyring");
            }
            parse(&path, &bytes).map(Some)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(keyring) = &configured {
                let written = write(&path, keyring.keys()).await;
                written.map_err(|error| format!("the keyring cannot be kept: {error}"))?;
            }
            Ok(configured)
        }
        Err(error) => Err(format!("the keyring cannot be read: {error}")),
    }
}

/// Where a keyring is kept, if it is.
fn path(settings: &Settings, file: &str) -> Option<PathBuf> {
    settings.data_dir.as_ref().filter(|_| !settings.gossip.disable_keyring_file).map(|dir| dir.join(file))
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Keyring, String> {
    let wrong =
        |why: &str| format!("{} is no keyring: {why}; it is a JSON list of keys in base64", path.display());
    let texts: Vec<String> = serde_json::from_slice(bytes).map_err(|error| wrong(&error.to_string()))?;
    let mut keys = Vec::new();
    for text in texts {
        let bytes = STANDARD.decode(&text).map_err(|error| wrong(&error.to_string()))?;
        keys.push(Key::new(&bytes).map_err(|error| wrong(&error.to_string()))?);
    }
    Keyring::new(keys).ok_or_else(|| wrong("it has no keys"))
}

async fn write(path: &Path, keys: impl Iterator<Item = &Key>) -> io::Result<()> {
    let texts: Vec<String> = keys.map(text).collect();
    let document = serde_json::to_vec_pretty(&texts).map_err(io::Error::other)?;
    fs::write_atomically(path, document, 0o600).await
}

/// A key as people write it.
pub fn text(key: &Key) -> String {
    STANDARD.encode(key.bytes())
}

/// The members' answers, once all have answered or the time is over.
pub(super) struct Asking {
    tally: Tally,
    reply: mesh::OneSender<Result<Tally, String>>,
}

impl Inner {
    /// Asks all members, this one too.
    pub fn ask_keyrings(
        self: &Rc<Self>,
        request: &Request,
        relays: u8,
        reply: mesh::OneSender<Result<Tally, String>>,
    ) {
        let token = self.tokens.get() + 1;
        self.tokens.set(token);
        let members = self.core.borrow().live();
        let asking = Asking { tally: Tally::new(members), reply };
        self.asking.borrow_mut().push((token, None, asking));
        let payload = request.encode().into();
        self.step(Input::Ask {
            token,
            draft: Draft { name: QUERY.to_owned(), payload, relays, ..Draft::default() },
        });
    }

    /// Takes what has become of a question.
    pub(super) fn take_answer(self: &Rc<Self>, effect: Effect) {
        match effect {
            Effect::Asked { token, query } => self.asked(token, query.map_err(|why| why.to_string())),
            Effect::Reply { query, from, payload } => {
                let mut all = self.asking.borrow_mut();
                let Some((.., asking)) = all.iter_mut().find(|(_, id, _)| *id == Some(query)) else { return };
                asking.tally.take(&from, &payload);
                if asking.tally.is_complete() {
                    drop(all);
                    self.end_asking(query);
                }
            }
            Effect::QueryDone { query } => self.end_asking(query),
            Effect::SaveKeyring { query, .. } => {
                let (inner, path) = (self.clone(), path(&self.settings, FILE));
                let save = async move {
                    let turn = inner.writing_keys.take().await;
                    // As it is by now: it may have been changed again since.
                    let keyring = inner.core.borrow().keyring().cloned();
                    let written = match (path, keyring) {
                        (Some(path), Some(keyring)) => write(&path, keyring.keys()).await,
                        _ => Ok(()),
                    };
                    drop(turn);
                    let error = written.err().map(|error| error.to_string());
                    inner.step(Input::KeyringSaved { query, error });
                };
                crate::runtime::task::spawn(save).detach();
            }
            _ => {}
        }
    }

    fn asked(&self, token: u64, query: Result<QueryId, String>) {
        let mut all = self.asking.borrow_mut();
        let Some(place) = all.iter().position(|(own, ..)| *own == token) else { return };
        match query {
            Ok(query) => all[place].1 = Some(query),
            Err(why) => {
                let (.., asking) = all.swap_remove(place);
                let _ = asking.reply.send(Err(why));
            }
        }
    }

    fn end_asking(&self, query: QueryId) {
        let mut all = self.asking.borrow_mut();
        if let Some(place) = all.iter().position(|(_, id, _)| *id == Some(query)) {
            let (.., asking) = all.swap_remove(place);
            // Who asked may have gone.
            let _ = asking.reply.send(Ok(asking.tally));
        }
    }

    /// The same in the WAN pool, of which this server knows nobody else.
    pub async fn ask_wan_keyring(&self, request: &Request) -> Tally {
        let (answer, changed) = request.carry_out(self.wan_keyring.borrow_mut().as_mut());
        let mut answer = answer;
        if changed && let Some(path) = path(&self.settings, WAN_FILE) {
            let _turn = self.writing_keys.take().await;
            let keyring = self.wan_keyring.borrow().clone();
            if let Some(keyring) = keyring
                && let Err(error) = write(&path, keyring.keys()).await
            {
                answer = muster_protocol::gossip::keyring::Answer::failed(&error.to_string());
            }
        }
        let own = self.settings.own.tags.get("dc").cloned().unwrap_or_default();
        let mut tally = Tally::new(1);
        tally.take(&format!("{}.{own}", self.settings.own.name), &answer.encode(usize::MAX));
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_of_consul_is_read_and_nothing_else_is() {
        let path = Path::new("local.keyring");
        let two = br#"["Z29sZGVuLWtleXJpbmctMg==","Z29sZGVuLWtleXJpbmc9PQ=="]"#;
        let keyring = parse(path, two).expect("two keys");
        let texts: Vec<String> = keyring.keys().map(text).collect();
        assert_eq!(texts, ["Z29sZGVuLWtleXJpbmctMg==", "Z29sZGVuLWtleXJpbmc9PQ=="]);
        for (bytes, why) in [
            (&b"[]"[..], "it has no keys"),
            (b"[\"c2hvcnQ=\"]", "key size must be 16, 24 or 32 bytes"),
            (b"[\"***\"]", "Invalid"),
            (b"{}", "invalid type"),
        ] {
            let error = parse(path, bytes).expect_err("it is none");
            assert!(error.contains(why), "{error}");
        }
    }
}
