//! Prometheus' text format, as far as sums of counters need it.

/// The sum of all series of this name that carry all of these labels.
///
/// # Errors
/// The line that is not in the format.
pub(super) fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> Result<f64, String> {
    let mut sum = 0.0;
    for line in text.lines() {
        // Comments, and series of other names.
        let Some(rest) = line.strip_prefix(name) else { continue };
        let (has, value) = match rest.chars().next() {
            Some('{') => series(&rest[1..]).ok_or_else(|| line.to_owned())?,
            Some(' ') => (Vec::new(), rest),
            _ => continue,
        };
        if labels.iter().all(|(name, value)| has.iter().any(|(own, holds)| own == name && holds == value)) {
            let value = value.split_whitespace().next().ok_or_else(|| line.to_owned())?;
            sum += value.parse::<f64>().map_err(|_| line.to_owned())?;
        }
    }
    Ok(sum)
}

/// The labels up to the closing brace, and what stands behind it.
fn series(mut text: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        loop {
            match chars.next()?.1 {
                '"' => break,
                '\\' => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                other => value.push(other),
            }
        }
        labels.push((name, value));
        text = chars.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP requests all of them
# TYPE requests counter
requests{code="200",verb="GET"} 3
requests{code="200",verb="PATCH"} 4
requests{code="409",verb="PATCH",path="a \"b\", \\{}"} 1e+02 1700000000000
requests_total{verb="GET"} 1000
up 1
"#;

    #[test]
    fn series_with_the_labels_are_added_up() {
        let requests = |labels: &[(&str, &str)]| sum(TEXT, "requests", labels).unwrap();
        assert_eq!(requests(&[]), 107.0);
        assert_eq!(requests(&[("verb", "PATCH")]), 104.0);
        assert_eq!(requests(&[("verb", "PATCH"), ("code", "200")]), 4.0);
        assert_eq!(requests(&[("path", r#"a "b", \{}"#)]), 100.0);
        assert_eq!(requests(&[("verb", "DELETE")]), 0.0);
        assert_eq!(sum(TEXT, "up", &[]).unwrap(), 1.0);
        assert_eq!(sum(TEXT, "down", &[]).unwrap(), 0.0);
    }

    #[test]
    fn what_is_not_in_the_format_is_an_error() {
        for bad in ["up{", "up{a=\"b", "up{a=b} 1", "up{a=\"b\"}", "up many", "up "] {
            assert_eq!(sum(bad, "up", &[]), Err(bad.to_owned()));
        }
    }
}
