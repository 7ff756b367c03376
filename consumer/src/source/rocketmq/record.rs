//! Reads the records of a pull's answer, to the last byte or not at all: a message that is left out would
//! count as finished.
//!
//! Layout of a record, all numbers big-endian: total size (4 bytes), magic (4), body checksum (4), queue
//! id (4), flag (4), queue offset (8), commit log offset (8), system flag (4), born time (8), born host
//! (address 4 or 16, port 4), store time (8), store host (likewise), reconsume times (4), prepared
//! transaction offset (8), body (length 4), topic (length 1, or 2 by the second magic), properties
//! (length 2). Source: `MessageDecoder.java`, `MessageSysFlag.java` and `MessageVersion.java` of Apache
//! RocketMQ 5.3.3.
//!
//! A body that claims to be compressed and is not is the message's own defect: it is handed on as one that
//! cannot be read, so that it holds up its key and not its queue.

use crate::message::{Message, PROPERTY_UNIQUE_KEY, Properties, Text};
use bytes::Bytes;
use std::fmt::Write;
use std::io::{self, Read};

const MAGIC: i32 = -626_843_481;
/// With two bytes for the length of the topic.
const MAGIC_2: i32 = -626_843_477;

const COMPRESSED: u32 = 0x1;
const BORN_HOST_V6: u32 = 0x1 << 4;
const STORE_HOST_V6: u32 = 0x1 << 5;
const NEED_UNWRAP: u32 = 0x1 << 6;
const INNER_BATCH: u32 = 0x1 << 7;
const COMPRESSION: u32 = 0x7 << 8;
const LZ4: u32 = 0x1 << 8;
const ZSTD: u32 = 0x2 << 8;
const ZLIB: u32 = 0x3 << 8;

/// Longest body after decompression. A broker takes 4 MiB, compressed ones can grow a thousandfold.
const LONGEST_BODY: usize = 64 << 20;

/// Every message in `reply`; an error if anything in it cannot be read.
pub fn messages(reply: &[u8]) -> Result<Vec<Message>, String> {
    each(reply, |record| message(&parts(record)?))
}

/// What is made of every record in `reply`; an error if anything in it cannot be read.
pub fn each<T>(reply: &[u8], make: impl Fn(&[u8]) -> Result<T, String>) -> Result<Vec<T>, String> {
    let mut made = Vec::new();
    let mut rest = reply;
    while !rest.is_empty() {
        let at = reply.len() - rest.len();
        let unreadable = |reason: String| {
            format!(
                "the record at byte {at} of {} cannot be read: {reason}",
                reply.len()
            )
        };
        let size = Reader(rest).i32().and_then(length).map_err(unreadable)?;
        let (record, after) = rest
            .split_at_checked(size)
            .filter(|_| size > 0)
            .ok_or_else(|| unreadable(format!("it claims {size} bytes of {}", rest.len())))?;
        made.push(make(record).map_err(unreadable)?);
        rest = after;
    }
    Ok(made)
}

/// A record as it lies at the broker.
pub(super) struct Parts<'r> {
    pub(super) queue: u32,
    /// The producer's own flag.
    pub(super) flag: i32,
    pub(super) system_flag: u32,
    pub(super) offset: u64,
    pub(super) physical_offset: u64,
    pub(super) born_at_ms: i64,
    pub(super) stored_at_ms: i64,
    store_host: &'r [u8],
    pub(super) reconsume_times: u32,
    /// Compressed, if the system flag says so.
    pub(super) body: &'r [u8],
    pub(super) topic: &'r [u8],
    properties: &'r [u8],
}

/// Bits of the system flag that say how a body is compressed.
pub(super) const BODY_FLAGS: u32 = COMPRESSED | COMPRESSION;

pub(super) fn parts(record: &[u8]) -> Result<Parts<'_>, String> {
    let mut reader = Reader(record);
    reader.skip(4)?;
    let magic = reader.i32()?;
    if magic != MAGIC && magic != MAGIC_2 {
        return Err(format!("its magic is {magic}, unknown to RocketMQ 5.3"));
    }
    reader.skip(4)?;
    let queue = reader.i32()?.cast_unsigned();
    let flag = reader.i32()?;
    let offset = reader.offset()?;
    let physical_offset = reader.offset()?;
    let system_flag = reader.i32()?.cast_unsigned();
    if system_flag & (INNER_BATCH | NEED_UNWRAP) != 0 {
        return Err(format!(
            "offset {offset} holds a batch of messages in one record; topics of message type batch \
             (queue.type=BatchCQ) are not supported, use one of queue.type=SimpleCQ"
        ));
    }
    let host = |v6: u32| if system_flag & v6 == 0 { 4 } else { 16 } + 4;
    let born_at_ms = reader.i64()?;
    reader.skip(host(BORN_HOST_V6))?;
    let stored_at_ms = reader.i64()?;
    let store_host = reader.take(host(STORE_HOST_V6))?;
    let reconsume_times = u32::try_from(reader.i32()?).unwrap_or_default();
    reader.skip(8)?;
    let body_length = reader.i32().and_then(length)?;
    let body = reader.take(body_length)?;
    let topic_length = if magic == MAGIC {
        usize::from(reader.u8()?)
    } else {
        usize::from(reader.u16()?)
    };
    let topic = reader.take(topic_length)?;
    // The length is signed for the broker, which takes at most 32,767 bytes.
    let properties_length = usize::from(reader.u16()?);
    let properties = reader.take(properties_length)?;
    if !reader.0.is_empty() {
        return Err(format!("{} bytes of it are left over", reader.0.len()));
    }
    Ok(Parts {
        queue,
        flag,
        system_flag,
        offset,
        physical_offset,
        born_at_ms,
        stored_at_ms,
        store_host,
        reconsume_times,
        body,
        topic,
        properties,
    })
}

/// The message of a record.
pub(super) fn message(parts: &Parts<'_>) -> Result<Message, String> {
    let properties = String::from_utf8_lossy(parts.properties);
    let mut buffer = Vec::with_capacity(properties.len() + parts.body.len());
    buffer.extend_from_slice(properties.as_bytes());
    let defect = put_body(&mut buffer, parts.system_flag, parts.body).err();
    if defect.is_some() {
        buffer.truncate(properties.len());
    }
    let buffer = Bytes::from(buffer);
    let text = Text::try_from(buffer.slice(..properties.len()))
        .map_err(|_| "its properties are not text".to_owned())?;
    let properties = Properties::new(text.clone());
    let id = match properties.get(PROPERTY_UNIQUE_KEY) {
        Some(id) => text.slice_ref(id),
        None => offset_id(parts.store_host, parts.physical_offset).into(),
    };
    Ok(Message {
        offset: parts.offset,
        physical_offset: parts.physical_offset,
        born_at_ms: parts.born_at_ms,
        stored_at_ms: parts.stored_at_ms,
        reconsume_times: parts.reconsume_times,
        id,
        body: buffer.slice(text.len()..),
        properties,
        key: None,
        defect: defect.map(Text::from),
    })
}

/// Appends the body, decompressed.
fn put_body(buffer: &mut Vec<u8>, flag: u32, body: &[u8]) -> Result<(), String> {
    if flag & COMPRESSED == 0 || body.is_empty() {
        buffer.extend_from_slice(body);
        return Ok(());
    }
    let (name, outcome) = match flag & COMPRESSION {
        // Producers before 5.0 knew zlib only and did not say so.
        0 | ZLIB => ("zlib", append(buffer, flate2::read::ZlibDecoder::new(body))),
        LZ4 => ("lz4", append_lz4(buffer, body)),
        ZSTD => (
            "zstd",
            zstd::stream::read::Decoder::new(body).and_then(|decoder| append(buffer, decoder)),
        ),
        other => {
            return Err(format!(
                "the body is compressed by a method unknown to RocketMQ 5.3 ({})",
                other >> 8
            ));
        }
    };
    outcome.map_err(|error| format!("the body cannot be decompressed as {name}: {error}"))
}

/// A stream of lz4 that ends early is told only at the end.
fn append_lz4(buffer: &mut Vec<u8>, body: &[u8]) -> io::Result<()> {
    let mut decoder = lz4::Decoder::new(body)?;
    append(buffer, &mut decoder)?;
    decoder.finish().1
}

fn append(buffer: &mut Vec<u8>, body: impl Read) -> io::Result<()> {
    let before = buffer.len();
    body.take(LONGEST_BODY as u64 + 1).read_to_end(buffer)?;
    if buffer.len() - before > LONGEST_BODY {
        return Err(io::Error::other(format!(
            "it is longer than {LONGEST_BODY} bytes"
        )));
    }
    buffer.shrink_to_fit();
    Ok(())
}

/// The id a broker gives a message: its address and the commit log offset, in hexadecimal.
/// Source: `MessageDecoder.createMessageId` of Apache RocketMQ 5.3.3.
fn offset_id(store_host: &[u8], physical_offset: u64) -> String {
    let mut id = String::with_capacity(2 * store_host.len() + 16);
    for byte in store_host {
        let _ = write!(id, "{byte:02X}");
    }
    let _ = write!(id, "{physical_offset:016X}");
    id
}

fn length(number: i32) -> Result<usize, String> {
    usize::try_from(number).map_err(|_| format!("it has a length of {number}"))
}

/// Reads from the front.
struct Reader<'r>(&'r [u8]);

impl<'r> Reader<'r> {
    fn take(&mut self, count: usize) -> Result<&'r [u8], String> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| format!("it ends {} bytes early", count - self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn skip(&mut self, count: usize) -> Result<(), String> {
        self.take(count).map(drop)
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32, String> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, String> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn offset(&mut self) -> Result<u64, String> {
        let number = self.i64()?;
        u64::try_from(number).map_err(|_| format!("it has an offset of {number}"))
    }
}

#[cfg(test)]
pub(crate) mod tests;
