//! What each of the operator's three listeners answers: the routers as they are served.

use super::{metrics, probes};
use crate::live;
use crate::metrics::Metrics;
use axum::Router;
use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The status of the answer to each request.
async fn statuses(router: Router, requests: &[String]) -> Vec<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut statuses = Vec::new();
    for request in requests {
        let text = format!(
            "{request} HTTP/1.1\r\nhost: operator\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        statuses.push(answer.split(' ').nth(1).unwrap().parse().unwrap());
    }
    statuses
}

#[tokio::test]
async fn each_listener_has_its_own_paths_and_none_of_the_others() {
    let registry = Registry::new();
    let measured = Metrics::new(&registry).unwrap();
    // Nothing that is asked here is asked of an API server.
    let client = kube::Client::new(Router::<()>::new(), "shop");
    let probing = ["GET /livez", "GET /readyz"].map(str::to_owned);
    let reading = ["GET /metrics".to_owned()];
    let asking = [
        format!("GET /apis/{}/{}", live::GROUP, live::VERSION),
        format!("GET {}", live::path("shop", "orders")),
        format!("GET {}", live::letters_path("shop", "orders")),
        format!("POST {}", live::groups_path("shop")),
    ];
    let all = [&probing[..], &reading[..], &asking[..]];
    for (own, name, router) in [
        (0, "probes", probes(measured)),
        (1, "metrics", metrics(registry)),
        (2, "live", live::router(client)),
    ] {
        for (index, requests) in all.iter().enumerate() {
            let found = statuses(router.clone(), requests).await;
            for (request, status) in requests.iter().zip(found) {
                if index != own {
                    assert_eq!(status, 404, "{name}: {request}");
                } else if !request.contains("/namespaces/") {
                    assert!([200, 503].contains(&status), "{name}: {request}: {status}");
                }
            }
        }
    }
}
