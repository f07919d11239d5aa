//! What holds for any text and any view.

use std::collections::{BTreeMap, BTreeSet};

use khufu_scope::{Evaluation, Item, MAX_BYTES, Mode, ParseErrors, Scope, SiteView, State, View, evaluate, parse};
use proptest::prelude::*;

use crate::model::{Model, Operator, Style, model, site_name, view};

/// Items of a scope: distinct services and perhaps a place without one, each with its model.
fn places() -> impl Strategy<Value = BTreeMap<Option<String>, Model>> {
    let service = prop::option::of(prop::sample::select(vec!["image", "compute", "of", "9"]).prop_map(str::to_owned));
    prop::collection::btree_map(service, model(), 1..4)
}

fn write(places: &BTreeMap<Option<String>, Model>, style: &mut Style, braces: bool) -> String {
    let items: Vec<String> = places
        .iter()
        .map(|(service, model)| match service {
            Some(service) => format!("{}{service}{}:{}", style.blank(), style.blank(), model.write(style)),
            None => model.write(style),
        })
        .collect();
    let text = items.join(",");
    if braces { format!(" {{{text}}}\n") } else { text }
}

/// What must be true of errors, whatever the text.
fn check_errors(text: &str, errors: &ParseErrors) -> Result<(), TestCaseError> {
    prop_assert!(!errors.errors().is_empty());
    let mut last = 0;
    for error in errors.errors() {
        prop_assert!(error.line >= 1 && error.column >= 1);
        prop_assert!(!error.found.is_empty() && !error.message.is_empty() && !error.expected.is_empty(), "{error:?}");
        prop_assert!(text.get(error.span.clone()).is_some() || text.len() > MAX_BYTES, "{error:?}");
        prop_assert!(last <= error.span.start, "in the order of the text");
        last = error.span.start;
        let line = text.split('\n').nth(error.line - 1);
        prop_assert!(line.is_some_and(|line| error.column <= line.chars().count() + 1), "{error:?}");
    }
    let shown = errors.to_string();
    prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    let drawn = errors.render(text, false);
    prop_assert!(!drawn.chars().any(|c| c.is_control() && c != '\n'), "{drawn:?}");
    prop_assert!(drawn.contains(&errors.errors()[0].message));
    Ok(())
}

/// What must be true of any text: it is a scope that prints itself, or there are errors.
fn check_any(text: &str) -> Result<(), TestCaseError> {
    match parse(text) {
        Ok(scope) => {
            let printed = scope.to_string();
            prop_assert!(printed.len() <= MAX_BYTES);
            let again = parse(&printed);
            prop_assert_eq!(again.as_ref(), Ok(&scope), "{:?}", printed);
            for name in scope.mentions() {
                prop_assert_eq!(&text[name.span()], name.as_str());
            }
        }
        Err(errors) => check_errors(text, &errors)?,
    }
    Ok(())
}

/// Pieces that a scope is made of, and a few that it is not.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "a",
        "paris",
        "all",
        "here",
        "of",
        "2",
        "0",
        "around",
        "prime",
        "image",
        ":",
        ",",
        "&",
        "%",
        "|",
        "||",
        ";",
        "!",
        "!=",
        "=",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "50ms",
        "1.5s",
        "..",
        "a/b",
        " ",
        "\n",
        "\t",
        "é",
        "→",
        "@",
        "\u{1b}[31m",
        "\u{2028}",
        "2 of (",
        "around(",
        "[k=v]",
        "prime:",
        "around:",
        "\u{0}",
        "\r\n",
        "\"",
    ])
}

proptest! {
    #[test]
    fn trees_are_as_written_and_survive_printing(
        places in places(),
        choices in prop::collection::vec(any::<u8>(), 1..40),
        braces in any::<bool>(),
    ) {
        let text = write(&places, &mut Style::new(choices), braces);
        prop_assume!(text.len() <= MAX_BYTES);
        let scope = parse(&text).map_err(|errors| TestCaseError::fail(format!("{text:?}\n{errors}")))?;
        let read: BTreeMap<Option<String>, Model> = scope.items().iter().map(|item| match item {
            Item::Place { service, expr } => (service.as_ref().map(|name| name.as_str().to_owned()), Model::read(expr.node())),
            Item::Prime(_) => panic!("no prime is written"),
        }).collect();
        prop_assert_eq!(&read, &places, "{:?}", text);

        let printed = scope.to_string();
        let again: Scope = printed.parse().map_err(|errors| TestCaseError::fail(format!("{printed:?}\n{errors}")))?;
        prop_assert_eq!(&again, &scope, "{:?}", &printed);
        prop_assert_eq!(again.to_string(), printed);

        let mut names = BTreeSet::new();
        places.values().for_each(|model| model.names(&mut names));
        prop_assert!(scope.sites().into_iter().eq(names.iter().map(String::as_str)));
    }

    #[test]
    fn chains_bind_as_the_design_says(
        operators in prop::collection::vec(prop::sample::select(vec![Operator::Replicate, Operator::Cross, Operator::Otherwise]), 1..30),
        sites in prop::collection::vec(site_name(), 31),
    ) {
        let sign = |operator: &Operator| match operator {
            Operator::Replicate => "&", Operator::Cross => "%", Operator::Otherwise => "|",
        };
        let mut text = sites[0].clone();
        for (operator, site) in operators.iter().zip(&sites[1..]) {
            text.push_str(sign(operator));
            text.push_str(site);
        }
        // The same by splitting at the loosest operator first.
        let split = |text: &str, operator: Operator, inner: &dyn Fn(&str) -> Model| {
            let mut parts: Vec<Model> = text.split(sign(&operator)).map(inner).collect();
            if parts.len() == 1 { parts.remove(0) } else { Model::Join(operator, parts) }
        };
        let site = |text: &str| Model::Site(text.to_owned());
        let replicate = |text: &str| split(text, Operator::Replicate, &site);
        let cross = |text: &str| split(text, Operator::Cross, &replicate);
        let expected = split(&text, Operator::Otherwise, &cross);

        let scope = parse(&text).unwrap();
        let Item::Place { expr, .. } = &scope.items()[0] else { panic!("a place") };
        prop_assert_eq!(Model::read(expr.node()), expected);
    }

    #[test]
    fn any_text_is_read_or_explained(text in any::<String>()) {
        check_any(&text)?;
    }

    #[test]
    fn any_pieces_are_read_or_explained(pieces in prop::collection::vec(piece(), 0..40)) {
        check_any(&pieces.concat())?;
    }

    #[test]
    fn mutated_scopes_are_read_or_explained(
        places in places(),
        choices in prop::collection::vec(any::<u8>(), 1..40),
        edits in prop::collection::vec((any::<prop::sample::Index>(), piece(), 0usize..4), 1..5),
    ) {
        let mut text = write(&places, &mut Style::new(choices), false);
        for (at, new, remove) in edits {
            let start = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text.ceil_char_boundary((start + remove).min(text.len()));
            text.replace_range(start..end, new);
        }
        check_any(&text)?;
    }

    #[test]
    fn values_are_those_of_the_model(
        places in places(),
        view in view(),
        choices in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let text = write(&places, &mut Style::new(choices), false);
        prop_assume!(text.len() <= MAX_BYTES);
        let scope = parse(&text).unwrap();
        let result = evaluate(&scope, &view);
        prop_assert_eq!(&result, &evaluate(&scope.clone(), &view.clone()));

        let mut names = BTreeSet::new();
        places.values().for_each(|model| model.names(&mut names));
        let known = names.iter().all(|name| view.sites.contains_key(name));
        let misplaced = places.values().any(|model| model.misplaced(false));
        let values: Vec<_> = places.values().map(|model| model.value(&view).filter(|set| !set.is_empty())).collect();
        match result {
            Ok(evaluation) => {
                prop_assert!(known && !misplaced);
                check_evaluation(&evaluation, &view)?;
                for (place, value) in evaluation.places.iter().zip(values) {
                    prop_assert_eq!(Some(&place.sites), value.as_ref(), "{:?} {:?}", place.service, place.reasons);
                }
            }
            Err(errors) => {
                prop_assert!(!known || misplaced || values.iter().any(Option::is_none), "{}", errors);
                prop_assert!(!errors.errors().is_empty());
                for error in errors.errors() {
                    prop_assert!(text.get(error.span.clone()).is_some());
                }
                prop_assert!(errors.render(&text, false).contains("Error"));
            }
        }
    }

    #[test]
    fn a_written_site_stays_in_while_it_is_down(
        sites in prop::collection::btree_set("[a-f]", 1..6),
        down in prop::collection::btree_set("[a-f]", 0..6),
    ) {
        let mut view = View { here: "a".to_owned(), ..View::default() };
        for site in ["a", "b", "c", "d", "e", "f"] {
            let state = if down.contains(site) { State::Down } else { State::Alive };
            view.sites.insert(site.to_owned(), SiteView { state, ..SiteView::default() });
        }
        let text = sites.iter().cloned().collect::<Vec<_>>().join(" & ");
        let evaluation = evaluate(&parse(&text).unwrap(), &view).unwrap();
        prop_assert_eq!(&evaluation.places[0].sites, &sites);
        let all = evaluate(&parse("all").unwrap(), &view).unwrap();
        prop_assert_eq!(all.places[0].sites.len(), 6);
    }
}

fn check_evaluation(evaluation: &Evaluation, view: &View) -> Result<(), TestCaseError> {
    for place in &evaluation.places {
        prop_assert!(!place.sites.is_empty());
        for site in place.sites.iter().chain(place.fallbacks.iter().flatten()) {
            prop_assert!(view.sites.contains_key(site), "{site}");
        }
        prop_assert_eq!(place.prime.is_some(), place.mode == Mode::Cross);
        prop_assert!(place.prime.as_ref().is_none_or(|prime| place.sites.contains(prime)));
        prop_assert!(place.fallbacks.iter().all(|sites| !sites.is_empty()));
        prop_assert!(!place.reasons.is_empty());
    }
    Ok(())
}
