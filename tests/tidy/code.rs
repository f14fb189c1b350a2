//! Rust source as tidy sees it: comments and the contents of literals blanked, nothing parsed.

/// A Rust source with comments and the contents of literals blanked, line numbers kept.
pub(super) struct Code {
    /// The source, blanked; same length as the text it was made from.
    pub(super) bytes: Vec<u8>,
}

impl Code {
    pub(super) fn new(text: &str) -> Self {
        let source = text.as_bytes();
        let mut bytes = source.to_vec();
        let mut at = 0;
        while at < source.len() {
            let end = literal_or_comment_end(source, at);
            match end {
                Some(end) => {
                    for byte in &mut bytes[at..end] {
                        if *byte != b'\n' {
                            *byte = b' ';
                        }
                    }
                    at = end;
                }
                None => at += 1,
            }
        }
        Self { bytes }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub(super) fn line_of(&self, offset: usize) -> usize {
        self.bytes[..offset].iter().filter(|b| **b == b'\n').count() + 1
    }

    /// Identifiers and keywords with their offsets.
    pub(super) fn words(&self) -> Vec<(usize, &str)> {
        let mut words = Vec::new();
        let mut start = None;
        for at in 0..=self.bytes.len() {
            let inside = self.bytes.get(at).is_some_and(|b| is_word(*b));
            match (start, inside) {
                (None, true) => start = Some(at),
                (Some(from), false) => {
                    let word = std::str::from_utf8(&self.bytes[from..at]).expect("ASCII");
                    words.push((from, word));
                    start = None;
                }
                _ => {}
            }
        }
        words
    }

    /// The offset of the bracket that closes the one at `open`.
    pub(super) fn closing(&self, open: usize) -> usize {
        let mut depth = 0usize;
        for (at, byte) in self.bytes.iter().enumerate().skip(open) {
            match byte {
                b'{' | b'(' | b'[' => depth += 1,
                b'}' | b')' | b']' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at;
            }
        }
        self.bytes.len()
    }
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where the comment or literal that starts at `at` ends; `None` where none starts.
fn literal_or_comment_end(source: &[u8], at: usize) -> Option<usize> {
    let rest = &source[at..];
    if rest.starts_with(b"//") {
        return Some(at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(at + block_comment_len(rest));
    }
    if rest[0] == b'"' {
        return Some(at + quoted_len(rest));
    }
    if rest[0] == b'\'' {
        return char_len(rest).map(|len| at + len);
    }
    let starts_word = at == 0 || !is_word(source[at - 1]);
    if rest[0] == b'r' || rest.starts_with(b"br") || rest.starts_with(b"cr") {
        let prefix = if rest[0] == b'r' { 1 } else { 2 };
        let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
        if starts_word && rest.get(prefix + hashes) == Some(&b'"') {
            let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
            let body = prefix + hashes + 1;
            let len = rest[body..].windows(close.len()).position(|w| w == close);
            return Some(at + len.map_or(rest.len(), |l| body + l + close.len()));
        }
    }
    None
}

fn block_comment_len(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn quoted_len(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character literal; `None` for a lifetime.
fn char_len(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        let close = rest.iter().skip(3).position(|b| *b == b'\'')?;
        return Some(close + 4);
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(8)]).or_else(|e| {
        std::str::from_utf8(&rest[1..=e.valid_up_to()]) // cut inside a later character
    });
    let first = text.ok()?.chars().next()?.len_utf8();
    (rest.get(1 + first) == Some(&b'\'')).then_some(first + 2)
}
