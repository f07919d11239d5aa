//! What people are told, and where.

use khufu_scope::{EvaluateErrorKind, SiteView, View, evaluate, parse};

const OPERAND: &str = "a site name, `all`, `here`, `!`, `(`, `[`, `around(…)` or `n of (…)`";
const OPERATOR: &str = "`&`, `%`, `|`, `,` or the end of the scope";

/// Every error of a text as `line:column found; expected`, with the help after a dash.
fn told(text: &str) -> Vec<String> {
    let errors = parse(text).expect_err(text);
    let line = |error: &khufu_scope::ParseError| {
        let expected = match error.expected.as_slice() {
            [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
            other => other.concat(),
        };
        let help = error.help.as_ref().map(|help| format!(" - {help}")).unwrap_or_default();
        format!("{}:{} {}; {expected}{help}", error.line, error.column, error.found)
    };
    errors.errors().iter().map(line).collect()
}

#[test]
fn one_mistake_gives_one_message_that_names_the_place() {
    let operand = |found: &str, help: &str| format!("{found}; {OPERAND}{help}");
    let operator = |found: &str, help: &str| format!("{found}; {OPERATOR}{help}");
    let join = " - `&` replicates, `%` spans, `|` is otherwise; a `,` separates the services";
    let cases: Vec<(&str, String)> = vec![
        ("a & & b", operand("1:5 `&`", " - write `&` once")),
        ("a &", operand("1:4 the end of the scope", "")),
        ("a &\n  & b", operand("2:3 `&`", " - write `&` once")),
        ("image: a &, compute: b", operand("1:11 `,`", "")),
        ("a & ()", operand("1:6 `)`", "")),
        ("a % % b", operand("1:5 `%`", " - write `%` once")),
        ("!!a", "1:2 `!`; a site name, `all`, `here`, `(`, `[`, `around(…)` or `n of (…)` - `!` stands once before its operand; `!(!paris)` is paris".into()),
        ("a b", operator("1:3 `b`", join)),
        ("a & b (c)", operator("1:7 `(`", join)),
        ("3 (a & b)", operator("1:3 `(`", " - to choose some of several sites write `3 of (…)`")),
        ("Around(a)", operator("1:7 `(`", " - `around` has small letters")),
        ("a ! b", operator("1:3 `!`", join)),
        ("a = b", operator("1:3 `=`", " - labels stand in brackets: `[key=value]`")),
        ("a)", operator("1:2 `)`", " - no parenthesis is open here")),
        ("a & b ]", operator("1:7 `]`", " - no bracket is open here")),
        ("a }", operator("1:3 `}`", " - braces may stand around the whole scope only")),
        ("{a", "1:3 the end of the scope; `}` - the brace opened at the beginning is not closed".into()),
        ("image: a compute: b", operator("1:10 `compute`", " - a service is named at the beginning of an item, after a `,`")),
        ("(a & b", "1:7 the end of the scope; `&`, `%`, `|` or `)` - the parenthesis at line 1, column 1 is still open here".into()),
        ("(a, b)", "1:3 `,`; `&`, `%`, `|` or `)` - the parenthesis at line 1, column 1 is still open here".into()),
        ("a & (b, image: c", "1:7 `,`; `&`, `%`, `|` or `)` - the parenthesis at line 1, column 5 is still open here".into()),
        ("2 of a", "1:6 `a`; `(`".into()),
        ("0 of (a)", "1:1 `0`; a number from 1 to 4294967295 - write how many sites are needed, such as `2 of (paris & rennes & nantes)`".into()),
        ("99999999999 of (a)", "1:1 `99999999999`; a number from 1 to 4294967295 - write how many sites are needed, such as `2 of (paris & rennes & nantes)`".into()),
        ("around(a b)", "1:10 `b`; `,`".into()),
        ("around(a, 50)", "1:11 `50`; a duration such as 50ms - a duration is a number and a unit (us, ms, s or m), such as 50ms, 1.5s or 2m".into()),
        ("around(all, 5ms)", "1:8 `all`; a site name or `here` - `all` is every site; here one site is needed".into()),
        ("around: a, b", "1:12 `b`; a duration such as 50ms - a duration is a number and a unit (us, ms, s or m), such as 50ms, 1.5s or 2m".into()),
        ("a % b, prime: all", "1:15 `all`; a site name or `here` - `all` is every site; here one site is needed".into()),
        ("[a b]", "1:4 `b`; `=` or `!=`".into()),
        ("[a=]", "1:4 `]`; the value of a label".into()),
        ("[=b]", "1:2 `=`; the name of a label".into()),
        ("[a=b", "1:5 the end of the scope; `]` or `,`".into()),
        ("a/b", "1:1 `a/b`; a site name, `all`, `here`, `!`, `(`, `[`, `around(…)`, `n of (…)`, a service with `:`, `prime:` or `around:` - `/` may stand in labels only: a name holds letters, digits, `-`, `_` and `.`".into()),
        ("a & .b", operand("1:5 `.b`", " - a name must not start with a dot, nor hold two dots in a row")),
        ("a & b..c", operand("1:5 `b..c`", " - a name must not start with a dot, nor hold two dots in a row")),
        ("all: a", "1:1 `all`; a service with `:`, `prime:` or `around:` - `all` and `here` are sites, and cannot name a service".into()),
        ("", "1:1 the end of the scope; a site name, `all`, `here`, `!`, `(`, `[`, `around(…)`, `n of (…)`, a service with `:`, `prime:` or `around:`".into()),
        ("café & b", "1:1 `café`; ASCII letters, digits, `-`, `_` and `.` - write the name as the site itself spells it: `khufu sites` lists them".into()),
        ("a & \"b\" & c", "1:5 `\"`; a name or an operator - names are written without quotes".into()),
        ("a, b", "1:4 a second place without a service; at most one place without a service - join them with `&`, or name the services: `image: paris, compute: rennes`".into()),
        ("x: a, y: b, x: c", "1:13 `x` again; each service once - join the two with `&`, `%` or `|`".into()),
        ("a % b, prime: a, prime: a", "1:25 `a` again; each prime once - leave one out".into()),
        ("prime: a", "1:8 `prime:` alone; a place - write the sites too: `paris % rennes, prime: paris`".into()),
    ];
    for (text, expected) in cases {
        let told = told(text);
        // Quotes are closed as well as opened.
        let told: Vec<&String> = if text.contains('"') { told.iter().take(1).collect() } else { told.iter().collect() };
        assert_eq!(told, [&expected], "{text}");
    }
}

#[test]
fn several_mistakes_are_found_in_one_pass() {
    for (text, places) in [
        ("a & & b | % c, image: (d e, x: all all", vec![(1, 5), (1, 11), (1, 26), (1, 36)]),
        (
            "image: a &, compute: , b ::c, [x y] % [=] | around(a 5ms)",
            vec![(1, 11), (1, 22), (1, 27), (1, 34), (1, 40), (1, 54)],
        ),
        ("a @ b & & c", vec![(1, 3), (1, 9)]),
        ("a & é→ b\n& & c", vec![(1, 5), (1, 6), (2, 3)]),
        ("(b, c) & d & & x", vec![(1, 3), (1, 14)]),
        ("2 of a & & b", vec![(1, 6), (1, 10)]),
        ("all: a & & b, prime: all, around: c, 5", vec![(1, 1), (1, 10), (1, 22), (1, 38)]),
        ("a, b, x: c, x: d, prime: e, prime: e", vec![(1, 4), (1, 13), (1, 36)]),
        ("{ a & ", vec![(1, 6), (1, 6)]),
    ] {
        let errors = parse(text).unwrap_err();
        let found: Vec<(usize, usize)> = errors.errors().iter().map(|error| (error.line, error.column)).collect();
        assert_eq!(found, places, "{text}\n{errors}");
        assert_eq!(errors.to_string().lines().count(), places.len());
    }
}

#[test]
fn columns_count_characters_and_spans_count_bytes() {
    let text = "é & ö &\n é é & & b";
    let errors = parse(text).unwrap_err();
    let error = errors.errors().last().unwrap();
    assert_eq!((error.line, error.column, error.span.clone()), (2, 8, 19..20));
    assert_eq!(&text[error.span.clone()], "&");
    let drawn = errors.render(text, false);
    assert!(drawn.contains("scope:2:8"), "{drawn}");
}

#[test]
fn pictures_point_at_the_mistake() {
    let text = "image: paris & & rennes";
    let drawn = parse(text).unwrap_err().render(text, false);
    let expected = format!(
        "\
Error: found `&`, expected {OPERAND}
    ╭─[ scope:1:16 ]
    │
  1 │ image: paris & & rennes
    │                ┬
    │                ╰── found `&`
    │
    │ Help: write `&` once
────╯
"
    );
    let squeeze = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.replace("    │", "   │").replace("  1 │", " 1 │").trim_end().to_owned()).collect()
    };
    let trim = |text: &str| {
        squeeze(text).into_iter().map(|line| line.replace('─', "").replace("    ╭", "   ╭")).collect::<Vec<_>>()
    };
    assert_eq!(trim(&drawn), trim(&expected), "{drawn}");
    assert!(parse(text).unwrap_err().render(text, true).contains('\u{1b}'));
}

#[test]
fn text_that_steers_terminals_is_not_passed_on() {
    let text = "paris \u{1b}[2J & \u{202e}x \u{0}";
    let errors = parse(text).unwrap_err();
    for shown in [errors.to_string(), errors.render(text, false)] {
        assert!(!shown.contains(['\u{1b}', '\u{202e}', '\u{0}']), "{shown}");
    }
    assert!(errors.errors()[0].message.starts_with("the character U+001B"));
}

#[test]
fn many_mistakes_are_counted_rather_than_listed() {
    let text = "& a ".repeat(40) + &"| | b ".repeat(30);
    let errors = parse(&text).unwrap_err();
    assert!(errors.errors().len() > 20);
    let more = errors.errors().len() - 16;
    assert_eq!(errors.to_string().lines().last(), Some(format!("and {more} more errors").as_str()));
    assert!(errors.render(&text, false).ends_with(&format!("and {more} more errors\n")));
}

fn view(names: &[&str]) -> View {
    View {
        here: names[0].to_owned(),
        sites: names.iter().map(|name| ((*name).to_owned(), SiteView::default())).collect(),
    }
}

fn refused(text: &str, view: &View) -> Vec<(usize, usize, String)> {
    let errors = evaluate(&parse(text).unwrap(), view).expect_err(text);
    assert!(errors.render(text, false).contains("Error"));
    let line = |error: &khufu_scope::EvaluateError| {
        let help = error.help.as_ref().map(|help| format!(" - {help}")).unwrap_or_default();
        (error.line, error.column, format!("{}{help}", error.kind))
    };
    errors.errors().iter().map(line).collect()
}

#[test]
fn all_unknown_sites_are_named_in_one_pass_with_the_nearest() {
    let known = view(&["nantes", "paris", "rennes"]);
    assert_eq!(
        refused("pariss & renes | !lyon,\nimage: around(Nantes, 5ms) & pariss, prime: all2", &known),
        [
            (1, 1, "no site is called `pariss` - did you mean `paris`?".to_owned()),
            (1, 10, "no site is called `renes` - did you mean `rennes`?".to_owned()),
            (
                1,
                19,
                "no site is called `lyon` - the nearest known name is `paris`; known are nantes, paris and rennes"
                    .to_owned()
            ),
            (2, 15, "no site is called `Nantes` - did you mean `nantes`?".to_owned()),
            (
                2,
                45,
                "no site is called `all2` - the nearest known name is `paris`; known are nantes, paris and rennes"
                    .to_owned()
            ),
        ]
    );
    assert_eq!(refused("ALL", &known)[0].2, "no site is called `ALL` - the word is written in small letters: `all`");
    let errors = evaluate(&parse("a & pariss").unwrap(), &known).unwrap_err();
    let nearest: Vec<_> = errors
        .errors()
        .iter()
        .map(|error| match &error.kind {
            EvaluateErrorKind::UnknownSite { nearest, .. } => nearest.as_deref(),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(nearest, [Some("paris"), Some("paris")]);
    let drawn = errors.render("a & pariss", false);
    assert!(
        drawn.contains("───┬──") && drawn.contains("not known") && drawn.contains("did you mean `paris`?"),
        "{drawn}"
    );

    let nobody = View { here: "paris".to_owned(), ..View::default() };
    assert_eq!(refused("paris", &nobody)[0].2, "no site is called `paris` - no site is known yet");
    assert_eq!(
        refused("here & !here", &nobody)[0].2,
        "`here` is `paris`, and no site of that name is known - this site has not announced itself yet: name the sites instead of `here`"
    );
    assert_eq!(
        refused("all", &nobody)[0].2,
        "no site matches `all` - name a site, or give another alternative after `|`"
    );
}

#[test]
fn what_has_no_value_says_why() {
    let known = view(&["a", "b", "c"]);
    for (text, column, message) in [
        ("a & [x=y] & !a", 1, "no site matches `a & [x=y] & !a` - name a site, or give another alternative after `|`"),
        ("image: [x=y]", 8, "no site matches `[x=y]` - name a site, or give another alternative after `|`"),
        ("!all", 1, "no site matches `!all` - name a site, or give another alternative after `|`"),
        (
            "a & 3 of (a & b)",
            5,
            "3 sites are to be chosen, and only 2 match - what matches is a and b; ask for fewer, or widen the choice",
        ),
        (
            "a & (b % c)",
            6,
            "`%` has no meaning within `&` - what spans sites is one resource: write `%` around the rest, or place its services apart",
        ),
        (
            "!(b % c)",
            3,
            "`%` has no meaning within `!` - what spans sites is one resource: write `%` around the rest, or place its services apart",
        ),
        (
            "1 of (a | b % c)",
            11,
            "`%` has no meaning within `n of` - what spans sites is one resource: write `%` around the rest, or place its services apart",
        ),
        (
            "a % b, prime: c",
            15,
            "the prime `c` is none of the sites that a resource spans - the prime is one of the sites that `%` joins, as in `paris % rennes, prime: paris`",
        ),
        (
            "a & b, prime: a",
            15,
            "the prime `a` is none of the sites that a resource spans - the prime is one of the sites that `%` joins, as in `paris % rennes, prime: paris`",
        ),
        (
            "a % b, prime: a, prime: b",
            25,
            "a resource has one prime: `a` is given already, so `b` cannot be - leave one of the two out",
        ),
    ] {
        assert_eq!(refused(text, &known), [(1, column, message.to_owned())], "{text}");
    }
}
