//! What a batch prints.

use std::fmt;

use super::batch::{Failure, Summary};
use super::counters::Kind;
use super::plan::Class;

/// The command that runs one seed again.
#[must_use]
pub fn replay(class: Class, seed: u64) -> String {
    let class = match class {
        Class::Faults => "",
        Class::Disasters => " --class disasters",
    };
    format!("cargo run --release -p khufu-simulations -- fuzz{class} --seed {seed}")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "FAILED seed {}", self.seed)?;
        writeln!(f, "  invariant  {}", self.invariant)?;
        writeln!(f, "  how        {}", self.message)?;
        writeln!(f, "  again      {}", self.replay)?;
        writeln!(f, "\n{}", self.timeline)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        writeln!(f, "What really happened:")?;
        for kind in Kind::ALL {
            writeln!(f, "{:>12}  {}", self.happened.count(kind), kind.words())?;
        }
        let rate = self.seeds as f64 / self.seconds.max(0.001);
        writeln!(
            f,
            "\n{} seeds from {} in {:.0} s ({rate:.1} a second), {:.1} virtual hours, {} steps; the slowest world agreed \
             {:.1} virtual seconds after all had healed",
            self.seeds,
            self.from,
            self.seconds,
            self.virtual_s as f64 / 3600.0,
            self.steps,
            self.slowest_heal_ms as f64 / 1000.0,
        )?;
        writeln!(f, "trace {}", self.trace)?;
        for kind in &self.missing {
            writeln!(f, "NEVER HAPPENED: {}. A batch that does not try it proves too little.", kind.words())?;
        }
        match self.failures.len() {
            0 if self.missing.is_empty() => writeln!(f, "No promise was broken."),
            0 => Ok(()),
            failed => {
                let seeds: Vec<_> = self.failures.iter().map(|failure| failure.seed.to_string()).collect();
                writeln!(f, "{failed} seeds failed: {}", seeds.join(", "))
            }
        }
    }
}
