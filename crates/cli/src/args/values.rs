//! Parsers for single values on the command line.

use std::time::Duration;

/// A duration as people write it: `500ms`, `30s`, `2m`, `1h`; a bare number counts seconds.
///
/// # Errors
/// A sentence that says what is allowed.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let wrong = || format!("{text:?} is no duration: write 500ms, 30s, 2m or 1h");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let ms = number.checked_mul(unit_ms).filter(|ms| *ms <= MAX_WAIT_MS).ok_or("at most 24h can be waited for")?;
    Ok(Duration::from_millis(ms))
}

/// The longest wait that can be asked for, a day: more is a slip of the finger.
const MAX_WAIT_MS: u64 = 24 * 3_600_000;

/// `key=value`, both not empty.
///
/// # Errors
/// A sentence that says what is allowed.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form key=value")),
    }
}

/// An address of a node.
///
/// # Errors
/// A sentence that says what one looks like.
pub(crate) fn multiaddr(text: &str) -> Result<String, String> {
    khufu_p2p::check_address(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

/// An address to serve the API at.
///
/// # Errors
/// A sentence that says what one looks like.
pub(crate) fn socket(text: &str) -> Result<String, String> {
    let parsed: Result<std::net::SocketAddr, _> = text.parse();
    parsed
        .map(|_| text.to_owned())
        .map_err(|_| format!("{text:?} is no address: write IP:PORT, such as 127.0.0.1:7780"))
}

/// A number of sites that the demo can show.
///
/// # Errors
/// A sentence with the bounds.
pub(crate) fn site_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 2..=9) => Ok(count),
        _ => Err(format!("{text:?}: the demo runs with 2 to 9 sites")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("30s").unwrap(), Duration::from_secs(30));
        assert_eq!(duration("30").unwrap(), Duration::from_secs(30));
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        for bad in ["", "s", "-1s", "1 s", "1d", "99999999999999999999s", "25h"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_pair_needs_both_halves() {
        assert_eq!(key_value("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        for bad in ["a", "=b", "a=", ""] {
            assert!(key_value(bad).is_err(), "{bad:?}");
        }
    }
}
