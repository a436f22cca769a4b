//! Check output is bounded: the agent keeps so many bytes and says how many there were.

/// What a program or a body wrote: its last bytes, and how many there were in all.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    kept: Vec<u8>,
    max: usize,
    total: u64,
}

impl Tail {
    /// Keeps the last `max` bytes.
    pub fn new(max: usize) -> Tail {
        Tail { kept: Vec::new(), max, total: 0 }
    }

    /// Takes more bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let bytes = &bytes[bytes.len().saturating_sub(self.max)..];
        let surplus = (self.kept.len() + bytes.len()).saturating_sub(self.max);
        self.kept.drain(..surplus.min(self.kept.len()));
        self.kept.extend_from_slice(bytes);
    }

    /// All bytes seen, those dropped too.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The bytes that were kept.
    pub fn into_bytes(self) -> Vec<u8> {
        self.kept
    }

    /// The text for the `Output` field. Bytes that are not UTF-8 become U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

/// The output of a script as Consul words it: a remark in front when only the end of it was kept.
pub fn script_text(kept: &[u8], total: u64) -> String {
    let text = String::from_utf8_lossy(kept);
    if total > kept.len() as u64 {
        format!("Captured {} of {} bytes\n...\n{}", kept.len(), total, text)
    } else {
        text.into_owned()
    }
}

/// The output told by a client, cut as Consul cuts it: the beginning, and a remark behind it.
/// The cut is at a byte; a character cut in two becomes U+FFFD.
pub fn told_text(output: String, max: usize) -> String {
    if output.len() <= max {
        return output;
    }
    let head = String::from_utf8_lossy(&output.as_bytes()[..max]);
    format!("{head} ... (captured {max} of {} bytes)", output.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_bytes_and_counts_all() {
        let mut tail = Tail::new(4);
        tail.push(b"ab");
        assert_eq!((tail.text().as_str(), tail.total()), ("ab", 2));
        tail.push(b"cde");
        assert_eq!(tail.text(), "bcde");
        tail.push(b"0123456789");
        assert_eq!((tail.text().as_str(), tail.total()), ("6789", 15));
    }

    #[test]
    fn script_output_says_what_was_dropped() {
        assert_eq!(script_text(b"all", 3), "all");
        assert_eq!(script_text(b"end", 10), "Captured 3 of 10 bytes\n...\nend");
    }

    #[test]
    fn told_output_is_cut_at_the_end() {
        assert_eq!(told_text("0123456789abcdef".into(), 10), "0123456789 ... (captured 10 of 16 bytes)");
        assert_eq!(told_text("short".into(), 10), "short");
    }
}
