//! How a record looks on the disk. It names itself and carries a checksum, so that it can be told from damage wherever
//! it is found:
//!
//! ```text
//! "KhR1" | kind u8 | key length u16 | payload length u32 | sequence u64 | crc32 u32 | key | payload     (little endian)
//! ```
//! The checksum covers everything else. The sequence number is that of the batch that wrote the record.

/// First bytes of every record; the digit is the version of this layout.
pub(crate) const MAGIC: &[u8; 4] = b"KhR1";
/// Bytes before the key.
pub(crate) const HEADER: usize = 23;

/// What the payload of a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The value.
    Inline,
    /// A [`Chunks`]: the value is elsewhere, in pieces.
    Chunked,
}

/// A record that was read and found whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: Kind,
    pub(crate) sequence: u64,
    pub(crate) key: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// Where the pieces of a large value are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunks {
    /// What the pieces' keys start with.
    pub(crate) id: u64,
    pub(crate) count: u32,
    /// Of the whole value.
    pub(crate) bytes: u32,
    /// Of the whole value.
    pub(crate) crc: u32,
}

/// Of everything but the checksum itself.
pub(crate) fn checksum(before: &[u8], after: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(before);
    crc.update(after);
    crc.finalize()
}

pub(crate) fn encode(kind: Kind, sequence: u64, key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + key.len() + payload.len());
    out.extend_from_slice(MAGIC);
    out.push(match kind {
        Kind::Inline => 0,
        Kind::Chunked => 1,
    });
    // Both fit: keys and payloads have limits far below.
    out.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    let place = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(key);
    out.extend_from_slice(payload);
    let crc = checksum(&out[..place], &out[HEADER..]);
    out[place..HEADER].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The bytes at a place, if there are so many.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Reads the record at the start of `bytes`; more may follow it.
pub(crate) fn decode_front(bytes: &[u8]) -> Result<Record<'_>, &'static str> {
    const SHORT: &str = "it is cut short";
    let magic: [u8; 4] = array(bytes, 0).ok_or(SHORT)?;
    if magic != *MAGIC {
        return Err("it does not start like a record");
    }
    let head = bytes.get(..HEADER).ok_or(SHORT)?;
    let key_len = usize::from(u16::from_le_bytes(array(head, 5).ok_or(SHORT)?));
    let payload_len = u32::from_le_bytes(array(head, 7).ok_or(SHORT)?) as usize;
    let sequence = u64::from_le_bytes(array(head, 11).ok_or(SHORT)?);
    let crc = u32::from_le_bytes(array(head, 19).ok_or(SHORT)?);
    let end = HEADER.checked_add(key_len).and_then(|end| end.checked_add(payload_len)).ok_or(SHORT)?;
    let body = bytes.get(HEADER..end).ok_or(SHORT)?;
    if checksum(&head[..19], body) != crc {
        return Err("its checksum does not match");
    }
    let kind = match head[4] {
        0 => Kind::Inline,
        1 => Kind::Chunked,
        _ => return Err("it is of a kind that this version does not know"),
    };
    let (key, payload) = body.split_at(key_len);
    Ok(Record { kind, sequence, key, payload })
}

/// Reads the record that is stored under `key`.
pub(crate) fn decode<'a>(key: &[u8], bytes: &'a [u8]) -> Result<Record<'a>, &'static str> {
    let record = decode_front(bytes)?;
    if record.key != key {
        return Err("it carries another key");
    }
    if HEADER + record.key.len() + record.payload.len() != bytes.len() {
        return Err("something follows it");
    }
    Ok(record)
}

impl Chunks {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = self.id.to_le_bytes().to_vec();
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        (payload.len() == 20).then_some(())?;
        Some(Self {
            id: u64::from_le_bytes(array(payload, 0)?),
            count: u32::from_le_bytes(array(payload, 8)?),
            bytes: u32::from_le_bytes(array(payload, 12)?),
            crc: u32::from_le_bytes(array(payload, 16)?),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let whole = encode(Kind::Inline, 7, b"key", b"value");
        let record = decode(b"key", &whole).unwrap();
        assert_eq!((record.kind, record.sequence, record.payload), (Kind::Inline, 7, &b"value"[..]));
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(b"key", &flipped).is_err(), "bit {bit}");
        }
        for cut in 0..whole.len() {
            assert!(decode(b"key", &whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(decode(b"other", &whole).is_err());
        assert!(decode(b"key", &[&whole[..], b"x"].concat()).is_err());
    }

    #[test]
    fn chunks_round_trip() {
        let chunks = Chunks { id: u64::MAX - 1, count: 9, bytes: 10, crc: 11 };
        assert_eq!(Chunks::decode(&chunks.encode()), Some(chunks));
        assert_eq!(Chunks::decode(&chunks.encode()[1..]), None);
    }
}
