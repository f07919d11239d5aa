//! What was measured, for people and for programs.

use std::fmt;

use serde_json::{Value, json};

/// What is wanted of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// No more than that.
    Below(f64),
    /// No less than that.
    Above(f64),
    /// Only to be known.
    None,
}

/// One figure: all samples of all runs.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    part: &'static str,
    what: String,
    unit: &'static str,
    samples: Vec<f64>,
    goal: Goal,
    goal_p99: Goal,
}

/// All figures.
#[derive(Debug, Default)]
pub(crate) struct Table {
    figures: Vec<Figure>,
    part: &'static str,
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

impl Goal {
    fn holds(self, value: f64) -> Option<bool> {
        match self {
            Self::Below(most) => Some(value <= most),
            Self::Above(least) => Some(value >= least),
            Self::None => None,
        }
    }

    fn json(self) -> Value {
        match self {
            Self::Below(most) => json!({"at_most": most}),
            Self::Above(least) => json!({"at_least": least}),
            Self::None => Value::Null,
        }
    }
}

fn short(value: f64) -> String {
    match value.abs() {
        big if big >= 100.0 => format!("{value:.0}"),
        middle if middle >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl Table {
    /// What comes next belongs to this part.
    pub(crate) fn begin(&mut self, part: &'static str) {
        self.part = part;
        eprintln!("measuring: {part}");
    }

    /// Adds samples to a figure.
    pub(crate) fn add(&mut self, what: impl Into<String>, unit: &'static str, goal: Goal, samples: Vec<f64>) {
        self.add_both(what, unit, (goal, Goal::None), samples);
    }

    /// The same, with a goal for the hundredth as well.
    pub(crate) fn add_both(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        (goal, goal_p99): (Goal, Goal),
        samples: Vec<f64>,
    ) {
        let (part, what) = (self.part, what.into());
        match self.figures.iter_mut().find(|figure| figure.part == part && figure.what == what) {
            Some(figure) => figure.samples.extend(samples),
            None => self.figures.push(Figure { part, what, unit, samples, goal, goal_p99 }),
        }
    }

    /// Everything, for programs.
    pub(crate) fn json(&self) -> Value {
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|figure| {
                let sorted = figure.sorted();
                json!({
                    "part": figure.part, "what": figure.what, "unit": figure.unit, "samples": sorted.len(),
                    "p50": percentile(&sorted, 0.5), "p90": percentile(&sorted, 0.9), "p99": percentile(&sorted, 0.99),
                    "min": sorted.first(), "max": sorted.last(),
                    "goal": figure.goal.json(), "goal_p99": figure.goal_p99.json(),
                })
            })
            .collect();
        json!({"cpus": cpus, "version": env!("CARGO_PKG_VERSION"), "figures": figures})
    }
}

impl Figure {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10} {:<58} {:>9} {:>9} {:>7} {:<6} goal", "part", "what", "p50", "p99", "samples", "unit")?;
        for figure in &self.figures {
            let sorted = figure.sorted();
            let (p50, p99) = (percentile(&sorted, 0.5), percentile(&sorted, 0.99));
            let one = |goal: Goal, name: &str, value: f64| {
                let (sign, limit) = match goal {
                    Goal::Below(most) => ("<=", most),
                    Goal::Above(least) => (">=", least),
                    Goal::None => return String::new(),
                };
                let verdict = if goal.holds(value) == Some(true) { "met" } else { "MISSED" };
                format!("{name} {sign} {} {verdict} ", short(limit))
            };
            let goal = format!("{}{}", one(figure.goal, "p50", p50), one(figure.goal_p99, "p99", p99));
            writeln!(
                f,
                "{:<10} {:<58} {:>9} {:>9} {:>7} {:<6} {}",
                figure.part,
                figure.what,
                short(p50),
                short(p99),
                sorted.len(),
                figure.unit,
                goal.trim_end()
            )?;
        }
        Ok(())
    }
}
