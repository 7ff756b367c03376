//! What each of the three listeners answers, and to whom: the routers as they are served.

use super::tests::{Made, make};
use super::{REQUESTS_AT_ONCE, REQUESTS_PER_SECOND, admin, metrics, probes};
use crate::exec::{Control, Measures};
use crate::metrics::Metrics;
use axum::Router;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// That of [`make`].
const TOKEN: &str = "0123456789abcdef";
const PROBES: &[(&str, &str)] = &[("GET", "/livez"), ("GET", "/readyz")];
const METRICS: &[(&str, &str)] = &[("GET", "/metrics")];
const ADMIN: &[(&str, &str)] = &[
    ("GET", "/v1/stats"),
    ("GET", "/v1/lanes"),
    ("PUT", "/v1/lanes"),
    ("POST", "/v1/members/gone"),
    ("POST", "/v1/drain"),
    ("POST", "/v1/offsets/reset"),
];

async fn served(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn request((method, path): (&str, &str), authorization: Option<&str>, more: &str) -> String {
    let authorization = authorization.map(|value| format!("authorization: {value}\r\n"));
    let authorization = authorization.unwrap_or_default();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: executor\r\ncontent-length: 0\r\n{authorization}{more}\r\n"
    )
}

/// The answers to requests of one connection, as text.
async fn answers(address: SocketAddr, requests: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    answers
}

/// The status of the answer to one request.
async fn status(address: SocketAddr, what: (&str, &str), authorization: Option<&str>) -> u16 {
    let request = request(what, authorization, "connection: close\r\n");
    let answer = answers(address, &request).await;
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The same request often, all of one connection at once, so that no time passes between them.
async fn burst(address: SocketAddr, times: u32, authorization: Option<&str>) -> String {
    let what = ("GET", "/v1/stats");
    let all = (1..times).map(|_| request(what, authorization, ""));
    let last = request(what, authorization, "connection: close\r\n");
    let all: String = all.chain([last]).collect();
    answers(address, &all).await
}

fn count(answers: &str, status: &str) -> u32 {
    answers.matches(&format!("HTTP/1.1 {status} ")).count() as u32
}

#[tokio::test]
async fn each_listener_has_its_own_paths_and_none_of_the_others() {
    let Made { access, .. } = make("executor.test");
    let control = Control::ended;
    let measured = Metrics::new(Measures::new().unwrap());
    let bearer = format!("Bearer {TOKEN}");
    for (name, router, own, others) in [
        ("probes", probes(control()), PROBES, [METRICS, ADMIN]),
        (
            "metrics",
            metrics(control(), measured),
            METRICS,
            [PROBES, ADMIN],
        ),
        ("admin", admin(control(), access), ADMIN, [PROBES, METRICS]),
    ] {
        let address = served(router).await;
        for what in own {
            let status = status(address, *what, Some(bearer.as_str())).await;
            assert!(
                ![401, 404, 405].contains(&status),
                "{name} {what:?}: {status}"
            );
        }
        for what in others.into_iter().flatten() {
            let status = status(address, *what, Some(bearer.as_str())).await;
            assert_eq!(status, 404, "{name} {what:?}");
        }
    }
}

#[tokio::test]
async fn the_admin_api_says_nothing_without_the_token_and_that_uses_nothing_up() {
    let Made { access, .. } = make("executor.test");
    let address = served(admin(Control::ended(), access)).await;
    let (basic, short) = (format!("Basic {TOKEN}"), format!("Bearer {}", &TOKEN[1..]));
    let wrong = [
        None,
        Some(""),
        Some(TOKEN),
        Some("Bearer "),
        Some(basic.as_str()),
        Some(short.as_str()),
    ];
    for authorization in wrong {
        // Not even whether there is such a path.
        for what in ADMIN.iter().chain(PROBES).chain(METRICS) {
            let status = status(address, *what, authorization).await;
            assert_eq!(status, 401, "{what:?} with {authorization:?}");
        }
    }
    let times = 3 * REQUESTS_AT_ONCE;
    let refused = burst(address, times, Some(short.as_str())).await;
    assert_eq!(count(&refused, "401"), times);
    let bearer = format!("Bearer {TOKEN}");
    let status = status(address, ("GET", "/v1/stats"), Some(bearer.as_str())).await;
    assert_eq!(status, 503, "the executor has ended");
}

#[tokio::test]
async fn requests_beyond_the_limit_are_to_come_again_later() {
    let Made { access, .. } = make("executor.test");
    let address = served(admin(Control::ended(), access)).await;
    let (times, start) = (4 * REQUESTS_AT_ONCE, Instant::now());
    let bearer = format!("Bearer {TOKEN}");
    let answers = burst(address, times, Some(bearer.as_str())).await;
    let passed = start.elapsed().as_secs_f64();
    let (let_in, later) = (count(&answers, "503"), count(&answers, "429"));
    assert_eq!(let_in + later, times, "{answers}");
    let most = f64::from(REQUESTS_AT_ONCE) + passed * f64::from(REQUESTS_PER_SECOND);
    assert!(
        let_in >= REQUESTS_AT_ONCE && f64::from(let_in) <= most,
        "{let_in} in {passed} s"
    );
    assert!(later > 0, "{let_in} in {passed} s");
    assert!(answers.contains("retry-after: 1\r\n"), "{answers}");
    assert!(
        answers.contains("more than 50 requests a second"),
        "{answers}"
    );
}
