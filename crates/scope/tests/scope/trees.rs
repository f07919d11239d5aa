//! Which tree a text has, and the limits.

use std::time::{Duration, Instant};

use khufu_scope::{Anchor, Expr, Item, MAX_BYTES, MAX_DEPTH, Scope, parse};

fn printed(text: &str) -> String {
    parse(text).unwrap_or_else(|errors| panic!("{text:?}\n{errors}")).to_string()
}

/// The text with parentheses around every list, to show what binds to what.
fn grouped(expr: &Expr) -> String {
    let list = |parts: &[khufu_scope::Spanned<Expr>], sign: &str| {
        let parts: Vec<String> = parts.iter().map(|part| grouped(part.node())).collect();
        format!("({})", parts.join(sign))
    };
    match expr {
        Expr::Replicate(parts) => list(parts, "&"),
        Expr::Cross(parts) => list(parts, "%"),
        Expr::Otherwise(parts) => list(parts, "|"),
        Expr::Not(inner) => format!("!{}", grouped(inner.node())),
        Expr::Some { count, of } => format!("{count}of{}", grouped(of.node())),
        other => other.to_string(),
    }
}

fn only(scope: &Scope) -> &Expr {
    match scope.items() {
        [Item::Place { service: None, expr }] => expr.node(),
        items => panic!("{items:?}"),
    }
}

#[test]
fn replicate_binds_tightest_then_cross_then_otherwise() {
    for (text, expected) in [
        ("a & b % c | d", "(((a&b)%c)|d)"),
        ("a | b % c & d", "(a|(b%(c&d)))"),
        ("a % b & c % d", "(a%(b&c)%d)"),
        ("a | b & c | d % e", "(a|(b&c)|(d%e))"),
        ("!a & b", "(!a&b)"),
        ("!(a & b) | c", "(!(a&b)|c)"),
        ("a & (b % c)", "(a&(b%c))"),
        ("(a | b) & c", "((a|b)&c)"),
        ("a & b & c", "(a&b&c)"),
        ("a & (b & c)", "(a&(b&c))"),
        ("(a & b) & c", "((a&b)&c)"),
        ("2 of (a | b % c)", "2of(a|(b%c))"),
        ("((a))", "a"),
    ] {
        assert_eq!(grouped(only(&parse(text).unwrap())), expected, "{text}");
    }
}

#[test]
fn the_canonical_text_has_one_spelling() {
    for (text, canonical) in [
        ("paris&rennes", "paris & rennes"),
        (" { paris , image:rennes } ", "paris, image: rennes"),
        ("a||b;c|d", "a | b | c | d"),
        ("((a)) & ((b & c))", "a & (b & c)"),
        ("!(a)", "!a"),
        ("!(!a)", "!(!a)"),
        ("! 2 of (a&b)", "!2 of (a & b)"),
        ("[ zone = west,gpu!=no ]", "[zone=west, gpu!=no]"),
        ("[topology.kubernetes.io/zone=eu-1]", "[topology.kubernetes.io/zone=eu-1]"),
        ("around ( here,1500ms )", "around(here, 1.5s)"),
        ("around: paris, 50ms", "around(paris, 50ms)"),
        ("a%b,prime :b", "a % b, prime: b"),
        ("prime: here, a % here", "prime: here, a % here"),
        ("002 of (a & b)", "2 of (a & b)"),
        ("a\n& b\r\n\t| c", "a & b | c"),
    ] {
        assert_eq!(printed(text), canonical, "{text}");
        assert_eq!(printed(canonical), canonical);
        assert_eq!(parse(text).unwrap(), parse(canonical).unwrap());
    }
}

#[test]
fn special_words_are_names_wherever_they_are_not_special() {
    let scope = parse("of & prime & around & 2 & 50ms & All, around.x: prime, prime: of").unwrap();
    assert!(scope.sites().into_iter().eq(["2", "50ms", "All", "around", "of", "prime"]));
    assert!(parse("2 of (2 & of)").unwrap().sites().into_iter().eq(["2", "of"]));
    assert_eq!(*only(&parse("here").unwrap()), Expr::One(Anchor::Here));
    assert_eq!(*only(&parse("all").unwrap()), Expr::All);
    assert!(parse("all & here").unwrap().sites().is_empty());
    assert!(parse("[all=here]").is_ok());
}

#[test]
fn a_scope_knows_its_text_and_where_its_sites_stand() {
    let text = "image: paris & !rennes, prime: paris, around(nantes, 5ms)";
    let scope: Scope = text.parse().unwrap();
    assert_eq!(scope.text(), text);
    let spans: Vec<(usize, &str)> = scope.mentions().iter().map(|name| (name.span().start, name.as_str())).collect();
    assert_eq!(spans, [(7, "paris"), (16, "rennes"), (31, "paris"), (45, "nantes")]);
    assert!(scope.sites().into_iter().eq(["nantes", "paris", "rennes"]));
}

#[test]
fn a_scope_says_whether_it_depends_on_who_evaluates() {
    for text in ["here", "a & here", "around(here, 5ms)", "1 of (a)", "a % b, prime: here", "x: a, y: !(b | here)"] {
        assert!(parse(text).unwrap().depends_on_here(), "{text}");
    }
    for text in ["a & !b | [x=y]", "all", "around(a, 5ms)", "a % b, prime: b"] {
        assert!(!parse(text).unwrap().depends_on_here(), "{text}");
    }
}

#[test]
fn depth_is_limited_without_harm_to_the_stack() {
    let nested = |unit: &str, depth: usize| format!("{}a{}", unit.repeat(depth), ")".repeat(depth));
    for unit in ["(", "!(", "a & (", "a | b % (", "1 of (", "a | b % c & !(", "2 of(a,"] {
        // Half of what a thread usually has; unoptimised code needs half of this.
        let check = move || {
            let deep = parse(&nested(unit, MAX_DEPTH));
            let deeper = parse(&nested(unit, MAX_DEPTH + 1)).unwrap_err();
            let far = parse(&"(".repeat(MAX_BYTES)).unwrap_err();
            (deep.map(|scope| (scope.to_string(), parse(&scope.to_string()).is_ok())), deeper, far)
        };
        let (deep, deeper, far) = std::thread::Builder::new().stack_size(1 << 20).spawn(check).unwrap().join().unwrap();
        assert_eq!(deep.is_ok_and(|(_, again)| again), !unit.contains(','), "{unit}");
        assert_eq!(deeper.errors().len(), 1);
        assert_eq!(deeper.errors()[0].message, "parentheses are nested more than 32 deep");
        assert_eq!(
            deeper.errors()[0].span.start,
            (MAX_DEPTH + 1) * unit.len() - 1 - if unit.contains(',') { 2 } else { 0 }
        );
        assert_eq!(far.errors()[0].column, MAX_DEPTH + 1);
    }
}

#[test]
fn length_is_limited() {
    let longest = format!("a{}", "&a".repeat((MAX_BYTES - 1) / 2));
    let scope = parse(&longest).unwrap();
    // With blanks it would be too long to be read again.
    assert_eq!(scope.to_string(), longest);
    let around = format!("{}around:a,1.00001m", "x:1 of(a),".replace('x', "service"));
    assert_eq!(printed(&around), "service: 1 of (a), around(a, 60.0006s)");

    let errors = parse(&"a".repeat(MAX_BYTES + 1)).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "line 1, column 4097: a scope has at most 4096 bytes, this one has 4097 (select sites by label (`[key=value]`) instead of naming each)"
    );
    assert!(errors.render(&"é".repeat(10_000_000), true).len() < 64 << 10);

    let name = "n".repeat(100);
    assert!(parse(&name).is_ok());
    let errors = parse(&format!("{name}n")).unwrap_err();
    assert_eq!(errors.errors()[0].help.as_deref(), Some("a name has at most 100 bytes, this one has 101"));
}

#[test]
fn the_shortest_text_is_never_longer_than_what_was_read() {
    for item in ["1.00001m", "0.1m", "90s", "0.5s", "500ms", "1000us", "0ms"] {
        let rest = "&around(b,1.00001m)".repeat(200);
        let text = format!("a{rest}&2 of(c|d),s:e,prime:f,t:around(a,{item})");
        let text = format!("{text}{}", "&ab".repeat((MAX_BYTES - text.len()) / 3));
        let scope = parse(&text).unwrap();
        assert!(scope.to_string().len() <= text.len());
        assert_eq!(parse(&scope.to_string()).unwrap(), scope);
    }
    let filler = "&a".repeat((MAX_BYTES - 30) / 2);
    let text = format!("x:b{filler},around:paris,1.00001m");
    assert!(text.len() <= MAX_BYTES);
    assert_eq!(printed(&text), text);
}

#[test]
fn no_text_takes_long() {
    let fill = |unit: &str| unit.repeat(MAX_BYTES / unit.len());
    let units = [
        "a&",
        "a ",
        "!",
        "(",
        ")",
        "()",
        "(a,",
        "(a a",
        ")(",
        "[",
        "[,",
        "[x=y",
        "[(",
        "around(",
        "around(a,",
        "1 of (",
        "1 of ",
        ",",
        "a:",
        "a:(",
        "prime:",
        "around:a,",
        "{",
        "é",
        "@",
        "a@",
        "\n",
    ];
    for unit in units {
        for text in [fill(unit), format!("{}{}", "(".repeat(MAX_DEPTH - 1), &fill(unit)[..MAX_BYTES / 2])] {
            let started = Instant::now();
            if let Err(errors) = parse(&text) {
                assert!(errors.to_string().lines().count() <= 17);
            }
            // Two hundred times what it takes, so that only a blow-up fails and not a busy machine.
            assert!(started.elapsed() < Duration::from_secs(10), "{unit:?} took {:?}", started.elapsed());
        }
    }
}

#[test]
fn the_scopes_of_the_user_page_can_be_read() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/scope.md")).unwrap();
    let blocks = page.split("```scope\n").skip(1).map(|block| block.split("```").next().unwrap());
    let scopes: Vec<Scope> = blocks.flat_map(str::lines).map(|line| line.parse().expect(line)).collect();
    assert!(scopes.len() > 5);
    let [.., one, same] = scopes.as_slice() else { panic!("the pair that shows what binds to what") };
    assert_eq!(one, same);
}
