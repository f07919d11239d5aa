//! The words and signs of a scope.
//!
//! Which words are special depends on their neighbours only, so it is settled here, and the grammar never has to go
//! back: `around` is special before `(` or `:`, `prime` before `:`, a number and `of` beside each other, and any other
//! word before `:` names a service. Everywhere else these are ordinary names.

use std::ops::Range;

use chumsky::span::SimpleSpan;

use crate::{Complaint, clip, slice};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Token<'t> {
    /// Any word that nothing else claims: a site, a duration, a label's key or value.
    Word(&'t str),
    /// A word before `:`.
    Service(&'t str),
    /// `prime` before `:`.
    Prime,
    /// `around` before `:`.
    AroundItem,
    /// `around` before `(`.
    Around,
    /// A number before `of`.
    Count(u32),
    Of,
    All,
    Here,
    And,
    Percent,
    Or,
    Not,
    Open,
    Close,
    OpenBracket,
    CloseBracket,
    OpenBrace,
    CloseBrace,
    Colon,
    Comma,
    /// A comma before what begins another item for certain.
    Divider,
    Equal,
    NotEqual,
}

pub(crate) struct Tokens<'t> {
    pub(crate) tokens: Vec<(Token<'t>, SimpleSpan)>,
    /// What is no part of any token.
    pub(crate) complaints: Vec<Complaint>,
    /// Where characters were left out; the grammar's complaints right after one of these are noise.
    pub(crate) gaps: Vec<Range<usize>>,
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')
}

/// Splits a text into tokens. Takes time proportional to its length.
pub(crate) fn split(text: &str) -> Tokens<'_> {
    let mut out = Tokens { tokens: Vec::new(), complaints: Vec::new(), gaps: Vec::new() };
    let mut chars = text.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        let mut end = start + c.len_utf8();
        let mut take_if = |wanted: fn(char) -> bool| {
            let next = chars.next_if(|(_, c)| wanted(*c));
            end = next.map_or(end, |(at, c)| at + c.len_utf8());
            next.is_some()
        };
        let token = match c {
            ' ' | '\t' | '\n' | '\r' => continue,
            '&' => Token::And,
            '%' => Token::Percent,
            '|' => {
                take_if(|c| c == '|');
                Token::Or
            }
            ';' => Token::Or,
            '!' if take_if(|c| c == '=') => Token::NotEqual,
            '!' => Token::Not,
            '=' => Token::Equal,
            '(' => Token::Open,
            ')' => Token::Close,
            '[' => Token::OpenBracket,
            ']' => Token::CloseBracket,
            '{' => Token::OpenBrace,
            '}' => Token::CloseBrace,
            ':' => Token::Colon,
            ',' => Token::Comma,
            c if is_word(c) => {
                while take_if(is_word) {}
                out.word(text, start..end)
            }
            _ => {
                while take_if(|c| !is_word(c) && !c.is_ascii()) {}
                out.complaints.push(stray(text, start..end, c));
                out.gaps.push(start..end);
                continue;
            }
        };
        out.tokens.push((token, (start..end).into()));
    }
    out.classify(text);
    out
}

impl<'t> Tokens<'t> {
    fn word(&mut self, text: &'t str, span: Range<usize>) -> Token<'t> {
        let word = slice(text, &span);
        if let Some(foreign) = word.chars().find(|c| !c.is_ascii()) {
            self.complaints.push(Complaint {
                span,
                found: format!("`{}`", clip(word)),
                expected: vec!["ASCII letters, digits, `-`, `_` and `.`".to_owned()],
                message: format!(
                    "`{}` holds `{}`, and names are made of ASCII letters and digits",
                    clip(word),
                    foreign
                ),
                help: Some("write the name as the site itself spells it: `khufu sites` lists them".to_owned()),
            });
        }
        match word {
            "all" => Token::All,
            "here" => Token::Here,
            word => Token::Word(word),
        }
    }

    /// Gives words their meaning from what follows them.
    fn classify(&mut self, text: &'t str) {
        let mut next: Option<Token<'t>> = None;
        for (token, span) in self.tokens.iter_mut().rev() {
            let word = match *token {
                Token::Word(word) => Some(word),
                Token::All => Some("all"),
                Token::Here => Some("here"),
                _ => None,
            };
            let is_number = |word: &str| word.bytes().all(|b| b.is_ascii_digit());
            *token = match (word, next) {
                (Some("prime"), Some(Token::Colon)) => Token::Prime,
                (Some("around"), Some(Token::Colon)) => Token::AroundItem,
                (Some("around"), Some(Token::Open)) => Token::Around,
                (Some(word), Some(Token::Colon)) => Token::Service(word),
                (Some(number), Some(Token::Word("of"))) if is_number(number) => {
                    Token::Count(count(text, span.into_range(), &mut self.complaints))
                }
                _ => match (*token, next) {
                    (Token::Comma, Some(Token::Service(_) | Token::Prime | Token::AroundItem)) => Token::Divider,
                    (token, _) => token,
                },
            };
            next = Some(*token);
        }
        let mut after_count = false;
        for (token, _) in &mut self.tokens {
            if after_count {
                *token = Token::Of;
            }
            after_count = matches!(token, Token::Count(_));
        }
    }
}

/// Reads the number before `of`; one that will not do is complained of, and stands for one.
fn count(text: &str, span: Range<usize>, complaints: &mut Vec<Complaint>) -> u32 {
    let number = slice(text, &span);
    match number.parse() {
        Ok(count) if count > 0 => count,
        _ => {
            complaints.push(Complaint {
                span,
                found: format!("`{}`", clip(number)),
                expected: vec![format!("a number from 1 to {}", u32::MAX)],
                message: format!("`{}` is no number of sites to choose", clip(number)),
                help: Some("write how many sites are needed, such as `2 of (paris & rennes & nantes)`".to_owned()),
            });
            1
        }
    }
}

fn stray(text: &str, span: Range<usize>, c: char) -> Complaint {
    let help = match c {
        '"' | '\'' | '`' => "names are written without quotes",
        '^' | '+' => "`&` replicates, `%` spans, `|` is otherwise",
        '<' | '>' => "labels are compared with `=` and `!=`; distance is written `around(paris, 50ms)`",
        c if c.is_whitespace() => "write an ordinary blank",
        _ => "a scope is made of names, `&`, `%`, `|`, `!`, `( )`, `[ ]`, `:` and `,`",
    };
    let shown = slice(text, &span);
    let found = if shown.chars().any(|c| c.is_control() || c.is_whitespace()) {
        format!("the character U+{:04X}", u32::from(c))
    } else {
        format!("`{}`", clip(shown))
    };
    Complaint {
        span,
        message: format!("{found} has no meaning in a scope"),
        found,
        expected: vec!["a name or an operator".to_owned()],
        help: Some(help.to_owned()),
    }
}
