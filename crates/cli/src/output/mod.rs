//! What a command prints: tables for people, JSON or YAML for programs.

mod table;
mod time;

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

pub(crate) use table::{Table, Tone, clean, liveness_tone, status_tone};
pub(crate) use time::{age, ago, now_ms, utc};

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences, for people; may change between versions.
    #[default]
    Table,
    /// JSON, exactly as the node answered.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Where results go, and how they look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
    colour: bool,
}

impl Output {
    /// Colours only on a terminal, and not if `NO_COLOR` is set to anything.
    pub(crate) fn new(format: Format) -> Self {
        let colour = io::stdout().is_terminal() && no_color_unset();
        Self { format, colour }
    }

    /// How results are printed.
    pub(crate) fn format(self) -> Format {
        self.format
    }

    /// Whether a program reads the output.
    pub(crate) fn for_programs(self) -> bool {
        self.format != Format::Table
    }

    /// Whether words may be coloured.
    pub(crate) fn colour(self) -> bool {
        self.colour
    }

    /// Prints a result: as the value itself for programs, as `people` put it otherwise.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub(crate) fn print<T: Serialize>(self, value: &T, people: impl FnOnce(Self) -> String) -> Result<(), io::Error> {
        match self.format {
            Format::Table => self.text(&people(self)),
            Format::Json => self.text(&json(value)?),
            Format::Yaml => self.text(&yaml(value)?),
        }
    }

    /// Prints one of many results on a line of its own: JSON without line breaks, or YAML as a document of its own.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub(crate) fn print_item<T: Serialize>(
        self,
        value: &T,
        people: impl FnOnce(Self) -> String,
    ) -> Result<(), io::Error> {
        match self.format {
            Format::Table => self.text(&people(self)),
            Format::Json => self.text(&serde_json::to_string(value).map_err(io::Error::other)?),
            Format::Yaml => self.text(&format!("---\n{}", yaml(value)?)),
        }
    }

    /// Prints text, ended by exactly one line break (none if there is no text).
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub(crate) fn text(self, text: &str) -> Result<(), io::Error> {
        let text = text.trim_end_matches('\n');
        if text.is_empty() {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// A word in the colour of its tone, if colours are wanted.
    pub(crate) fn paint(self, tone: Tone, word: &str) -> String {
        match tone.code().filter(|_| self.colour) {
            Some(code) => format!("\u{1b}[{code}m{word}\u{1b}[0m"),
            None => word.to_owned(),
        }
    }
}

/// A remark beside the result, on standard error, so that it never mixes with what programs read.
pub(crate) fn remark(text: &str) {
    // A lost remark changes nothing about the result.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A value as indented JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, io::Error> {
    serde_json::to_string_pretty(value).map_err(io::Error::other)
}

/// A value as YAML. Long texts stay on their line, so that a difference shows what changed and not how it was folded.
pub(crate) fn yaml<T: Serialize>(value: &T) -> Result<String, io::Error> {
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX, min_fold_chars: usize::MAX };
    serde_saphyr::to_string_with_options(value, options).map_err(io::Error::other)
}

/// Whether messages on standard error may be coloured.
pub(crate) fn colour_on_stderr() -> bool {
    io::stderr().is_terminal() && no_color_unset()
}

/// By the convention of no-color.org, any value but an empty one switches colours off.
fn no_color_unset() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
