//! Telling consumer processes which pods are gone, as the operator does: each of them all of it, again
//! until it has heard.

use anyhow::{Context as _, Result};
use rand::Rng as _;
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// The token of every process's admin API.
pub const TOKEN: &str = "chaos-is-not-a-secret";
/// How long the operator waits for an answer, and until it tries again.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(1);

/// Where a process can listen for this. Nobody else can get it before the process has it, nor while it is started
/// again: the address is one that nothing else here asks for, other runs neither, and the port is below those that
/// the kernel gives, at all addresses, to who asks for any.
pub fn free_address() -> Result<SocketAddr> {
    let mut random = rand::rng();
    let mut address = || {
        let [high, low] = [random.random_range(1..255), random.random_range(1..255)];
        let port = random.random_range(12_000..32_000_u16);
        SocketAddr::from((Ipv4Addr::new(127, high, 0, low), port))
    };
    let free = (0..20).find_map(|_| TcpListener::bind(address()).ok());
    let free = free.context("no port between 12000 and 32000 is free for an admin API")?;
    Ok(free.local_addr()?)
}

/// Tells the process that listens there, until this is dropped: what is gone already and what will be.
pub fn tell(to: SocketAddr, mut gone: watch::Receiver<Vec<String>>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let url = format!("http://{to}/v1/members/gone");
        let client = reqwest::Client::builder().no_proxy();
        let Ok(client) = client.timeout(ANSWERS_WITHIN).build() else {
            return;
        };
        let mut known = 0;
        loop {
            let news = match gone.wait_for(|pods| pods.len() > known).await {
                Ok(pods) => pods[known..].to_vec(),
                Err(_) => return,
            };
            let body = json!({"pods": news});
            let answer = client.post(&url).bearer_auth(TOKEN).json(&body).send();
            match answer.await.and_then(reqwest::Response::error_for_status) {
                Ok(_) => known += news.len(),
                // Frozen, or not up yet.
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::post;
    use axum::{Json, Router};
    use keylane_consumer::contract::admin::MembersGone;
    use tokio::sync::mpsc;

    async fn hear(
        State(heard): State<mpsc::UnboundedSender<Vec<String>>>,
        headers: HeaderMap,
        Json(gone): Json<MembersGone>,
    ) -> StatusCode {
        let token = format!("Bearer {TOKEN}");
        if headers["authorization"] != token.as_str() {
            return StatusCode::UNAUTHORIZED;
        }
        heard.send(gone.pods).unwrap();
        StatusCode::NO_CONTENT
    }

    #[tokio::test]
    async fn a_process_that_comes_later_hears_everything_and_each_news_once() {
        let listener = tokio::net::TcpListener::bind(free_address().unwrap());
        let listener = listener.await.unwrap();
        let (gone, told) = watch::channel(vec!["a".to_owned()]);
        let _telling = tell(listener.local_addr().unwrap(), told);
        // Not up yet when it is told first.
        drop(listener.accept().await.unwrap());
        let (heard, mut hears) = mpsc::unbounded_channel();
        let router = Router::new()
            .route("/v1/members/gone", post(hear))
            .with_state(heard);
        tokio::spawn(async move { axum::serve(listener, router).await });
        assert_eq!(hears.recv().await.unwrap(), ["a"]);
        gone.send_modify(|pods| pods.push("b".to_owned()));
        assert_eq!(hears.recv().await.unwrap(), ["b"]);
    }
}
