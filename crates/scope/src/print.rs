//! The canonical text of a scope.

use std::fmt;

use crate::{Anchor, Expr, Item, Label, MAX_BYTES, Scope, Spanned, duration};

/// How tightly an expression holds together; larger is tighter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Otherwise,
    Cross,
    Replicate,
    Except,
    Atom,
}

struct Printer {
    out: String,
    /// Without blanks and with the shortest spelling: never longer than the text that was parsed.
    compact: bool,
}

impl Printer {
    fn print(items: &[Item], compact: bool) -> String {
        let mut printer = Self { out: String::new(), compact };
        printer.list(items, ", ", Self::item);
        printer.out
    }

    /// Adds text, without its blanks in the compact form.
    fn add(&mut self, text: &str) {
        if self.compact {
            self.out.extend(text.chars().filter(|c| *c != ' '));
        } else {
            self.out.push_str(text);
        }
    }

    fn list<T>(&mut self, parts: &[T], separator: &str, mut print: impl FnMut(&mut Self, &T)) {
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.add(separator);
            }
            print(self, part);
        }
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Prime(anchor) => {
                self.add("prime: ");
                self.anchor(anchor.node());
            }
            Item::Place { service: Some(service), expr } => {
                self.add(service.as_str());
                self.add(": ");
                self.expr(expr, Binding::Otherwise);
            }
            Item::Place { service: None, expr } => match expr.node() {
                // The older form is one byte shorter, and the limit on bytes holds for it too.
                Expr::Around { site, within } if self.compact => {
                    self.add("around:");
                    self.anchor(site.node());
                    self.add(",");
                    self.add(&duration::write_short(*within));
                }
                _ => self.expr(expr, Binding::Otherwise),
            },
        }
    }

    fn anchor(&mut self, anchor: &Anchor) {
        match anchor {
            Anchor::Here => self.add("here"),
            Anchor::Site(name) => self.add(name.as_str()),
        }
    }

    /// Adds an expression, in parentheses if it holds together less tightly than its surroundings need.
    fn expr(&mut self, expr: &Spanned<Expr>, at_least: Binding) {
        let node = expr.node();
        let binding = match node {
            Expr::Otherwise(_) => Binding::Otherwise,
            Expr::Cross(_) => Binding::Cross,
            Expr::Replicate(_) => Binding::Replicate,
            Expr::Not(_) => Binding::Except,
            Expr::One(_) | Expr::All | Expr::Labels(_) | Expr::Around { .. } | Expr::Some { .. } => Binding::Atom,
        };
        if binding < at_least {
            self.add("(");
            self.bare(node);
            self.add(")");
        } else {
            self.bare(node);
        }
    }

    fn bare(&mut self, expr: &Expr) {
        match expr {
            Expr::One(anchor) => self.anchor(anchor),
            Expr::All => self.add("all"),
            Expr::Labels(labels) => {
                self.add("[");
                self.list(labels, ", ", |printer, label| {
                    let Label { key, value, equal } = label;
                    printer.add(key);
                    printer.add(if *equal { "=" } else { "!=" });
                    printer.add(value);
                });
                self.add("]");
            }
            Expr::Around { site, within } => {
                self.add("around(");
                self.anchor(site.node());
                self.add(", ");
                self.add(&if self.compact { duration::write_short(*within) } else { duration::write(*within) });
                self.add(")");
            }
            Expr::Some { count, of } => {
                // The one blank that separates two words.
                self.out.push_str(&format!("{count} of"));
                self.add(" (");
                self.expr(of, Binding::Otherwise);
                self.add(")");
            }
            Expr::Not(inner) => {
                self.add("!");
                self.expr(inner, Binding::Atom);
            }
            Expr::Replicate(parts) => self.list(parts, " & ", |printer, part| printer.expr(part, Binding::Except)),
            Expr::Cross(parts) => self.list(parts, " % ", |printer, part| printer.expr(part, Binding::Replicate)),
            Expr::Otherwise(parts) => self.list(parts, " | ", |printer, part| printer.expr(part, Binding::Cross)),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spaced = Printer::print(&self.items, false);
        if spaced.len() <= MAX_BYTES {
            return f.write_str(&spaced);
        }
        // What was parsed is within the limit, and what is printed must be so too.
        f.write_str(&Printer::print(&self.items, true))
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printer = Printer { out: String::new(), compact: false };
        printer.bare(self);
        f.write_str(&printer.out)
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("here"),
            Self::Site(name) => f.write_str(name.as_str()),
        }
    }
}
