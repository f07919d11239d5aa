//! What happened in one run, for people: a column for each site, a letter for each event.

use std::time::Duration;

use super::deed::At;

/// One event.
#[derive(Debug, Clone)]
struct Row {
    at: Duration,
    /// The letter at each of these sites; at all if there are none.
    sites: Vec<At>,
    letter: char,
    words: String,
    /// Which sites ran then.
    up: Vec<bool>,
}

/// The events of a run, if anybody wants to see them.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    sites: Vec<&'static str>,
    rows: Vec<Row>,
}

/// What the letters mean.
const LEGEND: &str = "\
users    o operation  p edit, override, pick  y rules  s scope  d delete  n made anew  q question
network  / cut or partition  > one-way cut  + mended  w weather changes
machines X crash  x power will fail  U start  c clock  f disk full, with room, broken  m snapshot  k copy, L loss of a disk
drivers  h next call goes wrong  a applies an operation  v writes a desired state  r resets  t takes back  - removes
engine   C conflict seen  P where it lives was decided  ? warning  ! an invariant broke
columns  | runs  . does not run";

impl Timeline {
    /// An empty one.
    #[must_use]
    pub fn new(sites: &[&'static str]) -> Self {
        Self { sites: sites.to_vec(), rows: Vec::new() }
    }

    /// Notes an event. `up`: which sites run.
    pub fn note(&mut self, at: Duration, sites: &[At], letter: char, words: String, up: Vec<bool>) {
        self.rows.push(Row { at, sites: sites.to_vec(), letter, words, up });
    }

    /// The last `most` events as text.
    #[must_use]
    pub fn text(&self, most: usize) -> String {
        let mut text = String::new();
        let longest = self.sites.iter().map(|site| site.len()).max().unwrap_or(0);
        // Names stand upright above narrow columns.
        for line in 0..longest {
            let letters: Vec<_> =
                self.sites.iter().map(|site| site.chars().rev().nth(longest - 1 - line).unwrap_or(' ')).collect();
            let letters: Vec<String> = letters.iter().map(char::to_string).collect();
            text.push_str(&format!("{:>10}  {}\n", if line + 1 == longest { "s" } else { "" }, letters.join(" ")));
        }
        let skipped = self.rows.len().saturating_sub(most);
        if skipped > 0 {
            text.push_str(&format!("{:>10}  ({skipped} earlier events are left out)\n", "..."));
        }
        for row in self.rows.iter().skip(skipped) {
            let column = |at: At| {
                if row.sites.is_empty() || row.sites.contains(&at) {
                    row.letter
                } else if row.up.get(at).copied().unwrap_or(false) {
                    '|'
                } else {
                    '.'
                }
            };
            let columns: Vec<String> = (0..self.sites.len()).map(|at| column(at).to_string()).collect();
            text.push_str(&format!("{:>10.3}  {}  {}\n", row.at.as_secs_f64(), columns.join(" "), row.words));
        }
        text.push_str(LEGEND);
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_a_column_for_each_site_and_the_newest_events() {
        let mut timeline = Timeline::new(&["lyon", "nantes"]);
        timeline.note(Duration::from_millis(1500), &[0], 'X', "crash lyon".into(), vec![false, true]);
        timeline.note(Duration::from_millis(2500), &[], '+', "heal".into(), vec![false, true]);
        timeline.note(Duration::from_millis(3500), &[1], 'o', "add".into(), vec![false, true]);
        let text = timeline.text(2);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "              n");
        assert_eq!(lines[5], "         s  n s");
        assert!(lines[6].contains("1 earlier"), "{text}");
        assert_eq!(lines[7], "     2.500  + +  heal");
        assert_eq!(lines[8], "     3.500  . o  add");
        assert!(!text.contains("crash lyon") && text.contains("X crash"));
    }
}
