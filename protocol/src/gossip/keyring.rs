//! The keyring: the keys that a pool is sealed with, and how an operator changes them on all members while they run: install the
//! new one everywhere, use it, remove the old one. Rules and texts are those of memberlist and serf, as Consul 1.8 shows them.
//!
//! The first key is the primary one: all is sealed with it. Whatever any of them has sealed is opened.

use std::collections::BTreeMap;
use std::fmt;

use super::body;
use super::seal::Cipher;
use crate::wire::{Reader, WireError, put_u8};

/// Keys in a ring. Each message that none of them has sealed is tried with all, so their number is the price of a stranger's packet.
pub const KEYS_MAX: usize = 32;

/// A key in a request that somebody else checks, bytes: longer than any that is right, so that the receiver can say what is wrong.
const ASKED_KEY_LENGTH_MAX: usize = 64;

/// The longest text in an [`Answer`], bytes.
const MESSAGE_LENGTH_MAX: usize = 255;

/// A key of 16, 24 or 32 bytes: AES-128, AES-192, AES-256.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Box<[u8]>);

impl Key {
    /// Takes bytes for a key.
    ///
    /// # Errors
    /// There is no key of this length.
    pub fn new(bytes: &[u8]) -> Result<Key, KeyringError> {
        match bytes.len() {
            16 | 24 | 32 => Ok(Key(bytes.into())),
            _ => Err(KeyringError::Length),
        }
    }

    /// The secret itself.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bits)", self.0.len() * 8)
    }
}

/// Why the keyring stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyringError {
    /// Not a key.
    Length,
    /// Only a key that is installed can become the primary one.
    Missing,
    /// The primary key stays.
    Primary,
    /// Too many keys.
    Full,
    /// There is no keyring: the pool is not sealed.
    Off,
}

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyringError::Length => f.write_str("key size must be 16, 24 or 32 bytes"),
            KeyringError::Missing => f.write_str("Requested key is not in the keyring"),
            KeyringError::Primary => f.write_str("Removing the primary key is not allowed"),
            KeyringError::Full => write!(f, "The keyring holds {KEYS_MAX} keys: remove one first"),
            KeyringError::Off => f.write_str("No keyring to modify (encryption not enabled)"),
        }
    }
}

impl std::error::Error for KeyringError {}

/// The keys of a pool, primary first. There is at least one.
#[derive(Clone, Debug)]
pub struct Keyring(Vec<(Key, Cipher)>);

impl Keyring {
    /// A ring of these, the primary one first. `None` when there are none. What is there twice or goes beyond [`KEYS_MAX`] is left out.
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Option<Keyring> {
        let mut ring = Keyring(Vec::new());
        for key in keys.into_iter().take(KEYS_MAX) {
            ring.add(key);
        }
        (!ring.0.is_empty()).then_some(ring)
    }

    /// All keys, the primary one first.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The key that all is sealed with.
    pub fn primary(&self) -> &Key {
        &self.0[0].0
    }

    /// Adds a key, to open with. Whether it is new.
    ///
    /// # Errors
    /// It is none, or the ring is full.
    pub fn install(&mut self, key: &[u8]) -> Result<bool, KeyringError> {
        let key = Key::new(key)?;
        if self.place(key.bytes()).is_none() && self.0.len() >= KEYS_MAX {
            return Err(KeyringError::Full);
        }
        Ok(self.add(key))
    }

    /// Makes an installed key the primary one. Whether it was not.
    ///
    /// # Errors
    /// It is not installed.
    pub fn promote(&mut self, key: &[u8]) -> Result<bool, KeyringError> {
        let place = self.place(key).ok_or(KeyringError::Missing)?;
        self.0[..=place].rotate_right(1);
        Ok(place > 0)
    }

    /// Removes a key. Whether it was there.
    ///
    /// # Errors
    /// It is the primary one.
    pub fn remove(&mut self, key: &[u8]) -> Result<bool, KeyringError> {
        match self.place(key) {
            Some(0) => Err(KeyringError::Primary),
            Some(place) => {
                self.0.remove(place);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    pub(super) fn primary_cipher(&self) -> &Cipher {
        &self.0[0].1
    }

    pub(super) fn ciphers(&self) -> impl Iterator<Item = &Cipher> {
        self.0.iter().map(|(_, cipher)| cipher)
    }

    fn add(&mut self, key: Key) -> bool {
        let new = self.place(key.bytes()).is_none();
        if new {
            let cipher = Cipher::new(&key);
            self.0.push((key, cipher));
        }
        new
    }

    fn place(&self, key: &[u8]) -> Option<usize> {
        self.keys().position(|installed| installed.bytes() == key)
    }
}

/// What an operator asks all members to do with their keyrings. It travels as a query of the name [`QUERY`].
#[derive(Clone, PartialEq, Eq)]
pub enum Request {
    /// Tell the keys.
    List,
    /// Add a key.
    Install(Box<[u8]>),
    /// Make a key the primary one.
    Use(Box<[u8]>),
    /// Remove a key.
    Remove(Box<[u8]>),
}

/// The name of the queries that carry a [`Request`]. Consul's agents never ask anything of this name.
pub const QUERY: &str = "_keyring";

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Request::List => "List",
            Request::Install(_) => "Install",
            Request::Use(_) => "Use",
            Request::Remove(_) => "Remove",
        })
    }
}

impl Request {
    /// The payload of the query.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, key): (u8, &[u8]) = match self {
            Request::List => (0, &[]),
            Request::Install(key) => (1, key),
            Request::Use(key) => (2, key),
            Request::Remove(key) => (3, key),
        };
        let mut out = vec![kind];
        // Longer than any right one: it stays wrong when it is cut.
        body::put_short(&mut out, &key[..key.len().min(ASKED_KEY_LENGTH_MAX)]);
        out
    }

    /// Reads a query's payload.
    ///
    /// # Errors
    /// It is no request, or one of a later version.
    pub fn decode(payload: &[u8]) -> Result<Request, WireError> {
        let mut reader = Reader::new(payload);
        let kind = reader.u8()?;
        let key = body::short(&mut reader, ASKED_KEY_LENGTH_MAX)?.into();
        reader.end()?;
        match kind {
            0 => Ok(Request::List),
            1 => Ok(Request::Install(key)),
            2 => Ok(Request::Use(key)),
            3 => Ok(Request::Remove(key)),
            _ => Err(WireError::Malformed("an unknown request to the keyring")),
        }
    }

    /// Does it. The answer, and whether the ring has changed: then its file is to be written before the answer goes out.
    pub fn carry_out(&self, keyring: Option<&mut Keyring>) -> (Answer, bool) {
        let Some(keyring) = keyring else {
            let why = match self {
                Request::List => "Keyring is empty (encryption not enabled)".to_owned(),
                _ => KeyringError::Off.to_string(),
            };
            return (Answer::failed(&why), false);
        };
        let done = match self {
            Request::List => return (Answer::list(keyring), false),
            Request::Install(key) => keyring.install(key),
            Request::Use(key) => keyring.promote(key),
            Request::Remove(key) => keyring.remove(key),
        };
        match done {
            Ok(changed) => (Answer::done(), changed),
            Err(error) => (Answer::failed(&error.to_string()), false),
        }
    }
}

/// A member's answer to a [`Request`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether it was done.
    pub ok: bool,
    /// What the operator should know.
    pub message: String,
    /// Its keys, the primary one first; of a list only.
    pub keys: Vec<Key>,
}

impl Answer {
    /// It is done.
    pub fn done() -> Answer {
        Answer { ok: true, ..Answer::default() }
    }

    /// It is not done.
    pub fn failed(why: &str) -> Answer {
        let end = why.floor_char_boundary(MESSAGE_LENGTH_MAX);
        Answer { message: why[..end].to_owned(), ..Answer::default() }
    }

    fn list(keyring: &Keyring) -> Answer {
        Answer { ok: true, message: String::new(), keys: keyring.keys().cloned().collect() }
    }

    /// The payload of the reply, of at most `room` bytes: keys that do not fit are left out, and the message says so.
    pub fn encode(&self, room: usize) -> Vec<u8> {
        for shown in (0..=self.keys.len()).rev() {
            let mut message = self.message.clone();
            if shown < self.keys.len() {
                // Serf's text.
                let all = self.keys.len();
                message = format!("truncated key list response, showing first {shown} of {all} keys");
            }
            let mut out = vec![u8::from(self.ok)];
            body::put_short(&mut out, message.as_bytes());
            put_u8(&mut out, shown as u8);
            self.keys[..shown].iter().for_each(|key| body::put_short(&mut out, key.bytes()));
            if out.len() <= room {
                return out;
            }
        }
        Vec::new()
    }

    /// Reads a reply's payload.
    ///
    /// # Errors
    /// It is no answer.
    pub fn decode(payload: &[u8]) -> Result<Answer, WireError> {
        let mut reader = Reader::new(payload);
        let ok = reader.bool()?;
        let message = body::text(&mut reader, MESSAGE_LENGTH_MAX)?.to_owned();
        let count = usize::from(reader.u8()?);
        if count > KEYS_MAX {
            return Err(WireError::TooLong { what: "keyring", length: count, max: KEYS_MAX });
        }
        let mut keys = Vec::with_capacity(count);
        for _ in 0..count {
            let key = Key::new(body::short(&mut reader, 32)?);
            keys.push(key.map_err(|_| WireError::Malformed("a key of no key's length"))?);
        }
        reader.end()?;
        Ok(Answer { ok, message, keys })
    }
}

/// The answers of all members to one [`Request`], counted (serf: `KeyResponse`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Members that were asked.
    pub nodes: usize,
    /// Members that have answered.
    pub responses: usize,
    /// Members that have not done it.
    pub errors: usize,
    /// What members say, by name.
    pub messages: BTreeMap<String, String>,
    /// How many members have a key.
    pub keys: BTreeMap<Key, usize>,
    /// How many members have it for their primary one.
    pub primary_keys: BTreeMap<Key, usize>,
}

impl Tally {
    /// Of a request to so many members.
    pub fn new(nodes: usize) -> Tally {
        Tally {
            nodes,
            responses: 0,
            errors: 0,
            messages: BTreeMap::new(),
            keys: BTreeMap::new(),
            primary_keys: BTreeMap::new(),
        }
    }

    /// Takes the payload of a member's reply; queries deliver one of each.
    pub fn take(&mut self, from: &str, payload: &[u8]) {
        self.responses += 1;
        let answer = Answer::decode(payload)
            .unwrap_or_else(|error| Answer::failed(&format!("Failed to decode key query response: {error}")));
        self.errors += usize::from(!answer.ok);
        if !answer.message.is_empty() || !answer.ok {
            self.messages.insert(from.to_owned(), answer.message);
        }
        if let Some(primary) = answer.keys.first() {
            *self.primary_keys.entry(primary.clone()).or_default() += 1;
        }
        for key in answer.keys {
            *self.keys.entry(key).or_default() += 1;
        }
    }

    /// Whether all have answered: nothing is left to wait for.
    pub fn is_complete(&self) -> bool {
        self.responses >= self.nodes
    }

    /// Whether all have done it.
    ///
    /// # Errors
    /// What serf says of the rest.
    pub fn verdict(&self) -> Result<(), String> {
        if self.errors > 0 {
            return Err(format!("{}/{} nodes reported failure", self.errors, self.nodes));
        }
        if self.responses != self.nodes {
            return Err(format!("{}/{} nodes reported success", self.responses, self.nodes));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> Box<[u8]> {
        vec![byte; 16].into()
    }

    fn ring(keys: &[u8]) -> Keyring {
        let keys = keys.iter().map(|byte| Key::new(&key(*byte)).expect("16 bytes"));
        Keyring::new(keys).expect("some keys")
    }

    fn bytes_of(ring: &Keyring) -> Vec<u8> {
        ring.keys().map(|key| key.bytes()[0]).collect()
    }

    /// The steps and texts of the recorded Consul.
    #[test]
    fn keys_are_rotated_as_in_consul() {
        let mut ring = ring(&[1]);
        let mut ask = |request: Request| {
            let (answer, changed) = request.carry_out(Some(&mut ring));
            (answer.ok, answer.message, changed, bytes_of(&ring))
        };
        let done = |changed, keys: &[u8]| (true, String::new(), changed, keys.to_vec());
        let failed = |why: &str, keys: &[u8]| (false, why.to_owned(), false, keys.to_vec());
        assert_eq!(ask(Request::Install(key(2))), done(true, &[1, 2]));
        assert_eq!(ask(Request::Install(key(2))), done(false, &[1, 2]));
        assert_eq!(ask(Request::Remove(key(1))), failed("Removing the primary key is not allowed", &[1, 2]));
        assert_eq!(ask(Request::Use(key(2))), done(true, &[2, 1]));
        assert_eq!(ask(Request::Use(key(2))), done(false, &[2, 1]));
        assert_eq!(ask(Request::Remove(key(1))), done(true, &[2]));
        assert_eq!(ask(Request::Remove(key(1))), done(false, &[2]));
        assert_eq!(ask(Request::Use(key(9))), failed("Requested key is not in the keyring", &[2]));
        let short = Request::Install(b"short"[..].into());
        assert_eq!(ask(short), failed("key size must be 16, 24 or 32 bytes", &[2]));
    }

    #[test]
    fn without_a_keyring_nothing_is_done() {
        let text = |request: Request| request.carry_out(None).0.message;
        assert_eq!(text(Request::List), "Keyring is empty (encryption not enabled)");
        assert_eq!(text(Request::Use(key(1))), "No keyring to modify (encryption not enabled)");
    }

    #[test]
    fn a_ring_has_an_end() {
        let mut ring = ring(&(0..KEYS_MAX as u8).collect::<Vec<_>>());
        assert_eq!(ring.install(&key(200)), Err(KeyringError::Full));
        assert_eq!(ring.install(&key(3)), Ok(false));
        assert_eq!(ring.keys().count(), KEYS_MAX);
        assert!(Keyring::new([]).is_none());
    }

    #[test]
    fn a_key_that_changes_places_leaves_the_order_of_the_others() {
        let mut ring = ring(&[1, 2, 3, 4]);
        ring.promote(&key(3)).expect("it is installed");
        assert_eq!(bytes_of(&ring), [3, 1, 2, 4]);
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let (answer, _) = Request::List.carry_out(Some(&mut ring(&[1, 2, 3, 4, 5, 6, 7])));
        assert_eq!(Answer::decode(&answer.encode(1000)), Ok(answer.clone()));
        let cut = Answer::decode(&answer.encode(120)).expect("it was encoded");
        assert_eq!(cut.message, "truncated key list response, showing first 3 of 7 keys");
        assert_eq!(cut.keys, answer.keys[..3]);
    }

    #[test]
    fn answers_are_counted() {
        let mut tally = Tally::new(3);
        let list = |keys: &[u8]| Request::List.carry_out(Some(&mut ring(keys))).0.encode(1000);
        tally.take("a", &list(&[1, 2]));
        tally.take("b", &list(&[2]));
        assert_eq!(tally.verdict(), Err("2/3 nodes reported success".to_owned()));
        assert!(!tally.is_complete());
        tally.take("c", b"what?");
        assert_eq!(tally.verdict(), Err("1/3 nodes reported failure".to_owned()));
        assert!(tally.is_complete() && tally.messages["c"].starts_with("Failed to decode"));
        let counts = |keys: &BTreeMap<Key, usize>| keys.values().copied().collect::<Vec<_>>();
        assert_eq!((counts(&tally.keys), counts(&tally.primary_keys)), (vec![1, 2], vec![1, 1]));
    }

    #[test]
    fn nobody_reads_a_key_in_a_log() {
        let ring = ring(&[77]);
        let shown = format!("{ring:?} {:?}", Request::Install(key(77)));
        assert!(shown.contains("128 bits") && !shown.contains("77"), "{shown}");
    }

    proptest! {
        #[test]
        fn requests_and_answers_are_read_back(kind in 0u8..4, key in prop::collection::vec(any::<u8>(), 0..=64), message in ".{0,60}") {
            let mut payload = vec![kind];
            body::put_short(&mut payload, &key);
            let request = Request::decode(&payload).expect("it is well-formed");
            if kind > 0 {
                prop_assert_eq!(request.encode(), payload);
            }
            let answer = Answer::failed(&message);
            prop_assert_eq!(Answer::decode(&answer.encode(500)), Ok(answer));
        }

        #[test]
        fn any_bytes_are_refused_or_bounded(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::decode(&payload);
            let mut tally = Tally::new(1);
            tally.take("a", &payload);
            prop_assert!(tally.keys.len() <= KEYS_MAX);
        }
    }
}
