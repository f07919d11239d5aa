//! What the demo says while it runs, and what it measured in the end.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::output::{Output, Tone, clean, remark};

use super::{DemoError, Network};

/// Tells the story, counts the claims, keeps the measurements.
#[derive(Debug)]
pub(crate) struct Teller {
    out: Output,
    /// For programs the story goes to standard error.
    quiet: bool,
    started: Instant,
    claims: Vec<Value>,
    untrue: usize,
    measured: Map<String, Value>,
}

impl Teller {
    /// A teller for people, or one who keeps standard output for JSON.
    pub(crate) fn new(out: Output, quiet: bool) -> Self {
        Self { out, quiet, started: Instant::now(), claims: Vec::new(), untrue: 0, measured: Map::new() }
    }

    /// Says a sentence.
    pub(crate) fn say(&self, sentence: &str) -> Result<(), DemoError> {
        let text = format!("{:>5.1}s  {}", self.started.elapsed().as_secs_f64(), clean(sentence));
        self.line(&text)
    }

    /// Shows text, set in.
    pub(crate) fn show(&self, text: &str) -> Result<(), DemoError> {
        text.lines().try_for_each(|line| self.line(&format!("          {}", clean(line))))
    }

    /// Makes a claim that was checked; `instead` says what is so if it is not true.
    pub(crate) fn claim(&mut self, claim: &str, checked: Result<(), String>) -> Result<(), DemoError> {
        let ok = checked.is_ok();
        self.untrue += usize::from(!ok);
        let mark = if ok { self.out.paint(Tone::Good, "true") } else { self.out.paint(Tone::Bad, "NOT TRUE") };
        self.line(&format!("        {mark}: {}", clean(claim)))?;
        if let Err(instead) = &checked {
            self.show(instead)?;
        }
        self.claims.push(json!({"claim": claim, "true": ok, "instead": checked.err()}));
        Ok(())
    }

    /// Keeps a measurement for `--json`.
    pub(crate) fn measure(&mut self, name: &str, value: impl Into<Value>) {
        self.measured.insert(name.to_owned(), value.into());
    }

    /// How many claims are not true.
    pub(crate) fn untrue(&self) -> usize {
        self.untrue
    }

    /// How many claims were checked.
    pub(crate) fn checked(&self) -> usize {
        self.claims.len()
    }

    /// Everything, for programs.
    pub(crate) fn json(&self, network: &Network) -> Value {
        json!({
            "network": network.json(),
            "ok": self.untrue == 0 && !self.claims.is_empty(),
            "claims": self.claims,
            "measurements": self.measured,
            "total_ms": ms(self.started.elapsed()),
        })
    }

    fn line(&self, text: &str) -> Result<(), DemoError> {
        if self.quiet {
            remark(text);
            return Ok(());
        }
        self.out.text(text).map_err(DemoError::Output)
    }
}

/// Milliseconds, with fractions below 100.
pub(crate) fn ms(time: Duration) -> f64 {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 100.0 { (ms * 10.0).round() / 10.0 } else { ms.round() }
}
