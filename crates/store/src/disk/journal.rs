//! The journal: where small groups of batches are made durable, long before sled writes them.
//!
//! sled gets what was written since by and by, as one batch in which each key is there once, and the journal begins anew: a
//! checkpoint. Until then it is in memory for those who read; after a crash it is read from the journal.
//!
//! ```text
//! group:  "KhJ1" | length of writes u32 | salt u64 | before u64 | sequence u64 | crc32 u32 | writes    (little endian)
//! write:  0 (delete) or 1 (put) u8 | key length u16 | value length u32 | key | value
//! ```
//! The checksum covers everything else. `before` is the number of the group before this one. The salt is another after
//! each checkpoint: the file is used again from its start, and what an earlier turn left behind the last group is not
//! taken for more, whatever users put into it.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::layout::INLINE_BYTES;
use super::steps::DiskSteps;
use crate::record::{array, checksum};
use crate::{Write, check};

const MAGIC: &[u8; 4] = b"KhJ1";
/// Bytes before the writes of a group.
const HEADER: usize = 36;
/// Where the salt is in a header.
const SALT: usize = 8;
/// Where the salt of this turn, or of the one before where none has begun yet, is once more: by it the groups are known
/// where the first is damaged.
const SALT_AGAIN: usize = FILE_BYTES - 8;
/// Bytes before the key of a write.
const WRITE_HEADER: usize = 7;
/// The size of the file. It is written once as a whole, so that a sync has only contents to write.
pub(super) const FILE_BYTES: usize = 512 << 10;

/// A group of writes that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// The number of the group before it.
    pub(crate) before: u64,
    pub(crate) sequence: u64,
    pub(crate) writes: Vec<Write>,
}

/// The journal of a store that is open.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    salt: u64,
    /// Where the next group goes.
    end: usize,
    /// A checkpoint is made after so many bytes.
    turn_bytes: usize,
}

impl Journal {
    /// Opens the journal in the directory of a store. It goes on after `turn`, of which sled does not have all; without, it
    /// begins anew. It holds so many bytes before a checkpoint is due.
    pub(super) fn open(
        dir: &Path,
        turn: Option<(u64, usize)>,
        turn_bytes: usize,
        steps: &dyn DiskSteps,
    ) -> io::Result<Self> {
        let path = path(dir);
        if let Some(file) = existing(&path)? {
            let (salt, end) = turn.unwrap_or_default();
            let mut journal = Self { path, file, salt, end, turn_bytes: turn_bytes.min(SALT_AGAIN) };
            match turn {
                Some(_) => journal.write_again(&read(dir), steps)?,
                None => journal.begin_anew(steps)?,
            }
            return Ok(journal);
        }
        if turn.is_some() {
            return Err(io::Error::other("it is not as it was a moment ago"));
        }
        // Made aside: a file that is not whole would grow, and each sync would have to write that as well.
        let aside = dir.join("journal.making");
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&aside)?;
        file.write_all_at(&vec![0; FILE_BYTES], 0)?;
        file.sync_all()?;
        std::fs::rename(&aside, &path)?;
        File::open(dir)?.sync_all()?;
        Ok(Self { path, file, salt: salt(), end: 0, turn_bytes: turn_bytes.min(SALT_AGAIN) })
    }

    /// What was read may be in the memory of the system only: where a sync failed, the next one does not try the same again.
    fn write_again(&mut self, bytes: &[u8], steps: &dyn DiskSteps) -> io::Result<()> {
        let used = bytes.get(..self.end).ok_or_else(|| io::Error::other("it is not as it was a moment ago"))?;
        self.file.write_all_at(used, 0)?;
        self.file.write_all_at(&self.salt.to_le_bytes(), SALT_AGAIN as u64)?;
        steps.sync_journal(&self.path, &self.file)
    }

    /// The bytes of a group as it is stored here; none if it is for sled alone: it is large, or has values that sled gets
    /// in pieces.
    pub(super) fn encode(&self, before: u64, sequence: u64, writes: &[&Write]) -> Option<Vec<u8>> {
        let is_small = |write: &&Write| match write {
            Write::Put { value, .. } => value.len() <= INLINE_BYTES,
            Write::Delete { .. } => true,
        };
        let bytes: usize = writes.iter().map(|write| WRITE_HEADER + write.bytes()).sum();
        if !writes.iter().all(is_small) || HEADER + bytes > self.turn_bytes {
            return None;
        }
        Some(encode(self.salt, before, sequence, writes))
    }

    /// Makes a group durable. There must be [room](Self::has_room) for it.
    pub(super) fn append(&mut self, group: &[u8], steps: &dyn DiskSteps) -> io::Result<()> {
        self.file.write_all_at(group, self.end as u64)?;
        if self.is_empty() {
            self.file.write_all_at(&self.salt.to_le_bytes(), SALT_AGAIN as u64)?;
        }
        steps.sync_journal(&self.path, &self.file)?;
        self.end += group.len();
        Ok(())
    }

    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.end + bytes <= self.turn_bytes
    }

    /// Whether the next checkpoint is better made before somebody has to wait for it.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.end > self.turn_bytes / 4 * 3
    }

    pub(super) fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// How many bytes sled does not have yet.
    pub(super) fn bytes(&self) -> usize {
        self.end
    }

    /// All that is here is durable in sled. It begins anew with the next group; until then it counts as empty, for whoever
    /// has to do without sled does not know what is old.
    pub(super) fn begin_anew(&mut self, steps: &dyn DiskSteps) -> io::Result<()> {
        self.file.write_all_at(&[0; MAGIC.len()], 0)?;
        steps.sync_journal(&self.path, &self.file)?;
        self.salt = salt();
        self.end = 0;
        Ok(())
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("journal")
}

/// The file, if there is one that is as it should be.
fn existing(path: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().write(true).open(path) {
        Ok(file) => {
            let metadata = file.metadata()?;
            Ok((metadata.is_file() && metadata.len() == FILE_BYTES as u64).then_some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Another number each time.
fn salt() -> u64 {
    RandomState::new().hash_one(0)
}

fn encode(salt: u64, before: u64, sequence: u64, writes: &[&Write]) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    for write in writes {
        let value = match write {
            Write::Put { value, .. } => Some(value),
            Write::Delete { .. } => None,
        };
        out.push(u8::from(value.is_some()));
        // Both fit: keys and values have limits far below.
        out.extend_from_slice(&u16::try_from(write.key().len()).unwrap_or(u16::MAX).to_le_bytes());
        let len = value.map_or(0, Vec::len);
        out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(write.key());
        out.extend_from_slice(value.map_or(&[], Vec::as_slice));
    }
    let length = u32::try_from(out.len() - HEADER).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(MAGIC);
    out[4..8].copy_from_slice(&length.to_le_bytes());
    out[8..16].copy_from_slice(&salt.to_le_bytes());
    out[16..24].copy_from_slice(&before.to_le_bytes());
    out[24..32].copy_from_slice(&sequence.to_le_bytes());
    let crc = checksum(&out[..32], &out[HEADER..]);
    out[32..HEADER].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The group at the start of `bytes`, its salt and its length. None if there is none that is whole.
fn front(bytes: &[u8]) -> Option<(Group, u64, usize)> {
    let head = bytes.get(..HEADER).filter(|head| head.starts_with(MAGIC))?;
    let length = u32::from_le_bytes(array(head, 4)?) as usize;
    let end = HEADER.checked_add(length)?;
    let mut rest = bytes.get(HEADER..end)?;
    if checksum(head.get(..32)?, rest) != u32::from_le_bytes(array(head, 32)?) {
        return None;
    }
    let mut writes = Vec::new();
    while !rest.is_empty() {
        let key_len = usize::from(u16::from_le_bytes(array(rest, 1)?));
        let value_len = u32::from_le_bytes(array(rest, 3)?) as usize;
        let (head, more) = rest.split_at_checked(WRITE_HEADER)?;
        let (key, more) = more.split_at_checked(key_len)?;
        let (value, more) = more.split_at_checked(value_len)?;
        writes.push(match head.first()? {
            0 => Write::delete(key),
            1 => Write::put(key, value),
            _ => return None,
        });
        rest = more;
    }
    check(&writes).ok()?;
    let group =
        Group { before: u64::from_le_bytes(array(head, 16)?), sequence: u64::from_le_bytes(array(head, 24)?), writes };
    Some((group, u64::from_le_bytes(array(head, 8)?), end))
}

/// What a journal holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    /// In order, each after the one before.
    pub(crate) groups: Vec<Group>,
    pub(crate) salt: u64,
    /// Where the next group goes.
    pub(crate) end: usize,
}

/// Reads a journal from its front.
pub(crate) fn turn(bytes: &[u8]) -> Turn {
    let mut turn = Turn::default();
    while let Some((group, salt, length)) = bytes.get(turn.end..).and_then(front) {
        let follows = turn.groups.last().is_none_or(|last| last.sequence == group.before && turn.salt == salt);
        if !follows || group.sequence <= group.before {
            break;
        }
        turn.salt = salt;
        turn.end += length;
        turn.groups.push(group);
    }
    turn
}

/// What can still be found in a journal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Remains {
    /// The groups of this turn that are whole, also after one that is damaged.
    pub(crate) fresh: Vec<Group>,
    /// Those of the turn before where none has begun, or of one whose begin is damaged. sled may have had newer ones.
    pub(crate) stale: Vec<Group>,
}

/// Finds all groups that are whole.
pub(crate) fn remains(bytes: &[u8]) -> Remains {
    let mut found: Vec<(Group, u64)> = Vec::new();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= HEADER) {
        at += match front(rest) {
            Some((group, salt, length)) => {
                found.push((group, salt));
                length
            }
            None => 1 + rest.iter().skip(1).position(|byte| *byte == MAGIC[0]).unwrap_or(rest.len()),
        };
    }
    // Inside of what is damaged there may be what a user has made look like a group, with any salt but the right one.
    let begun = front(bytes).map(|(_, salt, _)| salt);
    let noted = [array(bytes, SALT).map(u64::from_le_bytes), array(bytes, SALT_AGAIN).map(u64::from_le_bytes)];
    found.retain(|(_, with)| begun.map_or_else(|| noted.contains(&Some(*with)), |salt| salt == *with));
    let groups = found.into_iter().map(|(group, _)| group).collect();
    match begun {
        Some(_) => Remains { fresh: groups, stale: Vec::new() },
        None => Remains { fresh: Vec::new(), stale: groups },
    }
}

/// The bytes of the journal in the directory of a store; none if there is nothing that can be read.
pub(super) fn read(dir: &Path) -> Vec<u8> {
    use std::io::Read as _;
    let path = path(dir);
    let mut bytes = Vec::new();
    let result = File::open(&path).and_then(|file| match file.metadata()?.is_file() {
        true => file.take(FILE_BYTES as u64).read_to_end(&mut bytes),
        false => Err(io::Error::other("it is not a file")),
    });
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!(path = %path.display(), %error, "the journal cannot be read");
        }
        _ => {}
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::disk::SyncFiles;

    fn groups_of(bytes: &[u8]) -> Vec<Group> {
        turn(bytes).groups
    }

    fn append(journal: &mut Journal, before: u64, sequence: u64, writes: &[Write]) {
        let group = journal.encode(before, sequence, &writes.iter().collect::<Vec<_>>()).unwrap();
        assert!(journal.has_room(group.len()));
        journal.append(&group, &SyncFiles::default()).unwrap();
    }

    #[test]
    fn what_an_earlier_turn_left_is_not_read_even_where_a_user_has_put_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), None, FILE_BYTES, &SyncFiles::default()).unwrap();
        let first = journal.encode(4, 5, &[&Write::put("a", "1")]).unwrap();
        // A value that looks like the group that follows the next one.
        let forged = encode(journal.salt ^ 1, 6, 7, &[&Write::put("forged", "x")]);
        let value = [vec![0; 8], forged].concat();
        append(&mut journal, 4, 5, &[Write::put("a", value)]);
        assert_eq!(turn(&read(dir.path())).groups.len(), 1);
        for length in 0..80 {
            journal.begin_anew(&SyncFiles::default()).unwrap();
            assert!(turn(&read(dir.path())).groups.is_empty());
            append(&mut journal, 5, 6, &[Write::put("b", vec![0; length])]);
            let found = turn(&read(dir.path())).groups;
            assert_eq!(found.iter().map(|group| group.sequence).collect::<Vec<_>>(), [6], "{length}");
            let remains = remains(&read(dir.path()));
            assert_eq!((remains.fresh.len(), remains.stale.len()), (1, 0), "{length}");
            journal.begin_anew(&SyncFiles::default()).unwrap();
            assert_eq!(super::remains(&read(dir.path())), Remains::default(), "{length}");
        }
        assert!(!first.is_empty());
    }

    /// Says what is synced.
    #[derive(Debug, Default)]
    struct Synced(std::sync::Mutex<Vec<Vec<u8>>>);

    impl DiskSteps for Synced {
        fn sync(&self, _: &Path) -> io::Result<()> {
            Ok(())
        }

        fn sync_journal(&self, path: &Path, _: &File) -> io::Result<()> {
            self.0.lock().unwrap().push(std::fs::read(path).unwrap());
            Ok(())
        }
    }

    #[test]
    fn what_it_goes_on_from_is_written_and_synced_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), None, FILE_BYTES, &SyncFiles::default()).unwrap();
        append(&mut journal, 0, 1, &[Write::put("a", "1")]);
        let before = read(dir.path());
        let Turn { salt, end, .. } = turn(&before);
        let steps = Synced::default();
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        journal.file.set_modified(long_ago).unwrap();
        let mut journal = Journal::open(dir.path(), Some((salt, end)), FILE_BYTES, &steps).unwrap();
        assert!(journal.file.metadata().unwrap().modified().unwrap() > long_ago, "it was not written");
        assert_eq!(*steps.0.lock().unwrap(), [before]);
        append(&mut journal, 1, 2, &[Write::put("b", "2")]);
        assert_eq!(turn(&read(dir.path())).groups.len(), 2);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_ends_it_there_and_the_rest_is_found() {
        let writes = [Write::put("key", "value"), Write::delete("other")];
        let all: Vec<&Write> = writes.iter().collect();
        let mut whole: Vec<u8> = (0..3).flat_map(|n| encode(9, n, n + 1, &all)).collect();
        let one = whole.len() / 3;
        let used = whole.len();
        whole.resize(FILE_BYTES, 0);
        whole[SALT_AGAIN..].copy_from_slice(&9_u64.to_le_bytes());
        assert_eq!(groups_of(&whole).len(), 3);
        assert_eq!(groups_of(&whole)[0], Group { before: 0, sequence: 1, writes: writes.to_vec() });
        for bit in 0..used * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(groups_of(&flipped).len(), bit / 8 / one, "bit {bit}");
            let Remains { fresh, stale } = remains(&flipped);
            assert!(if bit / 8 / one == 0 { fresh.is_empty() } else { stale.is_empty() }, "bit {bit}");
            let numbers: Vec<_> = fresh.iter().chain(&stale).map(|group| group.sequence).collect();
            let expected: Vec<_> = (1..=3).filter(|number| *number != bit as u64 / 8 / one as u64 + 1).collect();
            assert_eq!(numbers, expected, "bit {bit}");
        }
        for cut in 0..used {
            assert_eq!(groups_of(&whole[..cut]).len(), cut / one, "cut at {cut}");
        }
    }

    #[test]
    fn a_file_of_another_size_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("journal"), vec![b'K'; 100]).unwrap();
        assert!(turn(&read(dir.path())).groups.is_empty());
        let mut journal = Journal::open(dir.path(), None, FILE_BYTES, &SyncFiles::default()).unwrap();
        append(&mut journal, 0, 1, &[Write::put("a", "1")]);
        assert_eq!(turn(&read(dir.path())).groups.len(), 1);
        assert_eq!(std::fs::metadata(dir.path().join("journal")).unwrap().len(), FILE_BYTES as u64);
        drop(journal);
        std::fs::remove_file(dir.path().join("journal")).unwrap();
        std::fs::create_dir(dir.path().join("journal")).unwrap();
        assert!(read(dir.path()).is_empty());
        assert!(Journal::open(dir.path(), None, FILE_BYTES, &SyncFiles::default()).is_err());
    }
}
