//! Moments as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How long ago a moment was, such as `12s` or `3m`; `-` if it is not known.
pub(crate) fn age(moment_ms: u64, now_ms: u64) -> String {
    if moment_ms == 0 {
        return "-".into();
    }
    let seconds = now_ms.saturating_sub(moment_ms) / 1000;
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The same as a phrase.
pub(crate) fn ago(moment_ms: u64, now_ms: u64) -> String {
    match age(moment_ms, now_ms).as_str() {
        "-" => "never".into(),
        age => format!("{age} ago"),
    }
}

/// A moment as `2026-07-01 12:30:05Z`.
pub(crate) fn utc(moment_ms: u64) -> String {
    let seconds = moment_ms / 1000;
    let (year, month, day) = civil(seconds / 86_400);
    let second_of_day = seconds % 86_400;
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day counted from 1970-01-01, after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00Z");
        assert_eq!(utc(951_782_399_000), "2000-02-28 23:59:59Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(utc(1_767_225_600_000), "2026-01-01 00:00:00Z");
    }

    #[test]
    fn ages_use_the_unit_that_fits() {
        assert_eq!(age(0, 5000), "-");
        assert_eq!(age(1000, 13_500), "12s");
        assert_eq!(age(1, 3 * 60_000 + 1), "3m");
        assert_eq!(age(1, 5 * 3_600_000 + 1), "5h");
        assert_eq!(age(1, 9 * 86_400_000 + 1), "9d");
        assert_eq!(age(9000, 1), "0s");
    }
}
