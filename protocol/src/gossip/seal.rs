//! Sealing: packets and frames that only who has a key of the keyring can read or make (AES-GCM, NIST SP 800-38D).
//!
//! ```text
//! header      clear: it tells that and how the rest is sealed, and cannot be changed unnoticed
//! ciphertext  as long as the text
//! nonce       12 bytes
//! tag         16 bytes
//! ```
//!
//! Nonce and tag come last, so that a text is sealed where it lies.
//!
//! No nonce may ever come twice with the same key, and all members use the same one. So a nonce is made as section 8.2.1 has it:
//! a fixed part of 64 bits that is drawn for each life of a member, and a counter of 32 bits; when the counter has
//! run out, another fixed part is drawn. A million lives share a key before two of them have the same fixed part with a chance
//! of 3 in 100 million. (memberlist draws all 96 bits for every packet: there the chance grows with the packets of a fleet, not
//! with its restarts.)
//!
//! What it never does: tell which key was tried or why it did not fit, or remember what was said before. A packet that is sent again
//! is for the receiver to recognise; incarnations and Lamport times do.

use std::fmt;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit, consts::U12};
use aes_gcm::aes::Aes192;
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm};

use super::keyring::{Key, Keyring};
use crate::random::Random;

const NONCE_LENGTH: usize = 12;
const TAG_LENGTH: usize = 16;

/// How much longer sealing makes a message, bytes.
pub const OVERHEAD: usize = NONCE_LENGTH + TAG_LENGTH;

type Aes192Gcm = AesGcm<Aes192, U12>;

/// Why a message was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// It is too short to be sealed.
    Short,
    /// No key fits, or it was changed on the way.
    NoKey,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SealError::Short => "the message is too short to be encrypted",
            // memberlist's text, which operators know.
            SealError::NoKey => "no installed keys could decrypt the message",
        })
    }
}

impl std::error::Error for SealError {}

/// Seals with the primary key of a keyring, and opens with any.
#[derive(Debug)]
pub struct Sealer {
    keyring: Keyring,
    nonces: Nonces,
}

impl Sealer {
    /// For one life of a member. Its nonces depend on the draw, so the seed behind it must be the system's, and be used only once.
    pub fn new(keyring: Keyring, random: &mut Random) -> Sealer {
        Sealer { keyring, nonces: Nonces::new(random.draw()) }
    }

    /// The keys.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// To change the keys. What is sealed next is sealed with the primary one of then.
    pub fn keyring_mut(&mut self) -> &mut Keyring {
        &mut self.keyring
    }

    /// Seals all but the first `header` bytes, where they lie, and appends [`OVERHEAD`] bytes.
    ///
    /// # Panics
    /// The message is shorter than its header.
    pub fn seal(&mut self, message: &mut Vec<u8>, header: usize) {
        let nonce = self.nonces.next();
        let (header, text) = message.split_at_mut(header);
        let tag = self.keyring.primary_cipher().seal(&nonce, header, text);
        message.extend_from_slice(&nonce);
        message.extend_from_slice(&tag);
    }

    /// Opens what [`seal`](Self::seal) has made: `opened` becomes the message as it was before.
    ///
    /// # Errors
    /// It is not to be read, and not to be believed; `opened` holds nothing.
    pub fn open(&self, sealed: &[u8], header: usize, opened: &mut Vec<u8>) -> Result<(), SealError> {
        opened.clear();
        let text_end = sealed.len().checked_sub(OVERHEAD).filter(|end| *end >= header);
        let Some(text_end) = text_end else { return Err(SealError::Short) };
        let (message, trailer) = sealed.split_at(text_end);
        let (nonce, tag) = trailer.split_first_chunk().expect("the trailer is a nonce and a tag");
        let tag = tag.first_chunk().expect("the trailer is a nonce and a tag");
        opened.extend_from_slice(message);
        let (header, text) = opened.split_at_mut(header);
        // What a wrong key leaves behind is what was there: the tag is looked at first.
        if self.keyring.ciphers().any(|cipher| cipher.open(nonce, header, text, tag)) {
            return Ok(());
        }
        opened.clear();
        Err(SealError::NoKey)
    }
}

/// Nonces that never repeat in a life.
#[derive(Debug)]
struct Nonces {
    draws: Random,
    fixed: u64,
    count: u32,
}

impl Nonces {
    fn new(seed: u64) -> Nonces {
        let mut draws = Random::new(seed);
        // Draws of this generator differ from one another as long as it lives.
        let fixed = draws.draw();
        Nonces { draws, fixed, count: 0 }
    }

    fn next(&mut self) -> [u8; NONCE_LENGTH] {
        let mut nonce = [0; NONCE_LENGTH];
        nonce[..8].copy_from_slice(&self.fixed.to_le_bytes());
        nonce[8..].copy_from_slice(&self.count.to_le_bytes());
        self.count = self.count.wrapping_add(1);
        if self.count == 0 {
            self.fixed = self.draws.draw();
        }
        nonce
    }
}

/// A key that is ready for use.
#[derive(Clone)]
pub(super) enum Cipher {
    Aes128(Box<Aes128Gcm>),
    Aes192(Box<Aes192Gcm>),
    Aes256(Box<Aes256Gcm>),
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cipher::Aes128(_) => "AES-128-GCM",
            Cipher::Aes192(_) => "AES-192-GCM",
            Cipher::Aes256(_) => "AES-256-GCM",
        })
    }
}

impl Cipher {
    pub fn new(key: &Key) -> Cipher {
        const FITS: &str = "the cipher was chosen by the key's length";
        let bytes = key.bytes();
        match bytes.len() {
            16 => Cipher::Aes128(Box::new(KeyInit::new_from_slice(bytes).expect(FITS))),
            24 => Cipher::Aes192(Box::new(KeyInit::new_from_slice(bytes).expect(FITS))),
            _ => Cipher::Aes256(Box::new(KeyInit::new_from_slice(bytes).expect(FITS))),
        }
    }

    fn seal(&self, nonce: &[u8; NONCE_LENGTH], header: &[u8], text: &mut [u8]) -> [u8; TAG_LENGTH] {
        let (nonce, text) = (nonce.into(), InOutBuf::from(text));
        let tag = match self {
            Cipher::Aes128(cipher) => cipher.encrypt_inout_detached(nonce, header, text),
            Cipher::Aes192(cipher) => cipher.encrypt_inout_detached(nonce, header, text),
            Cipher::Aes256(cipher) => cipher.encrypt_inout_detached(nonce, header, text),
        };
        tag.expect("no message is near 64 GiB").into()
    }

    /// Whether it fitted; else the text is as before.
    fn open(
        &self,
        nonce: &[u8; NONCE_LENGTH],
        header: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LENGTH],
    ) -> bool {
        let (nonce, text, tag) = (nonce.into(), InOutBuf::from(text), tag.into());
        let opened = match self {
            Cipher::Aes128(cipher) => cipher.decrypt_inout_detached(nonce, header, text, tag),
            Cipher::Aes192(cipher) => cipher.decrypt_inout_detached(nonce, header, text, tag),
            Cipher::Aes256(cipher) => cipher.decrypt_inout_detached(nonce, header, text, tag),
        };
        opened.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8, length: usize) -> Key {
        Key::new(&vec![byte; length]).expect("a length that is one of a key")
    }

    fn sealer(keys: &[Key]) -> Sealer {
        let keyring = Keyring::new(keys.iter().cloned()).expect("some keys");
        Sealer::new(keyring, &mut Random::new(1))
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2);
        digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hex"))
            .collect()
    }

    /// Test cases 4, 10 and 16 of McGrew and Viega, *The Galois/Counter Mode of Operation*, appendix B.
    #[test]
    fn known_answers() {
        let key = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
        let nonce: [u8; NONCE_LENGTH] = bytes("cafebabefacedbaddecaf888").try_into().expect("12 bytes");
        let header = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let text = bytes(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
             b16aedf5aa0de657ba637b39",
        );
        for (length, sealed, tag) in [
            (
                16,
                "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa05\
                 1ba30b396a0aac973d58e091",
                "5bc94fbc3221a5db94fae95ae7121a47",
            ),
            (
                24,
                "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c7d773d00c144c525ac619d18c84a3f47\
                 18e2448b2fe324d9ccda2710",
                "2519498e80f1478f37ba55bd6d27618c",
            ),
            (
                32,
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838\
                 c5f61e6393ba7a0abcc9f662",
                "76fc6ece0f4e1768cddf8853bb2d551b",
            ),
        ] {
            let cipher = Cipher::new(&Key::new(&bytes(key)[..length]).expect("a key"));
            let mut message = text.clone();
            assert_eq!(cipher.seal(&nonce, &header, &mut message).to_vec(), bytes(tag), "{cipher:?}");
            assert_eq!(message, bytes(sealed), "{cipher:?}");
            let tag = bytes(tag).try_into().expect("16 bytes");
            assert!(cipher.open(&nonce, &header, &mut message, &tag), "{cipher:?}");
            assert_eq!(message, text);
        }
    }

    #[test]
    fn any_key_of_the_ring_opens() {
        let (old, new) = (key(1, 16), key(2, 32));
        let mut before = sealer(std::slice::from_ref(&old));
        let mut between = sealer(&[old.clone(), new.clone()]);
        let after = sealer(std::slice::from_ref(&new));
        let mut message = b"v1hello".to_vec();
        before.seal(&mut message, 2);
        assert_eq!(message.len(), 7 + OVERHEAD);
        assert!(message.starts_with(b"v1") && !message.windows(5).any(|text| text == b"hello"));
        let mut opened = b"rest of another".to_vec();
        assert_eq!(between.open(&message, 2, &mut opened), Ok(()));
        assert_eq!(opened, b"v1hello");
        assert_eq!(after.open(&message, 2, &mut opened), Err(SealError::NoKey));
        assert!(opened.is_empty());

        between.keyring_mut().promote(new.bytes()).expect("it is installed");
        let mut message = b"v1hello".to_vec();
        between.seal(&mut message, 2);
        assert_eq!(after.open(&message, 2, &mut opened), Ok(()));
        assert_eq!(before.open(&message, 2, &mut opened), Err(SealError::NoKey));
    }

    #[test]
    fn nonces_never_repeat() {
        let mut nonces = Nonces::new(5);
        let first = nonces.next();
        assert_ne!(first, nonces.next());
        nonces.count = u32::MAX;
        let last = nonces.next();
        let another = nonces.next();
        assert_eq!((&last[..8], &last[8..]), (&first[..8], &[0xff; 4][..]));
        assert_ne!(last[..8], another[..8], "when all are used, the fixed part is another");
        assert_eq!(another[8..], [0; 4]);
        assert_ne!(Nonces::new(6).next()[..8], first[..8]);
    }

    proptest! {
        #[test]
        fn what_was_changed_is_not_opened(
            message in prop::collection::vec(any::<u8>(), 2..200), header in 0usize..3, place in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let mut sealer = sealer(&[key(1, 24), key(3, 16)]);
            let mut sealed = message.clone();
            sealer.seal(&mut sealed, header);
            let mut opened = Vec::new();
            prop_assert_eq!(sealer.open(&sealed, header, &mut opened), Ok(()));
            prop_assert_eq!(&opened, &message);
            let place = place.index(sealed.len());
            sealed[place] ^= 1 << bit;
            prop_assert_eq!(sealer.open(&sealed, header, &mut opened), Err(SealError::NoKey));
            sealed.truncate(place);
            prop_assert!(sealer.open(&sealed, header, &mut opened).is_err());
        }

        #[test]
        fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..100), header in 0usize..200) {
            prop_assert!(sealer(&[key(1, 32)]).open(&bytes, header, &mut Vec::new()).is_err());
        }
    }
}
