//! What controllers say, made fit to be shown: anybody who can write a status can write anything into it.

/// The longest message, in characters.
pub(super) const MAX_CHARS: usize = 500;

/// At most [`MAX_CHARS`] characters in one line.
pub(super) fn clean(text: &str) -> String {
    clean_with(text, "")
}

/// The same with an end that is kept whole where the text has to be cut; the end is short and clean.
pub(super) fn clean_with(text: &str, end: &str) -> String {
    let room = MAX_CHARS.saturating_sub(end.chars().count());
    let text = text.trim();
    let mut out: String = if text.chars().nth(room).is_none() {
        text.chars().map(harmless).collect()
    } else {
        text.chars().take(room.saturating_sub(1)).map(harmless).chain(['…']).collect()
    };
    out.push_str(end);
    out
}

/// Also what turns the direction of writing or breaks the line without being a control character.
fn harmless(c: char) -> char {
    match c {
        '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}
