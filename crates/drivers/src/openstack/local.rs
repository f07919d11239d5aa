//! The local id of a replica: what each of its resources is called here.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::kinds::Kind;

/// What stands for itself in an id.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
/// Before the kind of a resource that was there before, and stays when the replica goes.
const FOUND: char = '~';

/// A resource as it is called here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Local {
    /// What the replicant calls it.
    pub(super) name: String,
    pub(super) kind: &'static Kind,
    pub(super) id: String,
    /// Whether it was there before, as far as anybody can tell.
    pub(super) found: bool,
}

/// The resources of a replica: `NAME=KIND/ID`, with commas between them, in the order in which they were made. The only one has no name.
pub(super) fn read(text: Option<&str>) -> Vec<Local> {
    let one = |part: &str| {
        let (name, rest) = part.split_once('=').unwrap_or(("", part));
        let (kind, id) = rest.split_once('/')?;
        let (found, kind) = kind.strip_prefix(FOUND).map_or((false, kind), |kind| (true, kind));
        let id = percent_decode_str(id).decode_utf8().ok()?.into_owned();
        Some(Local { name: name.to_owned(), kind: Kind::named(kind)?, id, found })
    };
    text.into_iter().flat_map(|text| text.split(',')).filter_map(one).collect()
}

/// The text of resources; none if there are none.
pub(super) fn write<'a>(resources: impl IntoIterator<Item = &'a Local>) -> Option<String> {
    let mut text = String::new();
    for Local { name, kind, id, found } in resources {
        let comma = if text.is_empty() { "" } else { "," };
        let equals = if name.is_empty() { "" } else { "=" };
        let mark = if *found { "~" } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{name}{equals}{mark}{}/{}", kind.name, utf8_percent_encode(id, PLAIN));
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(name: &str, kind: &str, id: &str, found: bool) -> Local {
        Local { name: name.to_owned(), kind: Kind::named(kind).unwrap(), id: id.to_owned(), found }
    }

    #[test]
    fn what_is_written_is_read() {
        let all = [local("net", "network", "n-1", false), local("key", "keypair", "eve's, a/b=c", true)];
        let text = write(&all).unwrap();
        assert_eq!(text, "net=network/n-1,key=~keypair/eve%27s%2C%20a%2Fb%3Dc");
        assert_eq!(read(Some(&text)), all);
        let one = [local("", "image", "i", false)];
        assert_eq!((write(&one).as_deref(), read(Some("image/i"))), (Some("image/i"), one.to_vec()));
        assert_eq!((write(&[]), read(None), read(Some("cat/3,nothing"))), (None, vec![], vec![]));
    }
}
