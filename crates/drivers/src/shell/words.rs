//! From a command to the words that a program is started with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::allowed::Allowed;
use super::config::Command;
use crate::DriverError;

/// What may stand in braces: the files of the operation, and the replicant.
#[derive(Debug, Default)]
pub(super) struct Meanings<'a> {
    pub(super) id: &'a str,
    pub(super) files: BTreeMap<&'a str, PathBuf>,
}

impl Meanings<'_> {
    /// A word with what its braces mean. In one go: what is put in is not looked at again.
    fn put_into(&self, word: &str) -> String {
        const OLD_ID: &str = "__ID__";
        let mut made = String::with_capacity(word.len());
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let after = rest.strip_prefix('{').and_then(|inside| {
                let (name, after) = inside.split_once('}')?;
                if name == "id" {
                    made.push_str(self.id);
                } else {
                    made.push_str(self.files.get(name)?.to_str()?);
                }
                Some(after)
            });
            if let Some(after) = after {
                rest = after;
            } else if let Some(after) = rest.strip_prefix(OLD_ID) {
                made.push_str(self.id);
                rest = after;
            } else {
                made.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
            }
        }
        made
    }
}

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
}

/// Which program a command may start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) allowed: &'a Allowed,
    /// The shell that is given commands that are text, if it is.
    pub(super) shell: Option<&'a Path>,
}

impl Rules<'_> {
    /// What a command comes to.
    pub(super) fn line(&self, command: &Command, meanings: &Meanings<'_>) -> Result<Line, DriverError> {
        if let (Command::Text(text), Some(shell)) = (command, self.shell) {
            return Ok(Line { program: shell.to_owned(), arguments: vec!["-c".into(), meanings.put_into(text)] });
        }
        let words = split(command)?;
        let Some((first, rest)) = words.split_first() else { return Err(invalid("it is empty")) };
        let Some(program) = self.allowed.get(first) else {
            let first = first.chars().take(64).collect::<String>();
            let allowed = self.allowed.names();
            return Err(invalid(format!("{first:?} may not be run at this site: what may is {allowed}")));
        };
        let arguments = rest.iter().map(|word| meanings.put_into(word)).collect();
        Ok(Line { program: program.to_owned(), arguments })
    }
}

/// The words of a command, before anything is put into them.
pub(super) fn split(command: &Command) -> Result<Vec<String>, DriverError> {
    let text = match command {
        Command::Words(words) => return Ok(words.clone()),
        Command::Text(text) => text,
    };
    let words = shlex::split(text).ok_or_else(|| invalid("a quote is not closed, or it ends with a backslash"))?;
    // Whoever writes this wants a shell, and would otherwise be told that all went well.
    let is_for_a_shell = |word: &&String| {
        matches!(word.as_str(), "|" | "||" | "&" | "&&")
            || word.starts_with(['<', '>', ';'])
            || word.ends_with(';')
            || word.starts_with("2>")
    };
    if let Some(word) = words.iter().find(is_for_a_shell) {
        let word = word.chars().take(64).collect::<String>();
        return Err(invalid(format!(
            "there is no shell at this site, so {word:?} would be an argument like any other: if that is what you want, give \
             the command as a list of words"
        )));
    }
    Ok(words)
}

fn invalid(reason: impl Into<String>) -> DriverError {
    DriverError::invalid("payload.command", reason)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(text: &str) -> Vec<String> {
        split(&Command::Text(text.into())).unwrap()
    }

    #[test]
    fn text_is_split_as_a_shell_does_and_nothing_is_expanded() {
        assert_eq!(words(r#"set 'a b' "c $HOME \" d" e\ f *"#), ["set", "a b", "c $HOME \" d", "e f", "*"]);
        assert_eq!(words("a '' `id` $(id) ~"), ["a", "", "`id`", "$(id)", "~"]);
    }

    #[test]
    fn text_that_wants_a_shell_is_refused() {
        for text in ["a 'b", "a > b", "a 2>&1", "a | b", "a; b", "a && b", "a >b", "a &"] {
            let error = split(&Command::Text(text.into())).unwrap_err();
            assert!(matches!(error, DriverError::Invalid { .. }), "{text}: {error}");
        }
        let list = Command::Words(vec!["a".into(), ">".into()]);
        assert_eq!(split(&list).unwrap(), ["a", ">"]);
    }

    #[test]
    fn what_is_put_in_is_not_looked_at_again() {
        let files = BTreeMap::from([("a", PathBuf::from("/run/{b}")), ("b", PathBuf::from("/run/b"))]);
        let meanings = Meanings { id: "web", files };
        assert_eq!(meanings.put_into("{a}{b}{c}{id}__ID__ {} {a"), "/run/{b}/run/b{c}webweb {} {a");
    }
}
