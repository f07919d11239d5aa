//! The scope that a path begins with.

pub(super) use crate::scope_path::split;

/// Whether two scopes are the same, however they are written.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    let read = |text: &str| khufu_scope::parse(text).map(|scope| scope.to_string()).ok();
    one == other || read(one).is_some_and(|one| read(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_the_same_however_they_are_written() {
        assert!(is_same("paris&rennes", "{paris & rennes}") && is_same("&", "&"));
        assert!(!is_same("paris", "rennes") && !is_same("&", "|"));
    }
}
