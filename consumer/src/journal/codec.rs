//! Records as bytes.
//!
//! Layout, little endian: `KLJ`, version, kind, epoch (all ones: none), length of the writer's name and the
//! name; then what the kind and the version define; last a CRC-32 of everything before. Everything up to
//! the name is the same in every version to come, so that the claim of a newer program is still a claim.
//!
//! Version 2 is version 1 with a [`Reset`] behind the suspects. It is written only about a queue that was
//! reset, so that programs of either version share all others.

use super::reset::{Generation, REQUEST_BYTES, REQUESTS, Reset};
use super::{Body, Epoch, Finished, Incarnation, Keys, Progress, Record, Witness};
use roaring::RoaringTreemap;
use std::sync::Arc;

/// No record is larger. Brokers take messages of 4 MiB unless told otherwise.
pub const MAX_BYTES: usize = 1 << 20;

const MAGIC: &[u8] = b"KLJ";
const VERSION: u8 = 1;
const VERSION_WITH_RESET: u8 = 2;
const CLAIM: u8 = 1;
const PROGRESS: u8 = 2;
const RELEASED: u8 = 3;
const WITHDRAWN: u8 = 4;
const NONE: u64 = u64::MAX;
const CHECKSUM: usize = 4;
const SUSPECTS: usize = 4_096;
const ALL_KEYS: u32 = u32::MAX;

/// Why a record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A later version wrote it; what all versions share is known.
    #[error(
        "the record is of version {version}, this program reads {VERSION} and {VERSION_WITH_RESET}"
    )]
    Version {
        /// Its version.
        version: u8,
        /// Who wrote it.
        by: Incarnation,
        /// The epoch it carries; none if it is a claim.
        epoch: Option<Epoch>,
    },
    /// Not a record, or a damaged one.
    #[error("the record is damaged or not one of Keylane's: {0}")]
    Damaged(&'static str),
}

/// The bytes of a record, at most [`MAX_BYTES`]. If there is more to say than that, the highest finished
/// offsets are left out: they may run again, which is allowed after a crash and never loses anything.
pub fn encode(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(MAGIC);
    let (kind, epoch) = match &record.body {
        Body::Claim { .. } => (CLAIM, NONE),
        Body::Progress { epoch, .. } => (PROGRESS, *epoch),
        Body::Released { epoch, .. } => (RELEASED, *epoch),
        Body::Withdrawn { epoch, .. } => (WITHDRAWN, *epoch),
    };
    let version = match &record.body {
        Body::Progress { progress, .. } | Body::Released { progress, .. }
            if progress.reset.is_some() =>
        {
            VERSION_WITH_RESET
        }
        _ => VERSION,
    };
    bytes.extend_from_slice(&[version, kind]);
    bytes.extend_from_slice(&epoch.to_le_bytes());
    put_name(&mut bytes, &record.by);
    match &record.body {
        Body::Claim { predecessor } => {
            bytes.extend_from_slice(&predecessor.unwrap_or(NONE).to_le_bytes());
        }
        Body::Progress { progress, .. } | Body::Released { progress, .. } => {
            put_progress(&mut bytes, progress);
        }
        Body::Withdrawn {
            former, waiting, ..
        } => {
            put_name(&mut bytes, former);
            put_keys(&mut bytes, waiting);
        }
    }
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Names of incarnations are short; a longer one is cut, which makes it nobody's.
fn put_name(bytes: &mut Vec<u8>, name: &Incarnation) {
    let name = name.as_bytes();
    let name = &name[..name.len().min(usize::from(u16::MAX))];
    bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
    bytes.extend_from_slice(name);
}

fn put_keys(bytes: &mut Vec<u8>, keys: &Keys) {
    match keys {
        Keys::All => bytes.extend_from_slice(&ALL_KEYS.to_le_bytes()),
        Keys::Some(list) => {
            bytes.extend_from_slice(&(list.len() as u32).to_le_bytes());
            list.iter()
                .for_each(|key| bytes.extend_from_slice(&key.to_le_bytes()));
        }
    }
}

fn put_progress(bytes: &mut Vec<u8>, progress: &Progress) {
    bytes.extend_from_slice(&progress.finished.watermark().to_le_bytes());
    let witness = progress.witness;
    for number in [
        witness.map_or(NONE, |witness| witness.offset),
        witness.map_or(0, |witness| witness.stored_at_ms as u64),
        witness.map_or(0, |witness| witness.physical_offset),
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    put_keys(bytes, &progress.keys);
    let suspects = &progress.suspects[..progress.suspects.len().min(SUSPECTS)];
    bytes.extend_from_slice(&(suspects.len() as u32).to_le_bytes());
    for (offset, attempts) in suspects {
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&attempts.to_le_bytes());
    }
    if let Some(reset) = &progress.reset {
        put_reset(bytes, reset);
    }
    let room = MAX_BYTES - CHECKSUM - bytes.len();
    let above = progress.finished.above();
    let mut smaller = None;
    if above.serialized_size() > room {
        let mut finished = progress.finished.clone();
        finished.shrink_to(room);
        smaller = Some(finished);
    }
    let above = smaller.as_ref().map_or(above, Finished::above);
    // Writing to memory does not fail.
    let written = above.serialize_into(&mut *bytes);
    debug_assert!(written.is_ok());
}

fn put_reset(bytes: &mut Vec<u8>, reset: &Reset) {
    bytes.push(reset.begins.into());
    bytes.extend_from_slice(&reset.generation.number.to_le_bytes());
    for number in [
        reset.generation.epoch,
        reset.until,
        reset.from,
        reset.position,
        reset.skipped,
        reset.replayed,
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let requests = &reset.requests[..reset.requests.len().min(REQUESTS)];
    bytes.push(requests.len() as u8);
    for request in requests {
        // Ids were checked where they came in; one that is longer all the same is not remembered.
        let id = request.as_bytes();
        let id = if id.len() > REQUEST_BYTES { b"" } else { id };
        bytes.push(id.len() as u8);
        bytes.extend_from_slice(id);
    }
}

/// Reads a record.
pub fn decode(bytes: &[u8]) -> Result<Record, Unreadable> {
    use Unreadable::Damaged;
    let (content, checksum) = bytes
        .split_last_chunk::<CHECKSUM>()
        .ok_or(Damaged("too short"))?;
    let mut input = content
        .strip_prefix(MAGIC)
        .ok_or(Damaged("it begins differently"))?;
    if u32::from_le_bytes(*checksum) != crc32fast::hash(content) {
        return Err(Damaged("the checksum is wrong"));
    }
    let input = &mut input;
    let [version, kind] = take(input)?;
    let epoch = optional(u64::from_le_bytes(take(input)?));
    let by = name(input)?;
    if ![VERSION, VERSION_WITH_RESET].contains(&version) {
        return Err(Unreadable::Version { version, by, epoch });
    }
    let body = match (kind, epoch) {
        (CLAIM, None) => Body::Claim {
            predecessor: optional(u64::from_le_bytes(take(input)?)),
        },
        (PROGRESS, Some(epoch)) => Body::Progress {
            epoch,
            progress: progress(input, version)?,
        },
        (RELEASED, Some(epoch)) => Body::Released {
            epoch,
            progress: progress(input, version)?,
        },
        (WITHDRAWN, Some(epoch)) => Body::Withdrawn {
            epoch,
            former: name(input)?,
            waiting: keys(input)?,
        },
        _ => return Err(Damaged("its kind is unknown")),
    };
    if input.is_empty() {
        Ok(Record { by, body })
    } else {
        Err(Damaged("something follows its end"))
    }
}

fn name(input: &mut &[u8]) -> Result<Incarnation, Unreadable> {
    let length = usize::from(u16::from_le_bytes(take(input)?));
    let (name, rest) = input
        .split_at_checked(length)
        .ok_or(Unreadable::Damaged("it ends within a name"))?;
    *input = rest;
    let name = std::str::from_utf8(name);
    let name = name.map_err(|_| Unreadable::Damaged("a name is not text"))?;
    Ok(name.into())
}

fn keys(input: &mut &[u8]) -> Result<Keys, Unreadable> {
    let count = match u32::from_le_bytes(take(input)?) {
        ALL_KEYS => return Ok(Keys::All),
        count => count as usize,
    };
    if count > input.len() / size_of::<u64>() {
        return Err(Unreadable::Damaged("it ends within the keys"));
    }
    let list: Result<Vec<u64>, _> = (0..count)
        .map(|_| take(input).map(u64::from_le_bytes))
        .collect();
    Ok(Keys::new(list?))
}

fn progress(input: &mut &[u8], version: u8) -> Result<Progress, Unreadable> {
    let watermark = u64::from_le_bytes(take(input)?);
    let offset = optional(u64::from_le_bytes(take(input)?));
    let stored_at_ms = i64::from_le_bytes(take(input)?);
    let physical_offset = u64::from_le_bytes(take(input)?);
    let witness = offset.map(|offset| Witness {
        offset,
        stored_at_ms,
        physical_offset,
    });
    let keys = keys(input)?;
    let count = u32::from_le_bytes(take(input)?) as usize;
    if count > SUSPECTS {
        return Err(Unreadable::Damaged("it has too many suspects"));
    }
    let mut suspects = Vec::with_capacity(count);
    for _ in 0..count {
        suspects.push((
            u64::from_le_bytes(take(input)?),
            u32::from_le_bytes(take(input)?),
        ));
    }
    let reset = match version {
        VERSION_WITH_RESET => Some(reset(input)?),
        _ => None,
    };
    let above = RoaringTreemap::deserialize_from(&mut *input)
        .map_err(|_| Unreadable::Damaged("the finished set cannot be read"))?;
    Ok(Progress {
        finished: Finished::from_parts(watermark, above),
        witness,
        keys,
        suspects,
        reset,
    })
}

fn reset(input: &mut &[u8]) -> Result<Reset, Unreadable> {
    let [begins] = take(input)?;
    let number = u32::from_le_bytes(take(input)?);
    let mut next = || take(input).map(u64::from_le_bytes);
    let (epoch, until, from) = (next()?, next()?, next()?);
    let (position, skipped, replayed) = (next()?, next()?, next()?);
    let [count] = take(input)?;
    if usize::from(count) > REQUESTS {
        return Err(Unreadable::Damaged("it has too many requests"));
    }
    let mut requests: Vec<Arc<str>> = Vec::with_capacity(count.into());
    for _ in 0..count {
        let [length] = take(input)?;
        let (id, rest) = input
            .split_at_checked(length.into())
            .ok_or(Unreadable::Damaged("it ends within a request"))?;
        *input = rest;
        let id = std::str::from_utf8(id);
        requests.push(
            id.map_err(|_| Unreadable::Damaged("a request is not text"))?
                .into(),
        );
    }
    Ok(Reset {
        generation: Generation { epoch, number },
        begins: begins != 0,
        until,
        from,
        position,
        skipped,
        replayed,
        requests: requests.into(),
    })
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Unreadable> {
    let (taken, rest) = input
        .split_first_chunk::<N>()
        .ok_or(Unreadable::Damaged("it ends too early"))?;
    *input = rest;
    Ok(*taken)
}

fn optional(number: u64) -> Option<u64> {
    (number != NONE).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> impl Strategy<Value = Keys> {
        prop_oneof![
            9 => prop::collection::vec(any::<u64>(), 0..20).prop_map(Keys::new),
            1 => Just(Keys::All),
        ]
    }

    fn progress() -> impl Strategy<Value = Progress> {
        let witness = (0..u64::MAX, any::<i64>(), any::<u64>()).prop_map(
            |(offset, stored_at_ms, physical_offset)| Witness {
                offset,
                stored_at_ms,
                physical_offset,
            },
        );
        let ranges = prop::collection::vec((1u64..1 << 40, 0u64..100), 0..50);
        let finished = (0u64..1 << 40, ranges).prop_map(|(watermark, ranges)| {
            Finished::new(
                watermark,
                ranges.into_iter().map(|(from, length)| from..from + length),
            )
        });
        let suspects = prop::collection::vec((any::<u64>(), any::<u32>()), 0..5);
        let reset = prop::option::of(reset());
        (finished, prop::option::of(witness), keys(), suspects, reset).prop_map(
            |(finished, witness, keys, suspects, reset)| Progress {
                finished,
                witness,
                keys,
                suspects,
                reset,
            },
        )
    }

    fn reset() -> impl Strategy<Value = Reset> {
        let requests = prop::collection::vec("[a-zA-Z0-9._-]{1,63}", 0..REQUESTS + 1);
        let numbers = any::<[u64; 6]>();
        (any::<bool>(), any::<u32>(), numbers, requests).prop_map(
            |(begins, number, numbers, requests)| {
                let [epoch, until, from, position, skipped, replayed] = numbers;
                Reset {
                    generation: Generation { epoch, number },
                    begins,
                    until,
                    from,
                    position,
                    skipped,
                    replayed,
                    requests: requests.into_iter().map(Arc::from).collect(),
                }
            },
        )
    }

    fn record() -> impl Strategy<Value = Record> {
        let body = prop_oneof![
            prop::option::of(0..NONE).prop_map(|predecessor| Body::Claim { predecessor }),
            (0..NONE, progress()).prop_map(|(epoch, progress)| Body::Progress { epoch, progress }),
            (0..NONE, progress()).prop_map(|(epoch, progress)| Body::Released { epoch, progress }),
            (0..NONE, "[a-z:0-9-]{0,60}", keys()).prop_map(|(epoch, former, waiting)| {
                let former = former.into();
                Body::Withdrawn {
                    epoch,
                    former,
                    waiting,
                }
            }),
        ];
        ("[a-z:0-9-]{0,60}", body).prop_map(|(by, body)| Record {
            by: by.into(),
            body,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(record in record()) {
            prop_assert_eq!(decode(&encode(&record)), Ok(record));
        }

        #[test]
        fn a_damaged_byte_is_noticed(record in record(), at: prop::sample::Index, change in 1u8..) {
            let mut bytes = encode(&record);
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            prop_assert!(matches!(decode(&bytes), Err(Unreadable::Damaged(_))));
        }

        /// Also with a checksum that is right, so that everything behind it is tried.
        #[test]
        fn garbage_never_panics(
            version in VERSION..=VERSION_WITH_RESET, kind in 0u8..6, mut bytes in prop::collection::vec(any::<u8>(), 0..300)
        ) {
            let _ = decode(&bytes);
            bytes.splice(0..0, [b'K', b'L', b'J', version, kind]);
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
            let _ = decode(&bytes);
        }

        /// The same for what lies behind a sound beginning.
        #[test]
        fn a_damaged_record_with_a_sound_checksum_never_panics(
            record in record(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
        ) {
            let mut bytes = encode(&record);
            bytes.truncate(bytes.len() - CHECKSUM);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_later_version_is_told_from_garbage_and_its_claim_is_known() {
        let claim = Record {
            by: "keylane:x".into(),
            body: Body::Claim { predecessor: None },
        };
        let mut bytes = encode(&claim);
        bytes.truncate(bytes.len() - CHECKSUM);
        bytes[MAGIC.len()] = 9;
        bytes.extend_from_slice(b"what we do not know");
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        let unreadable = Unreadable::Version {
            version: 9,
            by: claim.by,
            epoch: None,
        };
        assert_eq!(decode(&bytes), Err(unreadable));
        assert!(matches!(decode(b"hello"), Err(Unreadable::Damaged(_))));
    }

    /// Programs that do not know of resets share every queue that was not reset.
    #[test]
    fn only_what_follows_a_reset_is_of_the_later_version() {
        let version = |progress| {
            let body = Body::Progress { epoch: 3, progress };
            let by = "keylane:x".into();
            encode(&Record { by, body })[MAGIC.len()]
        };
        let reset = Reset {
            generation: Generation {
                epoch: 3,
                number: 0,
            },
            begins: true,
            until: 9,
            from: 9,
            position: 0,
            skipped: 0,
            replayed: 9,
            requests: Reset::requests("again", None),
        };
        assert_eq!(version(Progress::default()), 1);
        let reset = Progress {
            reset: Some(reset),
            ..Progress::default()
        };
        assert_eq!(version(reset), 2);
    }

    #[test]
    fn a_million_finished_beyond_a_stuck_key_fit_and_far_more_are_cut() {
        // Every other one, the worst case of the compression.
        let written = |count: u64| {
            let others = (8..8 + 2 * count).step_by(2);
            let finished = Finished::new(7, others.map(|offset| offset..offset + 1));
            let progress = Progress {
                finished,
                ..Progress::default()
            };
            let record = Record {
                by: "keylane:x".into(),
                body: Body::Progress { epoch: 3, progress },
            };
            encode(&record)
        };
        let million = written(1_000_000);
        assert!(million.len() <= 256 << 10, "{}", million.len());
        let huge = written(10_000_000);
        assert!(huge.len() <= MAX_BYTES, "{}", huge.len());
        assert!(decode(&huge).is_ok());
    }
}
