//! A TCP relay between one process and one server, so that their connection can be cut for that process
//! alone.
//!
//! A relay rather than network namespaces or packet filters: it needs no privileges and no names of its
//! own in the kernel, leaves nothing behind when the harness is killed, and both kinds of cut are exact:
//! connections that are closed and refused, and connections through which nothing passes.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a relay does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything passes.
    Open,
    /// Connections are closed, new ones refused.
    Closed,
    /// Connections stay, nothing passes.
    Silent,
}

/// Bytes that are replaced in every frame of the server, by as many others.
#[derive(Clone, Debug)]
pub struct Swap {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Swap {
    /// # Panics
    /// If the two differ in length: frames carry their length.
    pub fn new(from: &str, to: &str) -> Self {
        assert_eq!(from.len(), to.len(), "{from} and {to}");
        Self {
            from: from.into(),
            to: to.into(),
        }
    }

    fn apply(&self, frame: &mut [u8]) {
        let mut at = 0;
        while at + self.from.len() <= frame.len() {
            let place = &mut frame[at..at + self.from.len()];
            if place == self.from {
                place.copy_from_slice(&self.to);
            }
            at += 1;
        }
    }
}

/// A relay on a port of 127.0.0.1; ends when dropped.
pub struct Relay {
    port: u16,
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Relays to `target`.
    pub async fn start(target: SocketAddr, swap: Option<Swap>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (mode, modes) = watch::channel(Mode::Open);
        let task = tokio::spawn(serve(listener, port, target, swap, modes));
        Ok(Self { port, mode, task })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what it does, also to connections that are there.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::Closed);
        self.task.abort();
    }
}

type Modes = watch::Receiver<Mode>;

async fn serve(
    listener: TcpListener,
    port: u16,
    target: SocketAddr,
    swap: Option<Swap>,
    mut modes: Modes,
) {
    let mut listening = Some(listener);
    let of_connections = modes.clone();
    loop {
        match &listening {
            Some(listener) => tokio::select! {
                accepted = listener.accept() => if let Ok((client, _)) = accepted {
                    tokio::spawn(pass(client, target, swap.clone(), of_connections.clone()));
                },
                _ = modes.wait_for(|mode| *mode == Mode::Closed) => listening = None,
            },
            None => {
                if modes.wait_for(|mode| *mode != Mode::Closed).await.is_err() {
                    return;
                }
                match TcpListener::bind(("127.0.0.1", port)).await {
                    Ok(listener) => listening = Some(listener),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        }
    }
}

async fn pass(client: TcpStream, target: SocketAddr, swap: Option<Swap>, mut modes: Modes) {
    if modes.wait_for(|mode| *mode != Mode::Silent).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    for stream in [&client, &server] {
        let _best_effort = stream.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = copy(from_client, to_server, modes.clone());
    let back = async {
        match &swap {
            None => copy(from_server, to_client, modes.clone()).await,
            Some(swap) => copy_frames(from_server, to_client, swap, modes.clone()).await,
        }
    };
    let mut closing = modes.clone();
    tokio::select! {
        _ = there => {}
        _ = back => {}
        _ = closing.wait_for(|mode| *mode == Mode::Closed) => {}
    }
}

async fn opened(modes: &mut Modes) -> Option<()> {
    modes.wait_for(|mode| *mode == Mode::Open).await.ok()?;
    Some(())
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut modes: Modes) -> Option<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        opened(&mut modes).await?;
        to.write_all(&buffer[..read]).await.ok()?;
    }
}

/// Copies frames of RocketMQ's remoting protocol: four bytes of length, then as much.
async fn copy_frames(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    swap: &Swap,
    mut modes: Modes,
) -> Option<()> {
    loop {
        let length = from.read_u32().await.ok()?;
        let mut frame = vec![0; length as usize];
        from.read_exact(&mut frame).await.ok()?;
        swap.apply(&mut frame);
        opened(&mut modes).await?;
        to.write_u32(length).await.ok()?;
        to.write_all(&frame).await.ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut from, mut to) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
            }
        });
        address
    }

    async fn says(stream: &mut TcpStream, text: &[u8]) -> Option<Vec<u8>> {
        stream.write_all(text).await.ok()?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await.ok()?;
        Some(answer)
    }

    #[tokio::test]
    async fn closed_refuses_and_open_takes_connections_again_at_the_same_port() {
        let relay = Relay::start(echo().await, None).await.unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", relay.port()))
            .await
            .unwrap();
        assert_eq!(says(&mut stream, b"one").await.unwrap(), b"one");
        relay.set(Mode::Closed);
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
        while TcpStream::connect(("127.0.0.1", relay.port()))
            .await
            .is_ok()
        {
            tokio::task::yield_now().await;
        }
        relay.set(Mode::Open);
        let mut stream = loop {
            match TcpStream::connect(("127.0.0.1", relay.port())).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(says(&mut stream, b"two").await.unwrap(), b"two");
    }

    #[tokio::test]
    async fn what_is_said_into_silence_arrives_when_it_ends() {
        let relay = Relay::start(echo().await, None).await.unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", relay.port()))
            .await
            .unwrap();
        relay.set(Mode::Silent);
        let silence = tokio::time::timeout(Duration::from_millis(100), says(&mut stream, b"one"));
        assert!(silence.await.is_err());
        relay.set(Mode::Open);
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"one");
    }

    #[tokio::test]
    async fn an_address_is_replaced_in_frames() {
        let relay = Relay::start(echo().await, Some(Swap::new("a:12", "b:34")))
            .await
            .unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", relay.port()))
            .await
            .unwrap();
        let answer = says(&mut stream, b"\0\0\0\x0axa:12ya:12").await.unwrap();
        assert_eq!(answer, b"\0\0\0\x0axb:34yb:34");
    }
}
