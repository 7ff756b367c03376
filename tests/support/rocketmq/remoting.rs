//! RocketMQ's remoting protocol, as much of it as tests need: requests with a JSON header over one
//! connection, many at a time, answers matched by number.
//!
//! Frame: length of the rest (4 bytes, big endian), encoding (1 byte, 0 for JSON) and header length
//! (3 bytes), header, body. Source: `RemotingCommand` of Apache RocketMQ 5.3.3.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::door::{Door, Stream};
use super::error::{Result, RocketMqError};

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const LONGEST_FRAME: usize = 32 * 1024 * 1024;
/// The number RocketMQ gives to version 5.3.3; servers answer older clients differently.
const CLIENT_VERSION: i32 = 479;

/// A request's named values.
pub(super) type Fields = HashMap<&'static str, String>;

/// A server's answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// 0 is success.
    pub(super) code: i32,
    /// The server's words, often empty.
    pub(super) remark: String,
    /// Named values.
    pub(super) fields: HashMap<String, String>,
    /// The body, often empty.
    pub(super) body: Bytes,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestHeader<'a> {
    code: i32,
    language: &'static str,
    version: i32,
    opaque: i32,
    flag: i32,
    ext_fields: &'a Fields,
    #[serde(rename = "serializeTypeCurrentRPC")]
    serialize_type: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerHeader {
    code: i32,
    opaque: i32,
    #[serde(default)]
    flag: i32,
    #[serde(default)]
    remark: Option<String>,
    #[serde(default)]
    ext_fields: Option<HashMap<String, String>>,
}

type Waiting = Arc<Mutex<Option<HashMap<i32, oneshot::Sender<Answer>>>>>;

type Reader = BufReader<ReadHalf<Box<dyn Stream>>>;
type Writer = WriteHalf<Box<dyn Stream>>;

/// A connection to a name server or broker. It belongs to the runtime it was opened in.
pub(super) struct Connection {
    address: String,
    door: Door,
    writer: tokio::sync::Mutex<Writer>,
    /// `None` once the connection is gone.
    waiting: Waiting,
    number: AtomicI32,
    reader: JoinHandle<()>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Connection({})", self.address)
    }
}

impl Connection {
    /// Connects within 3 s.
    pub(super) async fn open(address: &str, door: &Door) -> Result<Self> {
        let failed = |reason: String| RocketMqError::Connection {
            address: address.to_owned(),
            reason,
        };
        let stream = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address))
            .await
            .map_err(|_| failed(format!("not connected within {CONNECT_LIMIT:?}")))?
            .map_err(|error| failed(error.to_string()))?;
        stream
            .set_nodelay(true)
            .map_err(|error| failed(error.to_string()))?;
        let stream = tokio::time::timeout(CONNECT_LIMIT, door.enter(stream))
            .await
            .map_err(|_| failed(format!("no TLS connection within {CONNECT_LIMIT:?}")))?
            .map_err(|error| failed(error.to_string()))?;
        let (input, output) = tokio::io::split(stream);
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let reader = tokio::spawn(read_answers(input, Arc::clone(&waiting)));
        Ok(Self {
            address: address.to_owned(),
            door: door.clone(),
            writer: tokio::sync::Mutex::new(output),
            waiting,
            number: AtomicI32::new(1),
            reader,
        })
    }

    /// Sends a request and waits at most 10 s for its answer, whatever that says.
    pub(super) async fn ask(&self, code: i32, fields: &Fields, body: &[u8]) -> Result<Answer> {
        let opaque = self.number.fetch_add(1, Ordering::Relaxed);
        let frame = encode(code, opaque, &self.door.sign(fields, body), body);
        let (reply, answer) = oneshot::channel();
        lock(&self.waiting)
            .as_mut()
            .ok_or_else(|| self.broken("closed by the server"))?
            .insert(opaque, reply);
        let exchange = async {
            let mut writer = self.writer.lock().await;
            writer
                .write_all(&frame)
                .await
                .map_err(|error| self.broken(&error.to_string()))?;
            writer
                .flush()
                .await
                .map_err(|error| self.broken(&error.to_string()))?;
            drop(writer);
            answer
                .await
                .map_err(|_| self.broken("closed by the server before it answered"))
        };
        let result = tokio::time::timeout(ANSWER_LIMIT, exchange).await;
        if let Some(waiting) = lock(&self.waiting).as_mut() {
            waiting.remove(&opaque);
        }
        result.unwrap_or_else(|_| {
            Err(RocketMqError::NoAnswer {
                address: self.address.clone(),
                code,
                limit: ANSWER_LIMIT,
            })
        })
    }

    /// Sends a request and gives its answer only if that is a success.
    pub(super) async fn request(&self, code: i32, fields: &Fields, body: &[u8]) -> Result<Answer> {
        let answer = self.ask(code, fields, body).await?;
        if answer.code == 0 {
            return Ok(answer);
        }
        Err(RocketMqError::Refused {
            address: self.address.clone(),
            request: code,
            code: answer.code,
            remark: answer.remark,
        })
    }

    /// The server's address.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    fn broken(&self, reason: &str) -> RocketMqError {
        RocketMqError::Connection {
            address: self.address.clone(),
            reason: reason.to_owned(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn lock(
    waiting: &Waiting,
) -> std::sync::MutexGuard<'_, Option<HashMap<i32, oneshot::Sender<Answer>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encode(code: i32, opaque: i32, fields: &Fields, body: &[u8]) -> Bytes {
    let header = serde_json::to_vec(&RequestHeader {
        code,
        language: "RUST",
        version: CLIENT_VERSION,
        opaque,
        flag: 0,
        ext_fields: fields,
        serialize_type: "JSON",
    })
    .unwrap_or_default();
    let mut frame = BytesMut::with_capacity(8 + header.len() + body.len());
    frame.put_u32(u32::try_from(4 + header.len() + body.len()).unwrap_or(u32::MAX));
    frame.put_u32(u32::try_from(header.len()).unwrap_or(u32::MAX) & 0x00ff_ffff);
    frame.put_slice(&header);
    frame.put_slice(body);
    frame.freeze()
}

/// Hands answers to those who wait until the connection ends; then nobody waits in vain.
async fn read_answers(input: ReadHalf<Box<dyn Stream>>, waiting: Waiting) {
    let mut input = BufReader::with_capacity(64 * 1024, input);
    while let Some((opaque, answer)) = read_frame(&mut input).await {
        let reply = lock(&waiting).as_mut().and_then(|map| map.remove(&opaque));
        // A server's own request (a changed consumer list, say) is nobody's answer.
        if let (Some(reply), Some(answer)) = (reply, answer) {
            let _gave_up = reply.send(answer);
        }
    }
    lock(&waiting).take();
}

async fn read_frame(input: &mut Reader) -> Option<(i32, Option<Answer>)> {
    let length = input.read_u32().await.ok()? as usize;
    if !(4..=LONGEST_FRAME).contains(&length) {
        return None;
    }
    let mut frame = BytesMut::zeroed(length);
    input.read_exact(&mut frame).await.ok()?;
    let mut frame = frame.freeze();
    let header_length = u32::from_be_bytes(frame.split_to(4).as_ref().try_into().ok()?);
    let header_length = (header_length & 0x00ff_ffff) as usize;
    if header_length > frame.len() {
        return None;
    }
    let header: AnswerHeader = serde_json::from_slice(&frame.split_to(header_length)).ok()?;
    let is_answer = header.flag & 1 == 1;
    let answer = is_answer.then(|| Answer {
        code: header.code,
        remark: header.remark.unwrap_or_default(),
        fields: header.ext_fields.unwrap_or_default(),
        body: frame,
    });
    Some((header.opaque, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_counts_everything_after_its_first_four_bytes() {
        let frame = encode(105, 7, &Fields::from([("topic", "T".to_owned())]), b"body");
        let length = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
        assert_eq!(length, frame.len() - 4);
        let header_length = u32::from_be_bytes(frame[4..8].try_into().unwrap()) as usize;
        assert_eq!(&frame[8 + header_length..], b"body");
        let header: serde_json::Value =
            serde_json::from_slice(&frame[8..8 + header_length]).unwrap();
        assert_eq!(header["code"], 105);
        assert_eq!(header["opaque"], 7);
        assert_eq!(header["extFields"]["topic"], "T");
    }

    #[tokio::test]
    async fn a_server_that_hangs_up_fails_the_request_at_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connection = Connection::open(&address, &Door::default()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        drop(server);
        let error = connection.ask(1, &Fields::new(), b"").await.unwrap_err();
        assert!(
            matches!(error, RocketMqError::Connection { .. }),
            "{error:?}"
        );
    }
}
