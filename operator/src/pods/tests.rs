use super::*;
use crate::certificate::tests::secret;
use crate::served;
use axum::body::Body;
use axum::http::StatusCode as Code;
use axum::http::header::LOCATION;
use axum::routing::get;
use axum::{Json, Router};
use futures::stream;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use keylane_consumer::program::tls::TlsListener;
use rustls::ServerConfig;
use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio::net::TcpListener;

const SERVER: &str = "orders-keylane.shop.svc";
const ADDRESS: &str = "127.0.0.1";

/// A client of a pod that answers so, over TLS as pods do.
async fn client_of(pod: Router) -> PodClient {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let secret = secret(&access::new([7; 32], SERVER, today).unwrap());
    let (chain, key) = served::pair(&secret).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind((ADDRESS, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let listener = TlsListener::new(listener, move || config.clone()).unwrap();
    tokio::spawn(async move { axum::serve(listener, pod).await });
    let access = Access::of(&secret, SERVER).unwrap();
    PodClient {
        port,
        ..PodClient::new(&access).unwrap()
    }
}

/// What a pod says of itself that answers so, or why it is unknown.
async fn stats_of(pod: Router) -> Result<Stats, String> {
    let client = client_of(pod).await;
    let mut stats = client.stats(&[ADDRESS.to_owned()]).await;
    stats.remove(0).map_err(|error| error.to_string())
}

/// The text of stats with blanks behind it, so that it has this many bytes.
fn padded(bytes: usize) -> String {
    let mut text = serde_json::to_string(&Stats::default()).unwrap();
    text.extend(std::iter::repeat_n(' ', bytes - text.len()));
    text
}

fn stats(answer: impl Fn() -> Body + Clone + Send + Sync + 'static) -> Router {
    Router::new().route("/v1/stats", get(move || async move { answer() }))
}

#[tokio::test]
async fn an_answer_is_read_up_to_the_bound_and_not_a_byte_further() {
    let whole = padded(LARGEST_ANSWER);
    let known = stats_of(stats(move || Body::from(whole.clone()))).await;
    assert_eq!(known.unwrap().queues.len(), 0);
    let larger = padded(LARGEST_ANSWER + 1);
    let said = stats_of(stats(move || Body::from(larger.clone()))).await;
    let said = said.unwrap_err();
    assert!(said.contains("at most 4194304 bytes"), "{said}");
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let endless = || {
        let chunk = Bytes::from_static(&[b' '; 1 << 16]);
        Body::from_stream(stream::repeat_with(move || {
            Ok::<_, Infallible>(chunk.clone())
        }))
    };
    let start = Instant::now();
    let said = stats_of(stats(endless)).await.unwrap_err();
    assert!(said.contains("at most 4194304 bytes"), "{said}");
    assert!(start.elapsed() < 5 * TIMEOUT, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_pod_that_does_not_answer_in_time_is_unknown() {
    let silent = Router::new().route("/v1/stats", get(async || pending::<Code>().await));
    // It begins to answer, and goes on too slowly.
    let slow = stats(|| {
        let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{"))]);
        Body::from_stream(futures::StreamExt::chain(first, stream::pending()))
    });
    for pod in [silent, slow] {
        let start = Instant::now();
        let said = stats_of(pod).await.unwrap_err();
        assert!(said.contains("stats not answered within 1s"), "{said}");
        let passed = start.elapsed();
        assert!(passed >= TIMEOUT && passed < 5 * TIMEOUT, "{passed:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let code = Code::from_u16(status).unwrap();
        let followed = Arc::new(AtomicUsize::new(0));
        let count = followed.clone();
        let pod = Router::new()
            .route(
                "/v1/stats",
                get(async move || (code, [(LOCATION, "/v1/elsewhere")])),
            )
            .route(
                "/v1/elsewhere",
                get(move || {
                    count.fetch_add(1, Ordering::Relaxed);
                    async { Json(Stats::default()) }
                }),
            );
        let said = stats_of(pod).await.unwrap_err();
        assert!(said.contains(&format!("stats refused: {status}")), "{said}");
        assert_eq!(followed.load(Ordering::Relaxed), 0, "{status}");
    }
}
