//! Handlers in a process of their own: servers that do what the Rust function does, and nothing else.

use crate::count::{self, Count, Place};
use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::serve::ListenerExt;
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use keylane_consumer::handler::grpc::proto;
use proto::handler_server::{Handler, HandlerServer};
use std::pin::Pin;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Responses that wait to be sent.
const WAITING: usize = 64;
/// Most results of one response.
const MOST_RESULTS: usize = 256;

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[arg(long, value_enum)]
    protocol: Protocol,
    #[arg(long)]
    port: u16,
    #[command(flatten)]
    count: count::Expected,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
}

/// Serves until everything is handled, and prints what was measured.
pub async fn run(options: Options) -> Result<()> {
    let count = Arc::new(Count::new(options.count));
    let listener = TcpListener::bind(("127.0.0.1", options.port)).await?;
    // Answers are small: without this they wait for acknowledgements.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let router = match options.protocol {
        // Whichever version the client begins with.
        Protocol::Http | Protocol::Http2 => Router::new()
            .route("/", post(called))
            .with_state(count.clone()),
        Protocol::Grpc => {
            let service = HandlerServer::new(Grpc(count.clone()));
            Router::new().route_service("/keylane.v1.Handler/{*method}", service)
        }
    };
    tokio::spawn(async move { axum::serve(listener, router).await });
    let printed = count.result().await?;
    println!("{}", serde_json::to_string(&printed)?);
    Ok(())
}

async fn called(State(count): State<Arc<Count>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    match event(&count, &headers, &body).await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

async fn event(count: &Count, headers: &HeaderMap, body: &[u8]) -> Result<()> {
    let text = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.with_context(|| format!("{name} is missing"))
    };
    let (_, queue) = text("ce-source")?.rsplit_once('/').context("ce-source")?;
    let place = Place {
        queue: queue.parse()?,
        key: text("ce-partitionkey")?,
        offset: text("ce-sequence")?.parse()?,
    };
    count.handle(place, body).await
}

struct Grpc(Arc<Count>);

#[tonic::async_trait]
impl Handler for Grpc {
    type HandleStream = Pin<Box<dyn Stream<Item = Result<proto::HandleResponse, Status>> + Send>>;

    async fn handle(
        &self,
        request: Request<Streaming<proto::HandleRequest>>,
    ) -> Result<Response<Self::HandleStream>, Status> {
        let (responses, stream) = mpsc::channel(WAITING);
        tokio::spawn(work(self.0.clone(), request.into_inner(), responses));
        let stream = ReceiverStream::new(stream).map(Ok);
        Ok(Response::new(Box::pin(stream)))
    }
}

/// Handles the calls of a stream side by side; what ends at the same time is told together.
async fn work(
    count: Arc<Count>,
    mut requests: Streaming<proto::HandleRequest>,
    responses: mpsc::Sender<proto::HandleResponse>,
) {
    let (done, mut ended) = mpsc::unbounded_channel();
    let telling = tokio::spawn(async move {
        let mut results = Vec::new();
        // The answer to the hello.
        let mut response = proto::HandleResponse::default();
        while responses.send(response).await.is_ok() {
            if ended.recv_many(&mut results, MOST_RESULTS).await == 0 {
                return;
            }
            response = proto::HandleResponse {
                results: std::mem::take(&mut results),
                ..Default::default()
            };
        }
    });
    while let Ok(Some(request)) = requests.message().await {
        for call in request.calls {
            let mut work = Box::pin(handled(count.clone(), call));
            // Without work there is nothing to do side by side. Nobody listens once the stream broke.
            match (&mut work).now_or_never() {
                Some(result) => drop(done.send(result)),
                None => {
                    let done = done.clone();
                    tokio::spawn(async move { drop(done.send(work.await)) });
                }
            }
        }
    }
    drop(done);
    drop(telling.await);
}

async fn handled(count: Arc<Count>, call: proto::Call) -> proto::Result {
    let mut status = proto::Status::Done;
    for message in &call.messages {
        let place = Place {
            queue: call.queue_id,
            key: call.key.as_deref().unwrap_or_default(),
            offset: message.offset,
        };
        if count.handle(place, &message.body).await.is_err() {
            status = proto::Status::Failed;
        }
    }
    proto::Result {
        call_id: call.id,
        status: status.into(),
        ..Default::default()
    }
}
