//! Scope expressions: parsing, printing and parsing again, evaluating.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use khufu_scope::{SiteView, State, View, evaluate, parse};
use libfuzzer_sys::fuzz_target;

fn view() -> View {
    let mut sites = BTreeMap::new();
    for (n, name) in ["paris", "rennes", "nantes", "lyon"].into_iter().enumerate() {
        let labels = [("country".to_owned(), "fr".to_owned()), ("tier".to_owned(), format!("{}", n % 2))];
        let rtt = [("paris".to_owned(), Duration::from_millis(n as u64 * 10))];
        let state = if n == 3 { State::Down } else { State::Alive };
        let site = SiteView { labels: labels.into(), state, load: n as f64, rtt: rtt.into(), held: n == 2 };
        sites.insert(name.to_owned(), site);
    }
    View { here: "paris".into(), sites }
}

fuzz_target!(|input: &[u8]| khufu_fuzz::run(|| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match parse(text) {
        Ok(scope) => {
            let printed = scope.to_string();
            let again = parse(&printed).unwrap_or_else(|error| panic!("{text:?} is printed as {printed:?}: {error}"));
            assert_eq!(again.to_string(), printed, "{text:?}");
            let (one, other) = (evaluate(&scope, &view()), evaluate(&again, &view()));
            match (one, other) {
                (Ok(one), Ok(other)) => assert_eq!(one.sites(), other.sites(), "{text:?} and {printed:?}"),
                (Err(one), Err(_)) => drop(one.to_string()),
                (one, other) => panic!("{text:?}: {one:?}, but {printed:?}: {other:?}"),
            }
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}));
