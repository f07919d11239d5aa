//! Files of `khufu policy resolve`: policies, operations and what is expected of them.
#![no_main]

#[path = "../../crates/cli/src/commands/policy/cases.rs"]
#[allow(dead_code, private_interfaces)]
mod cases;
#[path = "../../crates/cli/src/input.rs"]
#[allow(dead_code)]
mod input;

/// What the module of cases wants of the command line.
mod exit {
    #[derive(Debug)]
    pub(crate) enum Failure {
        Usage(String),
    }
}

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| khufu_fuzz::run(|| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(file) = input::parse::<cases::File>("cases.yaml", text) else { return };
    if let Ok(policies) = file.policies() {
        for (name, policy) in policies {
            let _ = (policy.warnings(), file.check(&name));
        }
    }
    for case in &file.cases {
        match case.answer(&file) {
            Ok(answer) => {
                let _ = case.differences(&answer);
                let again = case.answer(&file).expect("it was answered once");
                assert_eq!(answer.resolved, again.resolved);
            }
            Err(exit::Failure::Usage(message)) => assert!(!message.is_empty()),
        }
    }
}));
