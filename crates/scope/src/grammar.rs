//! The grammar, on tokens.
//!
//! One token is always enough to choose, and nothing that has begun is ever taken back: a mistake is noted where it
//! is, tokens are skipped to the next place where the grammar can go on, and parsing goes on from there. So time is
//! proportional to length and depth, and the trees that stand in for what was skipped never get out, because there is
//! a complaint whenever there is one.

use std::time::Duration;

use chumsky::{
    input::MappedInput,
    pratt::{infix, left},
    prelude::*,
};

use crate::{Anchor, Expr, Item, Label, Name, Spanned, duration, name, token::Token};

pub(crate) type Input<'t> = MappedInput<'t, Token<'t>, SimpleSpan, &'t [(Token<'t>, SimpleSpan)]>;
pub(crate) type Error<'t> = Rich<'t, Token<'t>, SimpleSpan>;
type Extra<'t> = extra::Err<Error<'t>>;
type Rule<'t, T> = Boxed<'t, 't, Input<'t>, T, Extra<'t>>;

/// What may begin an operand, in the order in which it is listed to people.
pub(crate) mod expected {
    pub(crate) const SITE: &str = "a site name";
    pub(crate) const ALL: &str = "`all`";
    pub(crate) const HERE: &str = "`here`";
    pub(crate) const EXCEPT: &str = "`!`";
    pub(crate) const GROUP: &str = "`(`";
    pub(crate) const LABELS: &str = "`[`";
    pub(crate) const AROUND: &str = "`around(…)`";
    pub(crate) const SOME: &str = "`n of (…)`";
    pub(crate) const SERVICE: &str = "a service with `:`";
    pub(crate) const PRIME: &str = "`prime:`";
    pub(crate) const AROUND_ITEM: &str = "`around:`";
    pub(crate) const DURATION: &str = "a duration such as 50ms";
    pub(crate) const KEY: &str = "the name of a label";
    pub(crate) const VALUE: &str = "the value of a label";
}

/// An operand, and whether parentheses stand around it.
struct Operand {
    expr: Spanned<Expr>,
    grouped: bool,
}

fn bare(expr: Expr, span: SimpleSpan) -> Operand {
    Operand { expr: Spanned::new(expr, span.into_range()), grouped: false }
}

/// Stands in for what could not be read.
fn unread(span: SimpleSpan) -> Operand {
    bare(Expr::All, span)
}

fn sign<'t>(token: Token<'t>, label: &'static str) -> Rule<'t, ()> {
    just(token).ignored().labelled(label).boxed()
}

fn site<'t>() -> Rule<'t, Name> {
    select! { Token::Word(word) = e if name::problem(word).is_none() => Name::new(word, span_of(e.span())) }
        .labelled(expected::SITE)
        .boxed()
}

fn span_of(span: SimpleSpan) -> std::ops::Range<usize> {
    span.into_range()
}

fn anchor<'t>() -> Rule<'t, Spanned<Anchor>> {
    let here = sign(Token::Here, expected::HERE).to(Anchor::Here);
    here.or(site().map(Anchor::Site)).map_with(|anchor, e| Spanned::new(anchor, span_of(e.span()))).boxed()
}

fn within<'t>() -> Rule<'t, Duration> {
    select! { Token::Word(word) => duration::read(word).ok() }
        .filter(Option::is_some)
        .map(Option::unwrap_or_default)
        .labelled(expected::DURATION)
        .boxed()
}

fn labels<'t>() -> Rule<'t, Vec<Label>> {
    let word = select! { Token::Word(word) => word, Token::All => "all", Token::Here => "here" }.boxed();
    let equal = sign(Token::Equal, "`=`").to(true).or(sign(Token::NotEqual, "`!=`").to(false));
    word.clone()
        .labelled(expected::KEY)
        .then(equal)
        .then(word.labelled(expected::VALUE))
        .map(|((key, equal), value)| Label { key: key.to_owned(), value: value.to_owned(), equal })
        .separated_by(sign(Token::Comma, "`,`"))
        .at_least(1)
        .collect()
        .boxed()
}

/// Whatever may stand in a row where one expression was due, which is a mistake already noted: expressions without an
/// operator between them, and signs that end nothing.
fn row<'t>(expr: Rule<'t, Spanned<Expr>>, stray: impl IntoIterator<Item = Token<'t>>) -> Rule<'t, ()> {
    let stray: Vec<_> = stray.into_iter().collect();
    let operand = none_of([Token::Comma, Token::Close, Token::CloseBracket]).rewind().ignore_then(expr).ignored();
    one_of(stray).ignored().or(operand).repeated().boxed()
}

/// An expression, up to the end of what was opened before it. Without that end it goes on as if it were there.
fn group<'t>(expr: Rule<'t, Spanned<Expr>>) -> Rule<'t, Spanned<Expr>> {
    let heads = select! { Token::Service(_) => (), Token::Prime => (), Token::AroundItem => () };
    // A comma does not belong here, but what follows it may, unless it begins another item.
    let comma = just(Token::Comma).then(heads.not()).ignored().boxed();
    let more =
        row(expr.clone(), [Token::CloseBracket]).then(comma.then(row(expr.clone(), [Token::CloseBracket])).repeated());
    let rest = more.then(just(Token::Close).or_not()).ignored();
    expr.then_ignore(sign(Token::Close, "`)`").recover_with(via_parser(rest.boxed()))).boxed()
}

/// What stands between an opening sign that was just read and its end, with nothing nested in it.
fn enclosed<'t, T: 't>(
    inner: Rule<'t, T>,
    (end, label): (Token<'t>, &'static str),
    stand_in: fn() -> T,
) -> Rule<'t, T> {
    let whole = inner.then_ignore(sign(end, label));
    // Looking for the end no further than to where something else opens keeps this linear.
    let other = none_of([Token::Open, Token::Close, Token::OpenBracket, Token::CloseBracket]);
    let skipped = other.repeated().then(just(end)).map(move |_| stand_in());
    let lost = none_of([Token::Comma, Token::Close, Token::CloseBracket]).repeated();
    let lost = lost.then(just(end).or_not()).map(move |_| stand_in());
    whole.recover_with(via_parser(skipped)).recover_with(via_parser(lost)).boxed()
}

fn around<'t>() -> Rule<'t, Expr> {
    let inner = anchor().then_ignore(sign(Token::Comma, "`,`")).then(within()).map(Some).boxed();
    sign(Token::Around, expected::AROUND)
        .then(sign(Token::Open, "`(`"))
        .ignore_then(enclosed(inner, (Token::Close, "`)`"), || None))
        .map(|inner| inner.map_or(Expr::All, |(site, within)| Expr::Around { site, within }))
        .boxed()
}

fn operand<'t>(expr: Rule<'t, Spanned<Expr>>) -> Rule<'t, Operand> {
    let group = group(expr);
    let grouped = sign(Token::Open, expected::GROUP).ignore_then(group.clone());
    let grouped = grouped.map(|expr| Operand { expr, grouped: true }).boxed();
    let some = select! { Token::Count(count) => count }
        .labelled(expected::SOME)
        .then_ignore(sign(Token::Of, "`of`"))
        .then_ignore(sign(Token::Open, "`(`"))
        .then(group)
        .map(|(count, of)| Expr::Some { count, of: Box::new(of) });
    let labels = sign(Token::OpenBracket, expected::LABELS).ignore_then(enclosed(
        labels(),
        (Token::CloseBracket, "`]`"),
        Vec::new,
    ));
    let atom = choice((
        site().map(|name| Expr::One(Anchor::Site(name))).boxed(),
        sign(Token::All, expected::ALL).to(Expr::All).boxed(),
        sign(Token::Here, expected::HERE).to(Expr::One(Anchor::Here)).boxed(),
        labels.map(Expr::Labels).boxed(),
        around(),
        some.boxed(),
    ))
    .map_with(|expr, e| bare(expr, e.span()))
    .or(grouped)
    .boxed();
    let except = sign(Token::Not, expected::EXCEPT)
        .ignore_then(atom.clone().recover_with(via_parser(missing())))
        .map_with(|inner, e| bare(Expr::Not(Box::new(inner.expr)), e.span()))
        .boxed();
    except.or(atom).recover_with(via_parser(missing())).boxed()
}

/// Where an operand is missing: nothing, before what may follow one; else one token too many.
fn missing<'t>() -> Rule<'t, Operand> {
    let follows = one_of([Token::And, Token::Percent, Token::Or, Token::Comma, Token::Close, Token::CloseBracket]);
    let nothing = follows.ignored().rewind().or(end());
    nothing.or(any().ignored()).map_with(|(), e| unread(e.span())).boxed()
}

/// Joins two operands, into the list that the left one is already part of if there is one.
fn join(
    left: Operand,
    right: Operand,
    list: fn(&mut Expr) -> Option<&mut Vec<Spanned<Expr>>>,
    new: fn(Vec<Spanned<Expr>>) -> Expr,
) -> Operand {
    let (start, span) = (left.expr.span(), left.expr.span().start..right.expr.span().end);
    let mut node = left.expr.into_node();
    let node = match list(&mut node).filter(|_| !left.grouped) {
        Some(parts) => {
            parts.push(right.expr);
            node
        }
        None => new(vec![Spanned::new(node, start), right.expr]),
    };
    Operand { expr: Spanned::new(node, span), grouped: false }
}

fn expression<'t>() -> Rule<'t, Spanned<Expr>> {
    recursive(|expr| {
        operand(expr.boxed())
            .pratt((
                infix(left(3), sign(Token::And, "`&`"), |l, (), r, _| {
                    join(l, r, |e| if let Expr::Replicate(parts) = e { Some(parts) } else { None }, Expr::Replicate)
                }),
                infix(left(2), sign(Token::Percent, "`%`"), |l, (), r, _| {
                    join(l, r, |e| if let Expr::Cross(parts) = e { Some(parts) } else { None }, Expr::Cross)
                }),
                infix(left(1), sign(Token::Or, "`|`"), |l, (), r, _| {
                    join(l, r, |e| if let Expr::Otherwise(parts) = e { Some(parts) } else { None }, Expr::Otherwise)
                }),
            ))
            .map(|operand| operand.expr)
            .boxed()
    })
    .boxed()
}

/// Everything between the braces, if there are any: `None` stands for an item that could not be read.
pub(crate) fn items<'t>() -> Rule<'t, Vec<Option<Item>>> {
    let place = expression();
    let service = select! {
        Token::Service(word) = e if name::problem(word).is_none() && word != "all" && word != "here"
            => Name::new(word, span_of(e.span()))
    }
    .labelled(expected::SERVICE)
    .then_ignore(sign(Token::Colon, "`:`"))
    .then(place.clone())
    .map(|(service, expr)| Some(Item::Place { service: Some(service), expr }))
    .boxed();
    let prime = sign(Token::Prime, expected::PRIME)
        .then(sign(Token::Colon, "`:`"))
        .ignore_then(anchor().map(|anchor| Some(Item::Prime(anchor))))
        .boxed();
    let older = sign(Token::AroundItem, expected::AROUND_ITEM)
        .then(sign(Token::Colon, "`:`"))
        .ignore_then(anchor().then_ignore(sign(Token::Comma, "`,`")).then(within()))
        .map_with(|(site, within), e| {
            let expr = Spanned::new(Expr::Around { site, within }, span_of(e.span()));
            Some(Item::Place { service: None, expr })
        })
        .boxed();
    let unnamed = place.clone().map(|expr| Some(Item::Place { service: None, expr })).boxed();
    let rest = none_of([Token::Comma]).repeated().boxed();
    // What begins like these is not tried as an expression as well: one mistake, one complaint.
    let bad_service = select! { Token::Service(_) => () }.then(just(Token::Colon)).then(place.clone()).map(|_| None);
    let bad_other = select! { Token::Prime => (), Token::AroundItem => () }.then(rest).map(|_| None);
    let headed = choice((service, prime, older)).recover_with(via_parser(bad_service.boxed()));
    let headed = headed.recover_with(via_parser(bad_other.boxed())).boxed();
    let ended = just(Token::Comma).ignored().rewind().labelled("`,`").or(end()).boxed();
    let stray = row(place, [Token::Close, Token::CloseBracket]);
    let ended = ended.clone().recover_with(via_parser(stray.then_ignore(ended))).boxed();
    headed
        .or(unnamed)
        .then_ignore(ended)
        .separated_by(sign(Token::Comma, "`,`"))
        .at_least(1)
        .collect()
        .then_ignore(end())
        .boxed()
}
