//! Durations as written in a scope: `50ms`, `1.5s`, `2m`.

use std::time::Duration;

/// The units, largest first, in nanoseconds.
const UNITS: [(&str, u128); 4] = [("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];

/// So many decimals write any number of nanoseconds that a decimal fraction of a minute can be.
const MAX_DECIMALS: usize = 11;

/// Reads a duration, or says what is wrong with it.
pub(crate) fn read(word: &str) -> Result<Duration, String> {
    let explain = || "a duration is a number and a unit (us, ms, s or m), such as 50ms, 1.5s or 2m".to_owned();
    let unit_at = word.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(explain)?;
    let (number, unit) = word.split_at_checked(unit_at).ok_or_else(explain)?;
    let (_, nanos_per_unit) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(explain)?;
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return Err(explain()),
        Some(parts) => parts,
        None => (number, ""),
    };
    if whole.is_empty() || fraction.contains('.') {
        return Err(explain());
    }
    let fraction = fraction.trim_end_matches('0');
    let too_long = || "this duration is too long to be held".to_owned();
    let too_fine = || "a duration is not finer than a nanosecond: take away decimals".to_owned();
    if fraction.len() > MAX_DECIMALS {
        return Err(too_fine());
    }
    let whole: u128 = if whole.len() > 30 { return Err(too_long()) } else { whole.parse().map_err(|_| explain())? };
    let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| too_fine())?);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| explain())? };
    let parts = fraction * nanos_per_unit;
    if !parts.is_multiple_of(scale) {
        return Err(too_fine());
    }
    let nanos = whole.checked_mul(nanos_per_unit).and_then(|n| n.checked_add(parts / scale)).ok_or_else(too_long)?;
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| too_long())?;
    let rest = u32::try_from(nanos % 1_000_000_000).map_err(|_| too_long())?;
    Ok(Duration::new(seconds, rest))
}

/// Writes a duration the way people do, exactly: whole minutes, else seconds from one second on, and so on down.
pub(crate) fn write(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let unit = UNITS.into_iter().find(|(name, size)| nanos >= *size && (*name != "m" || nanos.is_multiple_of(*size)));
    let fallback = if nanos == 0 { ("ms", 1_000_000) } else { ("us", 1_000) };
    in_unit(nanos, unit.unwrap_or(fallback)).unwrap_or_default()
}

/// Writes a duration exactly, in as few characters as the language allows.
pub(crate) fn write_short(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    UNITS.into_iter().filter_map(|unit| in_unit(nanos, unit)).min_by_key(String::len).unwrap_or_default()
}

fn in_unit(nanos: u128, (name, size): (&str, u128)) -> Option<String> {
    let (whole, rest) = (nanos / size, nanos % size);
    let scaled = rest * 10u128.pow(11);
    if !scaled.is_multiple_of(size) {
        return None;
    }
    let decimals = format!("{:011}", scaled / size);
    let decimals = decimals.trim_end_matches('0');
    Some(if decimals.is_empty() { format!("{whole}{name}") } else { format!("{whole}.{decimals}{name}") })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_exactly() {
        for (text, nanos) in [
            ("50ms", 50_000_000),
            ("1.5s", 1_500_000_000),
            ("2m", 120_000_000_000),
            ("0.05m", 3_000_000_000),
            ("0.001us", 1),
            ("0.00000000005m", 3),
            ("007ms", 7_000_000),
            ("1.50000000000000s", 1_500_000_000),
        ] {
            assert_eq!(read(text).unwrap(), Duration::from_nanos(nanos), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "50", "ms", ".5s", "1.s", "1.2.3s", "5h", "5 ms", "-5ms", "0.0001us", "0.00000000001m"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read(&format!("{}s", "9".repeat(25))).unwrap_err().contains("too long"));
        assert!(read(&format!("{}s", "9".repeat(4000))).unwrap_err().contains("too long"));
    }

    #[test]
    fn durations_are_written_as_people_do() {
        for (nanos, long, short) in [
            (50_000_000, "50ms", "50ms"),
            (500_000_000, "500ms", "0.5s"),
            (1_500_000_000, "1.5s", "1.5s"),
            (60_000_000_000, "1m", "1m"),
            (90_000_000_000, "90s", "90s"),
            (0, "0ms", "0m"),
            (1, "0.001us", "0.001us"),
        ] {
            assert_eq!(write(Duration::from_nanos(nanos)), long);
            assert_eq!(write_short(Duration::from_nanos(nanos)), short);
        }
    }

    proptest! {
        #[test]
        fn written_durations_read_back(seconds in any::<u64>(), nanos in 0u32..1_000_000_000, small in any::<bool>()) {
            let duration = Duration::new(if small { seconds % 100 } else { seconds }, nanos);
            prop_assert_eq!(read(&write(duration)).unwrap(), duration);
            prop_assert_eq!(read(&write_short(duration)).unwrap(), duration);
        }

        #[test]
        fn the_short_form_is_never_longer_than_what_was_read(text in "[0-9]{1,6}(\\.[0-9]{1,6})?(us|ms|s|m)") {
            if let Ok(duration) = read(&text) {
                prop_assert!(write_short(duration).len() <= text.len());
            }
        }
    }
}
