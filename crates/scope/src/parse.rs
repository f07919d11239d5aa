//! From text to tree, and the errors on the way.

use std::{collections::BTreeSet, fmt, ops::Range};

use chumsky::{Parser, error::RichPattern, input::Input, span::SimpleSpan};
use serde::Serialize;

use crate::{
    Anchor, Item, MAX_BYTES, MAX_DEPTH, Scope,
    complaint::{Complaint, Picture, alternatives, clip, plain, position, render, slice},
    duration,
    grammar::{self, expected},
    name,
    token::{self, Token},
};

type Spot<'t> = (Token<'t>, SimpleSpan);

const END: &str = "the end of the scope";

/// Reads a scope.
///
/// # Errors
/// [`ParseErrors`] holds every mistake that was found in one pass: characters without meaning, what the grammar does
/// not allow, services named twice, and text beyond [`MAX_BYTES`] or [`MAX_DEPTH`]. Whether the sites exist is not
/// known here: [`evaluate`](crate::evaluate) says that.
pub fn parse(text: &str) -> Result<Scope, ParseErrors> {
    let complaints = match read(text) {
        Ok(items) => return Ok(Scope { text: text.to_owned(), items }),
        Err(complaints) => complaints,
    };
    let mut errors: Vec<ParseError> =
        complaints.into_iter().map(|complaint| ParseError::new(text, complaint)).collect();
    errors.sort_by_key(|error| (error.span.start, error.span.end));
    Err(ParseErrors { errors })
}

fn read(text: &str) -> Result<Vec<Item>, Vec<Complaint>> {
    if text.len() > MAX_BYTES {
        return Err(vec![Complaint {
            span: MAX_BYTES..text.len(),
            found: format!("{} bytes", text.len()),
            expected: vec![format!("at most {MAX_BYTES} bytes")],
            message: format!("a scope has at most {MAX_BYTES} bytes, this one has {}", text.len()),
            help: Some("select sites by label (`[key=value]`) instead of naming each".to_owned()),
        }]);
    }
    let mut split = token::split(text);
    if let Some(span) = too_deep(&split.tokens) {
        split.complaints.push(Complaint {
            span,
            found: format!("`(` number {}", MAX_DEPTH + 1),
            expected: vec![format!("at most {MAX_DEPTH} open parentheses")],
            message: format!("parentheses are nested more than {MAX_DEPTH} deep"),
            help: Some("`&` binds tighter than `%`, and `%` tighter than `|`: many parentheses can go".to_owned()),
        });
        return Err(split.complaints);
    }
    let mut complaints = std::mem::take(&mut split.complaints);
    let (tokens, end) = unbrace(text, &split.tokens, &mut complaints);
    let (items, errors) = grammar::items().parse(tokens.split_token_span((end..end).into())).into_output_errors();
    complaints.extend(explain(text, tokens, &split.gaps, errors));
    let items: Option<Vec<Item>> = items.and_then(|items| items.into_iter().collect());
    match items {
        Some(items) if complaints.is_empty() => {
            check(&items, &mut complaints);
            if complaints.is_empty() { Ok(items) } else { Err(complaints) }
        }
        _ => Err(complaints),
    }
}

/// The first parenthesis that is one too many.
fn too_deep(tokens: &[Spot<'_>]) -> Option<Range<usize>> {
    let mut depth = 0_usize;
    for (token, span) in tokens {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Some(span.into_range());
        }
    }
    None
}

/// Takes off the braces around the whole, which mean nothing, and says where what is left ends.
fn unbrace<'a, 't>(text: &str, tokens: &'a [Spot<'t>], complaints: &mut Vec<Complaint>) -> (&'a [Spot<'t>], usize) {
    let end = text.trim_end_matches([' ', '\t', '\n', '\r']).len();
    match tokens {
        [(Token::OpenBrace, _), inner @ .., (Token::CloseBrace, close)] => (inner, close.start),
        [(Token::OpenBrace, _), inner @ ..] => {
            complaints.push(Complaint {
                span: end..end,
                found: END.to_owned(),
                expected: vec!["`}`".to_owned()],
                message: format!("found {END}, expected `}}`"),
                help: Some("the brace opened at the beginning is not closed".to_owned()),
            });
            (inner, end)
        }
        _ => (tokens, end),
    }
}

/// Turns the grammar's errors into complaints, without those that only follow from another.
fn explain(
    text: &str,
    tokens: &[Spot<'_>],
    gaps: &[Range<usize>],
    mut errors: Vec<grammar::Error<'_>>,
) -> Vec<Complaint> {
    // Of several at one place the first is kept: those after it come from going on behind it.
    errors.sort_by_key(|error| error.span().start);
    let mut complaints = Vec::new();
    let mut last_bad: Option<usize> = None;
    for error in errors {
        let at = tokens.partition_point(|(_, span)| span.start < error.span().start);
        let previous = at.checked_sub(1).and_then(|before| tokens.get(before));
        let follows = last_bad.is_some_and(|bad| at <= bad + 1);
        last_bad = Some(at);
        let after_gap = gaps
            .iter()
            .any(|gap| gap.end <= error.span().start && previous.is_none_or(|(_, span)| span.end <= gap.start));
        if follows || after_gap {
            continue;
        }
        complaints.push(complaint(text, tokens.split_at_checked(at).unwrap_or((tokens, &[])), &error));
    }
    complaints
}

fn complaint(text: &str, (before, rest): (&[Spot<'_>], &[Spot<'_>]), error: &grammar::Error<'_>) -> Complaint {
    let (previous, at) = (before.last(), rest.first());
    let span = at.map_or_else(|| error.span().into_range(), |(_, span)| span.into_range());
    let found = at.map_or_else(|| END.to_owned(), |_| format!("`{}`", clip(slice(text, &span))));
    let mut expected: Vec<String> = error
        .expected()
        .filter_map(|pattern| match pattern {
            RichPattern::Label(label) => Some(label.to_string()),
            RichPattern::EndOfInput => Some(END.to_owned()),
            _ => None,
        })
        .collect();
    expected.sort_by_key(|what| (rank(what), what.clone()));
    expected.dedup();
    let help = help(before, at, &expected).or_else(|| {
        let opened = unclosed(before).filter(|_| expected.iter().any(|one| one == "`)`"))?;
        let (line, column) = position(text, opened);
        Some(format!("the parenthesis at line {line}, column {column} is still open here"))
    });
    let message = if previous.is_none() && at.is_none() {
        format!("the scope is empty; expected {}", alternatives(&expected, "or"))
    } else {
        format!("found {found}, expected {}", alternatives(&expected, "or"))
    };
    Complaint { span, found, expected, message, help }
}

/// Where the innermost parenthesis that is still open at the end of these was opened.
fn unclosed(tokens: &[Spot<'_>]) -> Option<usize> {
    let mut closed = 0_usize;
    tokens.iter().rev().find_map(|(token, span)| match token {
        Token::Close => {
            closed += 1;
            None
        }
        Token::Open if closed == 0 => Some(span.start),
        Token::Open => {
            closed -= 1;
            None
        }
        _ => None,
    })
}

/// The place of an expectation in the list shown: operands first, then operators, then what ends things.
fn rank(what: &str) -> usize {
    let order = [
        expected::SITE,
        expected::ALL,
        expected::HERE,
        expected::EXCEPT,
        expected::GROUP,
        expected::LABELS,
        expected::AROUND,
        expected::SOME,
        expected::SERVICE,
        expected::PRIME,
        expected::AROUND_ITEM,
        expected::DURATION,
        expected::KEY,
        expected::VALUE,
        "`&`",
        "`%`",
        "`|`",
        "`=`",
        "`!=`",
        "`)`",
        "`]`",
        "`,`",
    ];
    order.iter().position(|known| *known == what).unwrap_or(order.len())
}

/// The way out, where what was meant can be guessed.
fn help(tokens: &[Spot<'_>], at: Option<&Spot<'_>>, expected: &[String]) -> Option<String> {
    let wants = |what: &str| expected.iter().any(|one| one == what);
    let (before, (found, _)) = (tokens.last().map(|(token, _)| *token), at?);
    let word = match *found {
        Token::Word(word) | Token::Service(word) => Some(word),
        _ => None,
    };
    let is_number = |word: &str| word.bytes().all(|b| b.is_ascii_digit());
    let text = match (before, *found) {
        (_, Token::Word(word)) if wants(expected::DURATION) => return duration::read(word).err(),
        (_, Token::All) if wants(expected::SITE) => "`all` is every site; here one site is needed",
        (_, Token::Service("all" | "here")) => "`all` and `here` are sites, and cannot name a service",
        (_, Token::Service(_)) if word.and_then(name::problem).is_some() => return word.and_then(name::problem),
        (Some(_), Token::Service(_)) => "a service is named at the beginning of an item, after a `,`",
        (Some(_), Token::Prime | Token::AroundItem) => "it stands at the beginning of an item, after a `,`",
        (_, Token::Word(word)) if wants(expected::SITE) => return name::problem(word),
        (Some(Token::And), Token::And) => "write `&` once",
        (Some(Token::Percent), Token::Percent) => "write `%` once",
        (Some(Token::Not), Token::Not) => "`!` stands once before its operand; `!(!paris)` is paris",
        (Some(Token::Word(word)), Token::Open) if is_number(word) => {
            return Some(format!("to choose some of several sites write `{word} of (…)`"));
        }
        (Some(Token::Word(word)), Token::Open) if word.eq_ignore_ascii_case("around") => "`around` has small letters",
        (_, Token::Equal | Token::NotEqual) if wants("`&`") => "labels stand in brackets: `[key=value]`",
        (_, Token::OpenBrace | Token::CloseBrace) => "braces may stand around the whole scope only",
        (_, Token::Close) if unclosed(tokens).is_none() => "no parenthesis is open here",
        (_, Token::CloseBracket) if wants("`&`") => "no bracket is open here",
        (_, Token::Colon) => "a service is one name before a `:`",
        _ if wants("`&`") && wants("`,`") => {
            "`&` replicates, `%` spans, `|` is otherwise; a `,` separates the services"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// What the grammar cannot see: things that may be written once only.
fn check(items: &[Item], complaints: &mut Vec<Complaint>) {
    let mut services = BTreeSet::new();
    let mut primes: Vec<&Anchor> = Vec::new();
    let mut placed = false;
    for item in items {
        match item {
            Item::Place { service, expr } => {
                placed = true;
                let key = service.as_ref().map(|name| name.as_str());
                if services.insert(key) {
                    continue;
                }
                complaints.push(match service {
                    Some(name) => Complaint {
                        span: name.span(),
                        found: format!("`{name}` again"),
                        expected: vec!["each service once".to_owned()],
                        message: format!("the service `{name}` is placed twice"),
                        help: Some("join the two with `&`, `%` or `|`".to_owned()),
                    },
                    None => Complaint {
                        span: expr.span(),
                        found: "a second place without a service".to_owned(),
                        expected: vec!["at most one place without a service".to_owned()],
                        message: "two places are given without a service".to_owned(),
                        help: Some(
                            "join them with `&`, or name the services: `image: paris, compute: rennes`".to_owned(),
                        ),
                    },
                });
            }
            Item::Prime(anchor) => {
                if primes.contains(&anchor.node()) {
                    complaints.push(Complaint {
                        span: anchor.span(),
                        found: format!("`{}` again", anchor.node()),
                        expected: vec!["each prime once".to_owned()],
                        message: format!("`prime: {}` is written twice", anchor.node()),
                        help: Some("leave one out".to_owned()),
                    });
                }
                primes.push(anchor.node());
            }
        }
    }
    if !placed && let Some(Item::Prime(anchor)) = items.first() {
        complaints.push(Complaint {
            span: anchor.span(),
            found: "`prime:` alone".to_owned(),
            expected: vec!["a place".to_owned()],
            message: "`prime:` alone says nothing of where the resource lives".to_owned(),
            help: Some("write the sites too: `paris % rennes, prime: paris`".to_owned()),
        });
    }
}

/// One mistake in the text of a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ParseError {
    /// Where, in bytes; empty at the end of the text.
    pub span: Range<usize>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What stands there, such as `` `&` `` or `the end of the scope`.
    pub found: String,
    /// What may stand there; at least one entry.
    pub expected: Vec<String>,
    /// The whole in a sentence, without the place.
    pub message: String,
    /// The way out, where it can be guessed.
    pub help: Option<String>,
}

impl ParseError {
    fn new(text: &str, Complaint { span, found, expected, message, help }: Complaint) -> Self {
        let (line, column) = position(text, span.start);
        Self { span, line, column, found, expected, message, help }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)?;
        self.help.iter().try_for_each(|help| write!(f, " ({help})"))
    }
}

impl std::error::Error for ParseError {}

/// Every mistake found in the text of a scope: at least one, in the order of the text.
///
/// Its `Display` is plain text, one line for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ParseErrors {
    errors: Vec<ParseError>,
}

impl ParseErrors {
    /// The mistakes, in the order of the text.
    #[must_use]
    pub fn errors(&self) -> &[ParseError] {
        &self.errors
    }

    /// Pictures of the mistakes, with carets under the text that was parsed, for a terminal. What could steer the
    /// terminal is taken out of the text.
    #[must_use]
    pub fn render(&self, text: &str, colour: bool) -> String {
        let pictures = self.errors.iter().map(|error| Picture {
            span: error.span.clone(),
            message: &error.message,
            label: format!("found {}", error.found),
            help: error.help.as_deref(),
        });
        render(text, colour, pictures)
    }
}

impl fmt::Display for ParseErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        plain(&self.errors, f)
    }
}

impl std::error::Error for ParseErrors {}
