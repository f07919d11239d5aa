//! An input is a list of parts: a byte that says what the part is, its length as two bytes (little endian), the part.

/// Cuts an input into its parts. The last may be cut short.
pub fn split(mut input: &[u8]) -> Vec<(u8, &[u8])> {
    let mut parts = Vec::new();
    while let Some(([kind, low, high], rest)) = input.split_first_chunk::<3>() {
        let (part, rest) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()));
        parts.push((*kind, part));
        input = rest;
    }
    parts
}

/// Makes an input of parts. A part that is too long for it is left out.
pub fn join<'a>(parts: impl IntoIterator<Item = (u8, &'a [u8])>) -> Vec<u8> {
    let mut input = Vec::new();
    for (kind, part) in parts {
        if let Ok(length) = u16::try_from(part.len()) {
            input.push(kind);
            input.extend_from_slice(&length.to_le_bytes());
            input.extend_from_slice(part);
        }
    }
    input
}
