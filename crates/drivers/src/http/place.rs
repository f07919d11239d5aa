//! Paths of requests: what may be written in them, where below the service's address they lead, and which are allowed.

use percent_encoding::percent_decode_str;
use reqwest::Url;

use super::template::{Hole, Meanings, Part, Text, Writing};
use crate::DriverError;

/// The address of a service: an origin, and a path that all requests stay below.
#[derive(Debug, Clone)]
pub(super) struct Base {
    url: Url,
    /// Without a slash at its end.
    path: String,
}

impl Base {
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("{text:?} is no URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err("it has to be http://HOST or https://HOST, with a port and a path if need be".into());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("credentials do not go into a URL: use `headers` or `basic`".into());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("it has to end with a path: queries are part of the requests".into());
        }
        let path = url.path().trim_end_matches('/').to_owned();
        Ok(Self { url, path })
    }

    /// The URL of a path below it, which [`Place::fill`] has made.
    pub(super) fn join(&self, path: &str) -> Result<Url, DriverError> {
        let origin = self.url.origin().ascii_serialization();
        let wanted = format!("{}{path}", self.path);
        let url = Url::parse(&format!("{origin}{wanted}")).ok();
        // Whatever a parser makes something else of is not what was looked at.
        let written = |url: &Url| match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        url.filter(|url| self.holds(url) && written(url) == wanted && url.fragment().is_none()).ok_or_else(|| {
            DriverError::invalid("path", format!("{} is not how a URL is written", super::shorten(path)))
        })
    }

    /// Where the service leads to from there, if that is below this address.
    pub(super) fn follow(&self, from: &Url, to: &str) -> Option<Url> {
        from.join(to).ok().filter(|url| self.holds(url) && url.username().is_empty() && url.password().is_none())
    }

    fn holds(&self, url: &Url) -> bool {
        let below = url.path().strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        url.origin() == self.url.origin() && below
    }

    pub(super) fn is_plain(&self) -> bool {
        self.url.scheme() == "http"
    }
}

/// A path with holes, and a query if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    segments: Vec<Text>,
    query: Option<Text>,
}

/// What stands for itself in a path, and in a query: RFC 3986, and the brackets that many put into queries.
fn is_plain(c: char, in_query: bool) -> bool {
    c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%".contains(c) || (in_query && "/?[]".contains(c))
}

impl Place {
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (text, None),
        };
        let path = path.strip_prefix('/').ok_or("a path starts with /")?;
        let mut segments = Vec::new();
        let mut rest = path.split('/').peekable();
        while let Some(segment) = rest.next() {
            // A hole may be a pointer into the desired state.
            let mut segment = segment.to_owned();
            while segment.matches('{').count() > segment.matches('}').count() {
                let Some(more) = rest.next() else { break };
                segment.push('/');
                segment.push_str(more);
            }
            if segment.is_empty() && rest.peek().is_some() {
                return Err("// is not allowed in a path".into());
            }
            let parsed = Text::parse(&segment)?;
            check(&parsed, false)?;
            if let [Part::Text(text)] = parsed.0.as_slice() {
                check_segment(text)?;
            }
            segments.push(parsed);
        }
        let query = query.map(Text::parse).transpose()?;
        if let Some(query) = &query {
            check(query, true)?;
        }
        Ok(Self { segments, query })
    }

    /// The path with its holes filled.
    ///
    /// # Errors
    /// If one cannot be filled, or a segment would lead elsewhere.
    pub(super) fn fill(&self, meanings: &Meanings<'_>) -> Result<String, DriverError> {
        let mut path = String::new();
        for segment in &self.segments {
            let filled = segment.fill(meanings, Writing::Encoded)?;
            let is_empty = filled.is_empty() && !segment.0.is_empty();
            if let Err(reason) = check_segment(&filled) {
                return Err(DriverError::invalid("path", reason));
            }
            if is_empty {
                return Err(DriverError::invalid("path", "what is put into a segment must not be empty"));
            }
            path.push('/');
            path.push_str(&filled);
        }
        if let Some(query) = &self.query {
            path.push('?');
            path.push_str(&query.fill(meanings, Writing::Encoded)?);
        }
        Ok(path)
    }

    /// Whether it has this hole.
    pub(super) fn has(&self, hole: &Hole) -> bool {
        self.segments.iter().chain(&self.query).any(|text| text.has(hole))
    }

    /// Whether it has no holes but those that mean the same wherever a request comes from.
    pub(super) fn is_for_operations(&self) -> bool {
        let known = |part: &Part| match part {
            Part::Text(_) => true,
            Part::Hole(hole) => matches!(hole, Hole::Id | Hole::Site | Hole::LocalId | Hole::Operation),
        };
        self.segments.iter().chain(&self.query).all(|text| text.0.iter().all(known))
    }

    /// Whether a path is one of those that this one, as a pattern, allows: `*` is any segment, `**` at the end any number of
    /// them. A hole is that hole and nothing else, so that nobody names another replica. Queries do not matter.
    pub(super) fn allows(&self, path: &Self) -> bool {
        let is = |text: &Text, word: &str| matches!(text.0.as_slice(), [Part::Text(text)] if text == word);
        let same = |a: &Text, b: &Text| decoded(a) == decoded(b);
        let mut rest = path.segments.iter();
        for pattern in &self.segments {
            if is(pattern, "**") {
                return rest.next().is_some();
            }
            match rest.next() {
                Some(segment) if is(pattern, "*") => {
                    if segment.0.is_empty() {
                        return false;
                    }
                }
                Some(segment) if same(pattern, segment) => {}
                _ => return false,
            }
        }
        rest.next().is_none()
    }
}

/// A segment in which whatever may be encoded or not is not.
fn decoded(text: &Text) -> Vec<Part> {
    let decoded = |part: &Part| match part {
        Part::Text(text) => Part::Text(percent_decode_str(text).decode_utf8_lossy().into_owned()),
        Part::Hole(hole) => Part::Hole(hole.clone()),
    };
    text.0.iter().map(decoded).collect()
}

fn check(text: &Text, in_query: bool) -> Result<(), String> {
    for part in &text.0 {
        let Part::Text(text) = part else { continue };
        if let Some(wrong) = text.chars().find(|c| !is_plain(*c, in_query)) {
            return Err(format!("{wrong:?} is not allowed there: write it percent-encoded"));
        }
        for (at, _) in text.match_indices('%') {
            let code = text.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
            match code {
                // u8::from_str_radix takes a sign.
                Some(code) if text.as_bytes().get(at + 1) != Some(&b'+') => {
                    if !in_query && (code < 0x20 || code == 0x7f || code == b'/' || code == b'\\') {
                        return Err(format!("{} is not allowed in a path", text.get(at..at + 3).unwrap_or_default()));
                    }
                }
                _ => return Err("a % has to be followed by two hexadecimal digits".into()),
            }
        }
    }
    Ok(())
}

/// A segment that servers take as a way up, also with parameters behind it or where they decode slashes, is none that is
/// meant.
fn check_segment(segment: &str) -> Result<(), String> {
    let decoded = percent_decode_str(segment).decode_utf8_lossy();
    let mut names = decoded.split(['/', '\\']).map(|part| part.split(';').next().unwrap_or_default());
    if names.any(|name| matches!(name, "." | "..")) {
        return Err(format!("the segment {segment:?} is not allowed in a path"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::parse(text).unwrap()
    }

    fn filled(text: &str, local_id: &str) -> Result<String, DriverError> {
        place(text).fill(&Meanings { id: "web", site: "paris", local_id: Some(local_id), ..Meanings::default() })
    }

    #[test]
    fn nothing_that_is_put_in_leads_elsewhere() {
        assert_eq!(
            filled("/notes/{local_id}/lines?of={local_id}", "a/b ?&").unwrap(),
            "/notes/a%2Fb%20%3F%26/lines?of=a%2Fb%20%3F%26"
        );
        for local_id in ["..", ".", "", "../../admin", "a\\..", "..;x"] {
            assert!(filled("/notes/{local_id}/lines", local_id).is_err(), "{local_id:?}");
        }
        assert_eq!(filled("/n/x{local_id}", "..").unwrap(), "/n/x..");
    }

    #[test]
    fn paths_that_servers_read_in_different_ways_are_refused() {
        for text in [
            "notes",
            "//notes",
            "/a//b",
            "/a/../b",
            "/a/%2e%2E/b",
            "/a/.;x/b",
            "/a/..;/b",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0a",
            "/a b",
            "/a#b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1",
            "/é",
            "/a?b#c",
            "/a?b c",
            "/a\tb",
            "/a[b]",
        ] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
        for text in ["/", "/a/", "/a/b.c/~d", "/a%20b", "/a?", "/a?x[y]=/?&z=%2F", "/a/...", "/a:b@c;d=e"] {
            assert!(Place::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn urls_stay_below_the_base() {
        let base = Base::parse("https://a.example:8443/api/v1/").unwrap();
        assert_eq!(base.join("/x?y").unwrap().as_str(), "https://a.example:8443/api/v1/x?y");
        for path in ["/../x", "@evil.example/", "/%2e%2e/x", "/x\ty"] {
            assert!(base.join(path).is_err(), "{path}");
        }
        let from = base.join("/list").unwrap();
        assert_eq!(base.follow(&from, "?page=2").unwrap().query(), Some("page=2"));
        assert_eq!(base.follow(&from, "/api/v1/other").unwrap().path(), "/api/v1/other");
        for to in [
            "/api/v2/x",
            "//evil.example/api/v1/x",
            "http://a.example:8443/api/v1/x",
            "/api/v11",
            "../v2/x",
            "https://u@a.example:8443/api/v1/x",
        ] {
            assert!(base.follow(&from, to).is_none(), "{to}");
        }
        for wrong in ["notes.example", "ftp://a", "http://u:p@a/", "http://a/?x", "http://a/#x", "file:///etc"] {
            assert!(Base::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pattern_allows_no_other_replica() {
        let allows = |pattern: &str, path: &str| place(pattern).allows(&place(path));
        assert!(allows("/notes/{local_id}/lines", "/notes/{local_id}/lines?a=b"));
        assert!(!allows("/notes/{local_id}/lines", "/notes/18/lines"));
        assert!(!allows("/notes/{local_id}/lines", "/notes/{id}/lines"));
        assert!(allows("/notes/{local_id}/*", "/notes/{local_id}/lines"));
        assert!(!allows("/notes/{local_id}/*", "/notes/{local_id}/"));
        assert!(!allows("/notes/{local_id}/*", "/notes/{local_id}/lines/1"));
        assert!(allows("/notes/{local_id}/**", "/notes/{local_id}/lines/1"));
        assert!(!allows("/notes/{local_id}/**", "/notes/{local_id}"));
        assert!(allows("/a%2Db", "/a-b"));
        assert!(!allows("/notes", "/notes/"));
    }
}
