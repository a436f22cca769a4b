//! `SHA256SUMS`: one line for each other file, as `sha256sum` writes them.

use std::fmt::Write as _;

/// The hash of a file.
pub(super) type Sum = [u8; 32];

/// The bytes of the file.
pub(super) fn encode(sums: &[(&str, Sum)]) -> Vec<u8> {
    let mut out = String::new();
    for (name, sum) in sums {
        sum.iter().for_each(|byte| write!(out, "{byte:02x}").expect("a string takes all"));
        out.push_str("  ");
        out.push_str(name);
        out.push('\n');
    }
    out.into_bytes()
}

/// Checks that each of `sums` is listed, and nothing else.
///
/// # Errors
/// Consul's text.
pub(super) fn verify(list: &[u8], sums: &[(&str, Sum)]) -> Result<(), String> {
    let mut seen = vec![false; sums.len()];
    for line in String::from_utf8_lossy(list).lines() {
        let mut words = line.split_whitespace();
        let (Some(digits), name) = (words.next(), words.next()) else { return Err("EOF".into()) };
        let sum = unhex(digits)?;
        let name = name.ok_or("unexpected EOF")?;
        let Some(at) = sums.iter().position(|(known, _)| *known == name) else {
            return Err(format!("list missing hash for {name:?}"));
        };
        if sums[at].1[..] != sum[..] {
            return Err(format!("hash check failed for {name:?}"));
        }
        seen[at] = true;
    }
    match seen.iter().position(|seen| !seen) {
        Some(at) => Err(format!("file missing for {:?}", sums[at].0)),
        None => Ok(()),
    }
}

fn unhex(digits: &str) -> Result<Vec<u8>, String> {
    let none = || "no hex data for %x string".to_owned();
    let nibbles: Option<Vec<u8>> =
        digits.chars().map(|digit| digit.to_digit(16).map(|nibble| nibble as u8)).collect();
    let nibbles = nibbles.filter(|nibbles| nibbles.len() % 2 == 0).ok_or_else(none)?;
    Ok(nibbles.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
