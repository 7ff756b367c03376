use super::*;

/// A record as a broker would send it.
#[derive(Clone)]
pub struct Record {
    pub magic: i32,
    pub flag: u32,
    pub offset: i64,
    pub body: Vec<u8>,
    pub properties: Vec<u8>,
}

pub fn record() -> Record {
    Record {
        magic: MAGIC,
        flag: 0,
        offset: 7,
        body: b"body".to_vec(),
        properties: b"UNIQ_KEY\x01ID1\x02k\x01v\x02".to_vec(),
    }
}

impl Record {
    pub fn bytes(&self) -> Vec<u8> {
        let host = |v6: u32| {
            let address = if self.flag & v6 == 0 { 4 } else { 16 };
            let mut host = vec![127; address];
            host.extend(10_911_i32.to_be_bytes());
            host
        };
        let mut bytes = Vec::new();
        for number in [0, self.magic, 1, 3, 0] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(self.offset.to_be_bytes());
        bytes.extend(0xABC_i64.to_be_bytes());
        bytes.extend(self.flag.to_be_bytes());
        bytes.extend(1_000_i64.to_be_bytes());
        bytes.extend(host(BORN_HOST_V6));
        bytes.extend(2_000_i64.to_be_bytes());
        bytes.extend(host(STORE_HOST_V6));
        bytes.extend(5_i32.to_be_bytes());
        bytes.extend(0_i64.to_be_bytes());
        bytes.extend((self.body.len() as i32).to_be_bytes());
        bytes.extend(&self.body);
        if self.magic == MAGIC {
            bytes.push(1);
        } else {
            bytes.extend(1_u16.to_be_bytes());
        }
        bytes.push(b'T');
        bytes.extend((self.properties.len() as u16).to_be_bytes());
        bytes.extend(&self.properties);
        let size = (bytes.len() as i32).to_be_bytes();
        bytes[..4].copy_from_slice(&size);
        bytes
    }

    fn read(&self) -> Message {
        messages(&self.bytes()).unwrap().remove(0)
    }
}

#[test]
fn every_field_of_every_layout_is_read() {
    for magic in [MAGIC, MAGIC_2] {
        for flag in [0, BORN_HOST_V6, STORE_HOST_V6, BORN_HOST_V6 | STORE_HOST_V6] {
            let written = Record {
                magic,
                flag,
                ..record()
            };
            let read = written.read();
            assert_eq!((read.offset, read.physical_offset), (7, 0xABC));
            assert_eq!(
                (read.born_at_ms, read.stored_at_ms, read.reconsume_times),
                (1_000, 2_000, 5)
            );
            assert_eq!(&*read.id, "ID1");
            assert_eq!(read.properties.get("k"), Some("v"));
            assert_eq!(&read.body[..], b"body");
        }
    }
}

#[test]
fn a_message_without_an_id_gets_the_brokers() {
    let bare = Record {
        properties: Vec::new(),
        ..record()
    };
    assert_eq!(&*bare.read().id, "7F7F7F7F00002A9F0000000000000ABC");
}

#[test]
fn bodies_are_decompressed() {
    let plain = vec![b'x'; 100_000];
    let mut zlib = flate2::read::ZlibEncoder::new(&plain[..], flate2::Compression::fast());
    let mut zlibbed = Vec::new();
    zlib.read_to_end(&mut zlibbed).unwrap();
    let mut lz4 = lz4::EncoderBuilder::new().build(Vec::new()).unwrap();
    io::Write::write_all(&mut lz4, &plain).unwrap();
    let (lz4, finished) = lz4.finish();
    finished.unwrap();
    for (method, body) in [
        (0, zlibbed.clone()),
        (ZLIB, zlibbed),
        (LZ4, lz4),
        (ZSTD, zstd::encode_all(&plain[..], 1).unwrap()),
    ] {
        let written = Record {
            flag: COMPRESSED | method,
            body,
            ..record()
        };
        let read = written.read();
        assert_eq!(read.body, plain, "{method}");
        assert_eq!(read.defect, None);
        let mut cut = written;
        cut.body.truncate(cut.body.len() - 5);
        let read = cut.read();
        assert!(read.defect.is_some() && read.body.is_empty(), "{method}");
    }
}

#[test]
fn a_body_that_is_not_what_it_claims_to_be_is_the_messages_own_defect() {
    for (method, named) in [
        (ZLIB, "zlib"),
        (LZ4, "lz4"),
        (ZSTD, "zstd"),
        (0x5 << 8, "unknown"),
    ] {
        let written = Record {
            flag: COMPRESSED | method,
            ..record()
        };
        let mut reply = record().bytes();
        reply.extend(written.bytes());
        reply.extend(record().bytes());
        let read = messages(&reply).unwrap();
        assert_eq!(read.len(), 3);
        let defect = read[1].defect.as_deref().unwrap();
        assert!(defect.contains(named), "{defect}");
        assert!(read[1].body.is_empty() && read[2].defect.is_none());
        assert_eq!(read[1].properties.get("k"), Some("v"));
    }
}

#[test]
fn a_body_that_swells_without_end_is_refused() {
    let endless = vec![0; LONGEST_BODY + 1];
    let written = Record {
        flag: COMPRESSED | ZSTD,
        body: zstd::encode_all(&endless[..], 1).unwrap(),
        ..record()
    };
    assert!(written.body.len() < 1 << 20);
    let read = written.read();
    assert!(read.defect.unwrap().contains("longer than"));
    assert!(read.body.is_empty());
}

#[test]
fn body_properties_and_id_share_one_buffer_that_is_not_the_replys() {
    let reply = record().bytes();
    let read = messages(&reply).unwrap().remove(0);
    let text = read.properties.text().as_bytes().as_ptr_range();
    assert_eq!(text.end, read.body.as_ptr());
    assert!(text.contains(&read.id.as_ptr()));
    assert!(!reply.as_ptr_range().contains(&read.body.as_ptr()));
}

#[test]
fn nothing_is_nothing_and_half_a_record_is_an_error() {
    assert_eq!(messages(&[]), Ok(Vec::new()));
    let whole = record().bytes();
    let mut two = whole.clone();
    two.extend(&whole);
    assert_eq!(messages(&two).unwrap().len(), 2);
    // Cut anywhere: never fewer messages without an error.
    for cut in 1..two.len() {
        let read = messages(&two[..cut]);
        assert!(read.is_err() || cut == whole.len(), "{cut}: {read:?}");
    }
}

#[test]
fn what_is_not_a_record_is_named() {
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = record().bytes();
        change(&mut bytes);
        messages(&bytes).unwrap_err()
    };
    let error = changed(&|bytes| bytes[7] ^= 0xFF);
    assert!(error.contains("magic"), "{error}");
    let error = changed(&|bytes| bytes[..4].fill(0));
    assert!(error.contains("claims 0 bytes"), "{error}");
    let error = changed(&|bytes| bytes[0] = 0xFF);
    assert!(error.contains("length of -"), "{error}");
    let error = changed(&|bytes| {
        bytes.push(0);
        bytes[3] += 1;
    });
    assert!(error.contains("1 bytes of it are left over"), "{error}");
    let error = messages(
        &Record {
            offset: -1,
            ..record()
        }
        .bytes(),
    );
    assert!(error.unwrap_err().contains("offset of -1"));
}

#[test]
fn batches_inside_a_record_are_refused() {
    for flag in [INNER_BATCH, NEED_UNWRAP, INNER_BATCH | NEED_UNWRAP] {
        let written = Record { flag, ..record() };
        let error = messages(&written.bytes()).unwrap_err();
        assert!(error.contains("BatchCQ"), "{error}");
    }
}

#[test]
fn properties_that_are_not_text_are_read_as_java_reads_them() {
    let written = Record {
        properties: b"a\x01\xFF\x02k\x01v\x02".to_vec(),
        ..record()
    };
    let read = written.read();
    assert_eq!(read.properties.get("a"), Some("\u{FFFD}"));
    assert_eq!(read.properties.get("k"), Some("v"));
    assert_eq!(&read.body[..], b"body");
}
