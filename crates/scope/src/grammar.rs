//! The grammar, on tokens.
//!
//! One token is always enough to choose, and nothing that has begun is ever taken back: a mistake is noted where it
//! is, tokens are skipped to the next place where the grammar can go on, and parsing goes on from there. So time is
//! proportional to length and depth, and the trees that stand in for what was skipped never get out, because there is
//! a complaint whenever there is one.

use std::time::Duration;

use chumsky::{input::MappedInput, prelude::*};

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

/// Stands in for what could not be read.
fn unread(span: SimpleSpan) -> Spanned<Expr> {
    Spanned::new(Expr::All, span_of(span))
}

fn sign<'t>(token: Token<'t>, label: &'static str) -> Rule<'t, ()> {
    just(token).ignored().labelled(label).boxed()
}

fn comma<'t>() -> Rule<'t, ()> {
    one_of([Token::Comma, Token::Divider]).ignored().labelled("`,`").boxed()
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
        .separated_by(comma())
        .at_least(1)
        .collect()
        .boxed()
}

/// Whatever may stand where an operator or an end was due, which is a mistake already noted: more expressions, and
/// signs that begin none.
fn row<'t>(expr: Rule<'t, Spanned<Expr>>, closing: bool) -> Rule<'t, ()> {
    let begins = select! {
        Token::Word(_) => (),
        Token::All | Token::Here | Token::Not | Token::Open | Token::OpenBracket | Token::Around | Token::Count(_) => (),
    };
    let stray = select! {
        token if token != Token::Comma && token != Token::Divider && (closing || token != Token::Close) => (),
    };
    begins.rewind().ignore_then(expr).ignored().or(stray).repeated().boxed()
}

/// An expression, up to the end of what was opened before it. Without that end it goes on as if it were there.
fn group<'t>(expr: Rule<'t, Spanned<Expr>>) -> Rule<'t, Spanned<Expr>> {
    // A comma does not belong here, but what follows it may, unless it begins another item.
    let comma = just(Token::Comma).ignored().boxed();
    let more = row(expr.clone(), false).then(comma.then(row(expr.clone(), false)).repeated());
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
    let lost = none_of([Token::Comma, Token::Divider, Token::Close, Token::CloseBracket]).repeated();
    let lost = lost.then(just(end).or_not()).map(move |_| stand_in());
    whole.recover_with(via_parser(skipped)).recover_with(via_parser(lost)).boxed()
}

fn around<'t>() -> Rule<'t, Expr> {
    let inner = anchor().then_ignore(comma()).then(within()).map(Some).boxed();
    sign(Token::Around, expected::AROUND)
        .then(sign(Token::Open, "`(`"))
        .ignore_then(enclosed(inner, (Token::Close, "`)`"), || None))
        .map(|inner| inner.map_or(Expr::All, |(site, within)| Expr::Around { site, within }))
        .boxed()
}

fn operand<'t>(expr: Rule<'t, Spanned<Expr>>) -> Rule<'t, Spanned<Expr>> {
    let group = group(expr);
    let grouped = sign(Token::Open, expected::GROUP).ignore_then(group.clone()).boxed();
    let opened = sign(Token::Open, "`(`");
    let unopened = empty().map_with(|(), e| unread(e.span()));
    let some = select! { Token::Count(count) => count }
        .labelled(expected::SOME)
        .then_ignore(sign(Token::Of, "`of`"))
        .then(opened.ignore_then(group.clone()).recover_with(via_parser(unopened)))
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
    .map_with(|expr, e| Spanned::new(expr, span_of(e.span())))
    .or(grouped)
    .boxed();
    let except = sign(Token::Not, expected::EXCEPT)
        .ignore_then(atom.clone().recover_with(via_parser(missing())))
        .map_with(|inner, e| Spanned::new(Expr::Not(Box::new(inner)), span_of(e.span())))
        .boxed();
    except.or(atom).recover_with(via_parser(missing())).boxed()
}

/// Where an operand is missing: nothing, before what may follow one; else one token too many.
fn missing<'t>() -> Rule<'t, Spanned<Expr>> {
    let follows = one_of([
        Token::And,
        Token::Percent,
        Token::Or,
        Token::Comma,
        Token::Divider,
        Token::Close,
        Token::CloseBracket,
    ]);
    let nothing = follows.ignored().rewind().or(end());
    nothing.or(any().ignored()).map_with(|(), e| unread(e.span())).boxed()
}

/// Operands with signs between them. Lists are made of them afterwards rather than by nested rules: the stack that a
/// pair of parentheses takes is what limits how deep they can be.
fn expression<'t>() -> Rule<'t, Spanned<Expr>> {
    recursive(|expr| {
        let operand = operand(expr.boxed());
        let operator = choice((
            sign(Token::And, "`&`").to(Operator::And),
            sign(Token::Percent, "`%`").to(Operator::Percent),
            sign(Token::Or, "`|`").to(Operator::Or),
        ));
        operand
            .clone()
            .then(operator.then(operand).repeated().collect::<Vec<_>>())
            .map(|(first, rest)| join(first, rest))
            .boxed()
    })
    .boxed()
}

/// What stands between operands, the loosest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operator {
    Or,
    Percent,
    And,
}

/// A list that is being made, of what one operator joins.
struct Open {
    operator: Operator,
    parts: Vec<Spanned<Expr>>,
}

impl Open {
    /// The list as one operand of what is around it.
    fn close(mut self, last: Spanned<Expr>) -> Spanned<Expr> {
        let start = self.parts.first().map_or(last.span().start, |part| part.span().start);
        let span = start..last.span().end;
        self.parts.push(last);
        let list = match self.operator {
            Operator::And => Expr::Replicate(self.parts),
            Operator::Percent => Expr::Cross(self.parts),
            Operator::Or => Expr::Otherwise(self.parts),
        };
        Spanned::new(list, span)
    }
}

/// Makes lists: the tighter operators within the looser ones, each list as long as its operator goes on.
fn join(first: Spanned<Expr>, rest: Vec<(Operator, Spanned<Expr>)>) -> Spanned<Expr> {
    // At most one list for each operator is open, the tightest last.
    let mut open: Vec<Open> = Vec::new();
    let mut operand = first;
    for (operator, next) in rest {
        while let Some(list) = open.pop_if(|list| list.operator > operator) {
            operand = list.close(operand);
        }
        match open.last_mut() {
            Some(list) if list.operator == operator => list.parts.push(operand),
            _ => open.push(Open { operator, parts: vec![operand] }),
        }
        operand = next;
    }
    while let Some(list) = open.pop() {
        operand = list.close(operand);
    }
    operand
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
        .ignore_then(anchor().then_ignore(comma()).then(within()))
        .map_with(|(site, within), e| {
            let expr = Spanned::new(Expr::Around { site, within }, span_of(e.span()));
            Some(Item::Place { service: None, expr })
        })
        .boxed();
    let unnamed = place.clone().map(|expr| Some(Item::Place { service: None, expr })).boxed();
    let rest = none_of([Token::Comma, Token::Divider]).repeated().boxed();
    // What begins like these is not tried as an expression as well: one mistake, one complaint.
    let bad_service = select! { Token::Service(_) => () }.then(just(Token::Colon)).then(place.clone()).map(|_| None);
    let bad_other = select! { Token::Prime => (), Token::AroundItem => () }.then(rest).map(|_| None);
    let headed = choice((service, prime, older)).recover_with(via_parser(bad_service.boxed()));
    let headed = headed.recover_with(via_parser(bad_other.boxed())).boxed();
    let ended = comma().rewind().or(end()).boxed();
    let stray = row(place, true);
    let ended = ended.clone().recover_with(via_parser(stray.then_ignore(ended))).boxed();
    headed.or(unnamed).then_ignore(ended).separated_by(comma()).at_least(1).collect().then_ignore(end()).boxed()
}
