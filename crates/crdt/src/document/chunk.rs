//! Looking at Automerge's chunks before Automerge does.
//!
//! A chunk is run-length encoded and may be deflated, so a few bytes can stand for more than any machine holds. Automerge
//! unpacks what it is given; here it is measured first. The layout is that of Automerge's binary format specification.

use std::io::Read;

use sha2::{Digest, Sha256};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const DEFLATED: u64 = 0b1000;
/// Column of the operations' actions: there is one entry for each.
const ACTION: u64 = 0x42;

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A whole document.
    Document,
    /// One change.
    Change,
}

/// One chunk: the whole of it, and its content without the header.
pub(crate) struct Chunk<'a> {
    pub(crate) kind: Kind,
    pub(crate) whole: &'a [u8],
    content: &'a [u8],
}

/// What a chunk may unpack to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The most bytes, unpacked.
    pub(crate) bytes: usize,
    /// The most primitive edits.
    pub(crate) ops: u64,
}

const CUT: &str = "it ends in the middle";

fn take<'a>(input: &mut &'a [u8], count: u64) -> Result<&'a [u8], String> {
    let count = usize::try_from(count).map_err(|_| CUT.to_owned())?;
    let (head, rest) = input.split_at_checked(count).ok_or(CUT)?;
    *input = rest;
    Ok(head)
}

fn byte(input: &mut &[u8]) -> Result<u8, String> {
    take(input, 1)?.first().copied().ok_or_else(|| CUT.to_owned())
}

fn unsigned(input: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let next = byte(input)?;
        let bits = u64::from(next & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("it holds a number that is too large".to_owned())
}

fn signed(input: &mut &[u8]) -> Result<i64, String> {
    let mut value = 0_i64;
    for shift in (0..64).step_by(7) {
        let next = byte(input)?;
        value |= i64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            if shift < 57 && next & 0x40 != 0 {
                value |= -1_i64 << (shift + 7);
            }
            return Ok(value);
        }
    }
    Err("it holds a number that is too large".to_owned())
}

/// Splits bytes into chunks.
pub(crate) fn split(mut input: &[u8]) -> Result<Vec<Chunk<'_>>, String> {
    let mut chunks = Vec::new();
    while !input.is_empty() {
        let start = input;
        if take(&mut input, 4)? != MAGIC {
            return Err("it is not of Automerge".to_owned());
        }
        take(&mut input, 4)?;
        let kind = match byte(&mut input)? {
            0 => Kind::Document,
            1 => Kind::Change,
            2 => return Err("it is a compressed change: send it uncompressed".to_owned()),
            other => return Err(format!("its type, {other}, is not known")),
        };
        let length = unsigned(&mut input)?;
        let content = take(&mut input, length)?;
        let whole = start.get(..start.len() - input.len()).unwrap_or_default();
        chunks.push(Chunk { kind, whole, content });
    }
    Ok(chunks)
}

impl Chunk<'_> {
    /// The four bytes that its hash must begin with.
    pub(crate) fn checksum(&self) -> Option<&[u8]> {
        self.whole.get(4..8)
    }

    /// Whether the checksum is that of the rest.
    pub(crate) fn is_intact(&self) -> bool {
        let digest = self.whole.get(8..).map(Sha256::digest);
        digest.as_ref().and_then(|digest| digest.get(..4)) == self.checksum()
    }

    /// Refuses what unpacks to more than `bounds`.
    pub(crate) fn measure(&self, bounds: Bounds) -> Result<(), String> {
        let mut input = self.content;
        let hashes = |input: &mut &[u8]| {
            let count = unsigned(input)?;
            take(input, count.saturating_mul(32)).map(|_| ())
        };
        let actors = |input: &mut &[u8]| {
            for _ in 0..unsigned(input)? {
                let length = unsigned(input)?;
                take(input, length)?;
            }
            Ok::<(), String>(())
        };
        match self.kind {
            Kind::Change => {
                hashes(&mut input)?;
                let length = unsigned(&mut input)?;
                take(&mut input, length)?;
                unsigned(&mut input)?;
                unsigned(&mut input)?;
                signed(&mut input)?;
                let length = unsigned(&mut input)?;
                take(&mut input, length)?;
                actors(&mut input)?;
                let columns = columns(&mut input)?;
                measure_columns(&columns, &mut input, bounds)
            }
            Kind::Document => {
                actors(&mut input)?;
                hashes(&mut input)?;
                let changes = columns(&mut input)?;
                let ops = columns(&mut input)?;
                measure_columns(&changes, &mut input, bounds)?;
                measure_columns(&ops, &mut input, bounds)
            }
        }
    }
}

/// The columns that follow: specification and length of each.
fn columns(input: &mut &[u8]) -> Result<Vec<(u64, u64)>, String> {
    let mut columns = Vec::new();
    for _ in 0..unsigned(input)? {
        columns.push((unsigned(input)?, unsigned(input)?));
    }
    Ok(columns)
}

fn measure_columns(columns: &[(u64, u64)], input: &mut &[u8], bounds: Bounds) -> Result<(), String> {
    let mut room = bounds.bytes;
    for (spec, length) in columns {
        let packed = take(input, *length)?;
        let mut unpacked = Vec::new();
        let data = if spec & DEFLATED == 0 {
            packed
        } else {
            let limit = u64::try_from(room).unwrap_or(u64::MAX).saturating_add(1);
            let read = flate2::bufread::DeflateDecoder::new(packed).take(limit).read_to_end(&mut unpacked);
            read.map_err(|_| "a part of it cannot be decompressed".to_owned())?;
            unpacked.as_slice()
        };
        room = room.checked_sub(data.len()).ok_or_else(|| format!("it unpacks to more than {} bytes", bounds.bytes))?;
        // References to earlier edits may be some times more than the edits.
        let most = if spec & !DEFLATED == ACTION { bounds.ops } else { bounds.ops.saturating_mul(4) };
        if entries(spec & 0b111, data)? > most {
            return Err(format!("it holds more than {} edits", bounds.ops));
        }
    }
    Ok(())
}

/// How many entries a column stands for; for a column that gives the sizes of groups, how many the groups have.
fn entries(kind: u64, mut data: &[u8]) -> Result<u64, String> {
    const GROUP: u64 = 0;
    const DELTA: u64 = 3;
    const BOOLEAN: u64 = 4;
    const TEXT: u64 = 5;
    const RAW: u64 = 7;
    let mut total = 0_u64;
    let value = |data: &mut &[u8]| match kind {
        DELTA => signed(data).map(|_| 1),
        TEXT => {
            let length = unsigned(data)?;
            take(data, length).map(|_| 1)
        }
        GROUP => unsigned(data),
        _ => unsigned(data).map(|_| 1),
    };
    while !data.is_empty() && kind != RAW {
        let added = if kind == BOOLEAN {
            unsigned(&mut data)?
        } else {
            match signed(&mut data)? {
                0 => unsigned(&mut data)?,
                run @ 1.. => value(&mut data)?.max(1).saturating_mul(run.unsigned_abs()),
                literal => {
                    let mut sum = 0_u64;
                    for _ in 0..literal.unsigned_abs() {
                        sum = sum.saturating_add(value(&mut data)?.max(1));
                    }
                    sum
                }
            }
        };
        total = total.saturating_add(added);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use automerge::transaction::Transactable;
    use automerge::{Automerge, ROOT, ReadDoc};
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 10_000, ops: 1000 };

    fn number(value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut left = value;
        loop {
            let low = u8::try_from(left & 0x7f).unwrap();
            left >>= 7;
            if left == 0 {
                bytes.push(low);
                return bytes;
            }
            bytes.push(low | 0x80);
        }
    }

    /// A change with one column.
    fn change(spec: u64, column: &[u8]) -> Vec<u8> {
        let mut content = vec![0, 1, 7, 1, 1, 0, 0, 0, 1];
        content.extend(number(spec));
        content.extend(number(column.len() as u64));
        content.extend(column);
        let mut whole = MAGIC.to_vec();
        whole.extend([0; 4]);
        whole.push(1);
        whole.extend(number(content.len() as u64));
        whole.extend(content);
        whole
    }

    fn measured(bytes: &[u8]) -> Result<(), String> {
        split(bytes)?.iter().try_for_each(|chunk| chunk.measure(BOUNDS))
    }

    #[test]
    fn a_long_run_is_counted_without_being_unpacked() {
        let run = |count: u64, of: u64| [number(count), number(of)].concat();
        assert_eq!(measured(&change(ACTION, &run(60, 1))), Ok(()));
        // 2^40 edits of one kind; a null run as long; an edit that takes back 2^40 others; that many references.
        let long = 1 << 40;
        for (spec, column) in [
            (ACTION, run(long, 1)),
            (ACTION, [vec![0], number(long)].concat()),
            (0x70, run(1, long)),
            (0x70, [vec![0x7f], number(long)].concat()),
            (0x71, run(long, 0)),
            (0x73, run(long, 1)),
            (0x34, number(long)),
            (0x15, [number(long), vec![1, b'a']].concat()),
        ] {
            let error = measured(&change(spec, &column)).unwrap_err();
            assert!(error.contains("1000 edits"), "{spec:x}: {error}");
        }
    }

    #[test]
    fn what_is_deflated_is_not_inflated_beyond_the_bound() {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![0; 50_000_000]).unwrap();
        let small = encoder.finish().unwrap();
        assert!(small.len() < 100_000);
        let error = measured(&change(0x57 | DEFLATED, &small)).unwrap_err();
        assert!(error.contains("10000 bytes"), "{error}");
        assert!(measured(&change(0x57 | DEFLATED, b"no")).is_err());
    }

    #[test]
    fn what_automerge_writes_is_measured_rightly() {
        let mut doc = Automerge::new();
        let mut tx = doc.transaction();
        for n in 0..300_i64 {
            tx.put(ROOT, format!("key{n}"), n * 1_000_000_007).unwrap();
            tx.put(ROOT, "same", n).unwrap();
        }
        tx.delete(ROOT, "key7").unwrap();
        tx.commit();
        let (change, whole) = (doc.get_changes(&[]).remove(0), doc.save());
        for bytes in [change.raw_bytes(), whole.as_slice()] {
            let [only] = split(bytes).unwrap().try_into().ok().unwrap();
            assert!(only.is_intact());
            only.measure(Bounds { bytes: 100_000, ops: 601 }).unwrap();
            assert!(only.measure(Bounds { bytes: 100_000, ops: 100 }).is_err());
            assert!(only.measure(Bounds { bytes: 100, ops: 601 }).is_err());
        }
        assert!(doc.get(ROOT, "key7").unwrap().is_none());
    }

    proptest! {
        #[test]
        fn numbers_are_read_as_written(value: u64, tail in prop::collection::vec(any::<u8>(), 0..3)) {
            let bytes = [number(value), tail.clone()].concat();
            let mut input = bytes.as_slice();
            prop_assert_eq!(unsigned(&mut input), Ok(value));
            prop_assert_eq!(input, tail.as_slice());
        }

        #[test]
        fn any_content_is_measured_or_refused(spec in 0_u64..200, column in prop::collection::vec(any::<u8>(), 0..60)) {
            _ = measured(&change(spec, &column));
            _ = split(&column);
        }
    }
}
