//! What a failed parse reports: the farthest place reached and what could have stood there, or the faults that
//! rules reported themselves. It follows the parser generator go-bexpr is built with, because clients see
//! (and scripts match) its texts.

/// Collects both kinds of failure while the parser tries its alternatives.
#[derive(Default)]
pub(super) struct Failures {
    farthest: usize,
    wants: Vec<(bool, &'static str)>,
    inverted: bool,
    faults: Vec<String>,
}

impl Failures {
    /// Notes that `want` was tried at `at` and did or did not match. Inside a negative lookahead the
    /// meaning is turned around.
    pub(super) fn tried(&mut self, matched: bool, at: usize, want: &'static str) {
        if matched != self.inverted || at < self.farthest {
            return;
        }
        if at > self.farthest {
            self.farthest = at;
            self.wants.clear();
        }
        if !self.wants.contains(&(self.inverted, want)) {
            self.wants.push((self.inverted, want));
        }
    }

    /// Enters or leaves a negative lookahead.
    pub(super) fn invert(&mut self) {
        self.inverted = !self.inverted;
    }

    /// A rule found the reason itself.
    pub(super) fn fault(&mut self, text: &str, at: usize, rule: &str, reason: &str) {
        let fault = format!("{}: rule \"{rule}\": {reason}", place(text, at));
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Whether a rule reported a reason: then the expression is refused even if it could be read otherwise.
    pub(super) fn faulty(&self) -> bool {
        !self.faults.is_empty()
    }

    /// The message.
    pub(super) fn message(&self, text: &str) -> String {
        if self.faulty() {
            return self.faults.join("\n");
        }
        let end = (true, ".");
        let mut wants: Vec<String> = self.wants.iter().filter(|w| **w != end).map(spelling).collect();
        wants.sort();
        if self.wants.contains(&end) {
            wants.push("EOF".to_owned());
        }
        let place = place(text, self.farthest);
        match wants.split_last() {
            None => format!("{place}: no match found, expected: "),
            Some((only, [])) => format!("{place}: no match found, expected: {only}"),
            Some((last, others)) => {
                format!("{place}: no match found, expected: {} or {last}", others.join(", "))
            }
        }
    }
}

fn spelling(want: &(bool, &'static str)) -> String {
    match want {
        (true, text) => format!("!{text}"),
        (false, text) => (*text).to_owned(),
    }
}

/// `line:column (offset)`: lines and columns count characters from one, offsets bytes from zero. A newline
/// itself is column zero of the line it opens, as the generator counts.
fn place(text: &str, at: usize) -> String {
    let mut line = text[..at].matches('\n').count() + 1;
    let mut column = text[..at].chars().rev().take_while(|c| *c != '\n').count() + 1;
    if text[at..].starts_with('\n') {
        line += 1;
        column = 0;
    }
    format!("{line}:{column} ({at})")
}
