//! `khufu policy`.

mod cases;

use serde_json::json;

use self::cases::{Answer, Case, File, Run};
use super::{Context, words};
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output::{Output, Table, Tone, remark};

/// What to do with policies.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Work out what operations come to under a policy, before trusting it
    Resolve(Resolve),
}

/// Which cases.
#[derive(Debug, clap::Args)]
#[command(after_help = "The file, YAML or JSON, holds policies by name and cases:

  policies:
    counter: {resolutions: [{before: set, after: set, result: take-one}], types: {set: {absolute: true}}}
  cases:
    - name: two writes while apart
      policy: counter
      operations:
        - {id: s1, type: set, parents: [], at: 1, by: paris}
        - {id: s2, type: set, parents: [], at: 2, by: rennes}
      resolved: [s2]                  # optional: what is expected
      applied: {paris: [s1]}          # optional: what a site has executed so far
      run: {paris: {rebuild: true, steps: [s2]}}   # optional: what it is expected to execute now

`at` is the hybrid clock. `cut` of an operation is worked out from its own past unless it is given. `run` is for a driver
that can reset and cannot undo, with nothing failed. Ends with 1 if anything is not as expected.")]
pub(crate) struct Resolve {
    /// The cases; - reads standard input
    file: String,
}

/// Runs the subcommand.
pub(crate) fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    let Command::Resolve(args) = command;
    let file: File = input::read_as(&args.file)?;
    let mut answers = Vec::new();
    for (name, policy) in file.policies()? {
        policy.warnings().iter().for_each(|warning| remark(&format!("warning: policy {name}: {warning}")));
        // What is not understood counts as not there, as it would in a document; but an operator should know.
        if let Err(error) = file.check(&name) {
            remark(&format!("warning: policy {name}: a node would refuse it: {error}"));
        }
    }
    for case in &file.cases {
        answers.push(case.answer(&file)?);
    }
    let pairs: Vec<(&Case, &Answer)> = file.cases.iter().zip(&answers).collect();
    context.out.print(&json!({"cases": answers}), |out| people(out, &pairs))?;
    let wrong = pairs.iter().any(|(case, answer)| !case.differences(answer).is_empty());
    Ok(if wrong { Exit::Failed } else { Exit::Ok })
}

fn people(out: Output, pairs: &[(&Case, &Answer)]) -> String {
    let mut table = Table::new(out, &["CASE", "RESOLVED", "SITE RUNS", "EXPECTED"]);
    let mut differences = Vec::new();
    for (case, answer) in pairs {
        let found = case.differences(answer);
        let verdict = match (case.expects_something(), found.is_empty()) {
            (false, _) => ("nothing".to_owned(), Tone::Dim),
            (true, true) => ("yes".to_owned(), Tone::Good),
            (true, false) => ("NO".to_owned(), Tone::Bad),
        };
        let runs: Vec<String> =
            answer.run.iter().flatten().map(|(site, run)| format!("{site}: {}", sentence(run))).collect();
        let runs = if runs.is_empty() { "-".to_owned() } else { runs.join("; ") };
        table.row([
            (case.name.clone(), Tone::Plain),
            (words::list(&answer.resolved), Tone::Plain),
            (runs, Tone::Plain),
            verdict,
        ]);
        differences.extend(found.into_iter().map(|difference| format!("{}: {difference}", case.name)));
    }
    let mut text = table.or("The file has no cases.");
    for difference in differences {
        text.push('\n');
        text.push_str(&out.paint(Tone::Bad, &difference));
    }
    text
}

/// What a site runs, in words.
fn sentence(run: &Run) -> String {
    let steps = if run.steps.is_empty() { "nothing".to_owned() } else { words::list(&run.steps) };
    if run.rebuild { format!("{steps} (rebuild)") } else { steps }
}
