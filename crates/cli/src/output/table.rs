//! Tables without lines, as command line tools print them.

use comfy_table::{Attribute, Cell, Color, ContentArrangement, presets};

use super::Output;

/// What a word means for the reader; the colour follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// On its way, or outdated.
    Waiting,
    /// A person should look.
    Bad,
    /// No longer of interest.
    Dim,
    /// Nothing special.
    Plain,
}

impl Tone {
    /// The SGR parameter for terminals.
    pub(super) fn code(self) -> Option<&'static str> {
        match self {
            Self::Good => Some("32"),
            Self::Waiting => Some("33"),
            Self::Bad => Some("31"),
            Self::Dim => Some("90"),
            Self::Plain => None,
        }
    }

    fn color(self) -> Option<Color> {
        match self {
            Self::Good => Some(Color::DarkGreen),
            Self::Waiting => Some(Color::DarkYellow),
            Self::Bad => Some(Color::DarkRed),
            Self::Dim => Some(Color::DarkGrey),
            Self::Plain => None,
        }
    }
}

/// The tone of a replica's status, by its word in the API.
pub(crate) fn status_tone(word: &str) -> Tone {
    match word {
        "applied" => Tone::Good,
        "pending" => Tone::Waiting,
        "failed" | "needs-attention" => Tone::Bad,
        "skipped" | "removed" => Tone::Dim,
        _ => Tone::Plain,
    }
}

/// The tone of a site's liveness, by its word in the API.
pub(crate) fn liveness_tone(word: &str) -> Tone {
    match word {
        "alive" => Tone::Good,
        "suspect" => Tone::Waiting,
        "down" => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// A table under construction.
#[derive(Debug)]
pub(crate) struct Table {
    inner: comfy_table::Table,
    rows: usize,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(output: Output, headings: &[&str]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(presets::NOTHING);
        if output.colour() {
            inner.set_content_arrangement(ContentArrangement::Dynamic);
            inner.enforce_styling();
        } else {
            inner.force_no_tty();
        }
        inner.set_header(headings.iter().map(|heading| Cell::new(heading).add_attribute(Attribute::Bold)));
        for column in inner.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { inner, rows: 0 }
    }

    /// Adds a row of words with their tones.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = (String, Tone)>) {
        self.rows += 1;
        self.inner.add_row(cells.into_iter().map(|(word, tone)| {
            let cell = Cell::new(clean(&word));
            match tone.color() {
                Some(color) => cell.fg(color),
                None => cell,
            }
        }));
    }

    /// Adds a row of plain words.
    pub(crate) fn plain(&mut self, cells: impl IntoIterator<Item = String>) {
        self.row(cells.into_iter().map(|word| (word, Tone::Plain)));
    }

    /// The text, or `otherwise` if there is no row.
    pub(crate) fn or(self, otherwise: &str) -> String {
        if self.rows == 0 {
            return otherwise.to_owned();
        }
        let text = self.inner.to_string();
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// What other sites wrote is shown, never obeyed: control characters could drive the reader's terminal.
pub(crate) fn clean(word: &str) -> String {
    word.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn a_table_has_no_trailing_spaces_and_no_colours_off_a_terminal() {
        let mut table = Table::new(Output::new(Format::Table), &["SITE", "STATUS"]);
        table.row([("paris".into(), Tone::Plain), ("applied".into(), Tone::Good)]);
        let text = table.or("nothing");
        assert_eq!(text, "SITE   STATUS\nparis  applied");
    }

    #[test]
    fn escape_sequences_of_others_do_not_reach_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\r"), "a\u{fffd}[31mb\u{fffd}");
    }
}
