//! The scope that a path begins with.

use percent_encoding::percent_decode_str;

/// What such a path begins with.
const BEGIN: &str = "/scope/";
/// How often a scope may be found to be encoded: once by whoever wrote the URL, and once more by its client.
const TIMES: usize = 3;

/// Parts a path in what may be meant as a scope, the likeliest first, and the path without it. None of a path that begins
/// with no scope.
pub(crate) fn split(path: &str) -> Option<(Vec<String>, &str)> {
    let rest = path.strip_prefix(BEGIN)?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (scope, rest) = rest.split_at(end);
    let mut meant = Vec::new();
    let mut text = scope.to_owned();
    for _ in 0..TIMES {
        let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if meant.last() == Some(&decoded) {
            break;
        }
        meant.push(decoded.clone());
        text = decoded;
    }
    Some((meant, if rest.is_empty() { "/" } else { rest }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_scope_is_split_off_however_often_it_is_encoded() {
        for path in ["/scope/paris%20%26%20rennes/api/v1", "/scope/paris%20&%20rennes/api/v1"] {
            let (meant, rest) = split(path).unwrap();
            assert_eq!((meant, rest), (vec!["paris & rennes".to_owned()], "/api/v1"));
        }
        let (meant, rest) = split("/scope/paris%2520%2526%2520rennes").unwrap();
        assert_eq!((meant, rest), (vec!["paris%20%26%20rennes".to_owned(), "paris & rennes".to_owned()], "/"));
        assert_eq!(split("/scope//api").unwrap(), (vec![String::new()], "/api"));
        assert_eq!(split("/api/v1/scope/x"), None);
        assert_eq!(split("/scope"), None);
    }
}
