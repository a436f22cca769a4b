//! Bytes under a limit: what a template or a function of it writes.

/// Collects bytes up to a limit; what is past it is dropped and remembered as a failure.
#[derive(Debug)]
pub struct Sink {
    bytes: Vec<u8>,
    max: usize,
    is_full: bool,
}

impl Sink {
    /// A sink that holds so many bytes.
    pub fn new(max: usize) -> Sink {
        Sink { bytes: Vec::new(), max, is_full: false }
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.is_full || bytes.len() > self.max - self.bytes.len() {
            self.is_full = true;
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Adds text.
    pub fn text(&mut self, text: &str) {
        self.push(text.as_bytes());
    }

    /// Adds a byte so many times.
    pub fn repeat(&mut self, byte: u8, count: usize) {
        if self.is_full || count > self.max - self.bytes.len() {
            self.is_full = true;
        } else {
            self.bytes.resize(self.bytes.len() + count, byte);
        }
    }

    /// Whether something was dropped: whoever walks a large value ends then.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// What is in it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All that was written.
    pub fn finish(self) -> Result<Vec<u8>, String> {
        if self.is_full { Err(format!("longer than {} bytes", self.max)) } else { Ok(self.bytes) }
    }
}
