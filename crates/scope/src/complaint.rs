//! What every error of this crate has in common: a place in the text, and a picture of it.

use std::fmt;
use std::ops::Range;

use ariadne::{Color, Config, IndexType, Label, Report, ReportKind, Source};

/// So many errors are shown; those beyond are only counted.
pub(crate) const MAX_SHOWN: usize = 16;

/// The longest piece of a user's text that is quoted inside a message, in characters.
const MAX_QUOTED: usize = 40;

/// An error before its line and column are known.
#[derive(Debug, Clone)]
pub(crate) struct Complaint {
    pub(crate) span: Range<usize>,
    pub(crate) found: String,
    pub(crate) expected: Vec<String>,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

/// The part of a text that a span covers; nothing if it is not within.
pub(crate) fn slice<'t>(text: &'t str, span: &Range<usize>) -> &'t str {
    text.get(span.clone()).unwrap_or_default()
}

/// A piece of text, fit to be quoted in one line.
pub(crate) fn clip(text: &str) -> String {
    let mut shown: String = printable(text).chars().map(|c| if c == '\n' { ' ' } else { c }).take(MAX_QUOTED).collect();
    if text.chars().nth(MAX_QUOTED).is_some() {
        shown.push('…');
    }
    shown
}

/// Line and column of an offset, both from one; columns count characters.
pub(crate) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = slice(text, &(0..text.floor_char_boundary(offset)));
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = slice(before, &(line_start..before.len())).chars().count();
    (before.matches('\n').count() + 1, column + 1)
}

/// The text with whatever could steer a terminal or break a line replaced by something of the same length in bytes.
fn printable(text: &str) -> String {
    let replace = |c: char| match c {
        '\n' => c,
        '\t' | '\r' => ' ',
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => '\u{fffd}',
        c if c.is_control() && c.is_ascii() => '?',
        c if c.is_control() => '¿',
        c => c,
    };
    text.chars().map(replace).collect()
}

/// One error to be drawn.
pub(crate) struct Picture<'e> {
    pub(crate) span: Range<usize>,
    pub(crate) message: &'e str,
    pub(crate) label: String,
    pub(crate) help: Option<&'e str>,
}

/// Draws errors beneath the text. Spans count bytes; what of them is beyond the text is cut off.
pub(crate) fn render<'e>(text: &str, colour: bool, errors: impl ExactSizeIterator<Item = Picture<'e>>) -> String {
    const ID: &str = "scope";
    let more = errors.len().saturating_sub(MAX_SHOWN);
    let config = Config::default().with_color(colour).with_index_type(IndexType::Byte);
    let clean = printable(slice(text, &(0..text.floor_char_boundary(crate::MAX_BYTES))));
    let mut out = Vec::new();
    for error in errors.take(MAX_SHOWN) {
        let start = clean.floor_char_boundary(error.span.start);
        let end = clean.ceil_char_boundary(error.span.end).max(start);
        let mut report = Report::build(ReportKind::Error, (ID, start..end))
            .with_config(config)
            .with_message(error.message)
            .with_label(Label::new((ID, start..end)).with_message(error.label).with_color(Color::Red));
        if let Some(help) = error.help {
            report = report.with_help(help);
        }
        // Writing to memory does not fail; if it did, the messages themselves are still in the error.
        if report.finish().write((ID, Source::from(clean.as_str())), &mut out).is_err() {
            break;
        }
    }
    let mut out = String::from_utf8_lossy(&out).into_owned();
    if more > 0 {
        out.push_str(&and_more(more));
        out.push('\n');
    }
    out
}

/// Plain text, one line for each of the first few.
pub(crate) fn plain<E: fmt::Display>(errors: &[E], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, error) in errors.iter().take(MAX_SHOWN).enumerate() {
        write!(f, "{}{error}", if index > 0 { "\n" } else { "" })?;
    }
    match errors.len().saturating_sub(MAX_SHOWN) {
        0 => Ok(()),
        more => write!(f, "\n{}", and_more(more)),
    }
}

/// Says how many errors were not shown.
fn and_more(count: usize) -> String {
    format!("and {count} more {}", if count == 1 { "error" } else { "errors" })
}

/// Joins alternatives as a sentence does: `a, b or c`.
pub(crate) fn alternatives(parts: &[String], last: &str) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}
