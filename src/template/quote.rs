//! Text and characters as Go source.

/// Text in double quotes; in ASCII only if asked.
pub fn double(bytes: &[u8], ascii: bool) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            escape(&mut out, char, '"', ascii);
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

/// A character in single quotes.
pub fn rune(char: char, ascii: bool) -> String {
    let mut out = String::from("'");
    escape(&mut out, char, '\'', ascii);
    out.push('\'');
    out
}

/// Whether text can stand between backquotes.
pub fn fits_raw(text: &str) -> bool {
    text.chars().all(|c| c == '\t' || c != '`' && c != '\u{feff}' && !c.is_control())
}

/// Whether Go would print it as it is.
pub fn is_printable(char: char) -> bool {
    let is_odd = matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{ad}' | '\u{e000}'..='\u{f8ff}');
    char == ' ' || !(char.is_control() || char.is_whitespace() || is_odd)
}

fn escape(out: &mut String, char: char, quote: char, ascii: bool) {
    match char {
        '\\' => out.push_str("\\\\"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        c if c == quote => {
            out.push('\\');
            out.push(c);
        }
        c if is_printable(c) && (c.is_ascii() || !ascii) => out.push(c),
        c if u32::from(c) < 0x80 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
    }
}
