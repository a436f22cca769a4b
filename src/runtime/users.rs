//! Names of users and groups to their numbers, from `/etc/passwd` and `/etc/group`. The C library's own look-up is
//! not used: in a static binary it would load the host's libraries.

use std::fs;
use std::io;

/// The number of a user, given as a name or as a number.
///
/// # Errors
/// No such user; the text names it.
pub fn user_id(user: &str) -> io::Result<u32> {
    look_up(user, "/etc/passwd", "user")
}

/// The number of a group, given as a name or as a number.
///
/// # Errors
/// No such group; the text names it.
pub fn group_id(group: &str) -> io::Result<u32> {
    look_up(group, "/etc/group", "group")
}

fn look_up(name: &str, file: &str, what: &str) -> io::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = fs::read_to_string(file).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot look up {what} {name:?} in {file}: {error}"))
    })?;
    find(&text, name).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("{file} has no {what} {name:?}; give its number"))
    })
}

/// Both files: name, password, number, and more, with colons between.
fn find(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(
            find("root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/:/bin/false\n", "www-data"),
            Some(33)
        );
        assert_eq!(find("root:x:0:0::/:/bin/sh\nbroken\n", "broken"), None);
        assert_eq!(user_id("1234").ok(), Some(1234));
        assert_eq!(user_id("root").ok(), Some(0));
        let error = group_id("no-such-group-here").map_err(|error| error.to_string());
        assert!(error.is_err_and(|text| text.contains("no-such-group-here")));
    }
}
