use super::*;
use calls::LONGER_EVERY;
use std::net::SocketAddr;

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn serve_member(shared: &Shared, member: usize) -> SocketAddr {
    serve(calls::of_process(shared.one(member).unwrap())).await
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn is_idle(at: SocketAddr) -> bool {
    let answer = client().get(format!("http://{at}/idle")).send().await;
    answer.unwrap().status().is_success()
}

/// A call of this offset; the offset says how long it takes.
fn call(at: SocketAddr, offset: u64) -> reqwest::RequestBuilder {
    posted(at, "/events", offset)
}

fn posted(at: SocketAddr, path: &str, offset: u64) -> reqwest::RequestBuilder {
    client()
        .post(format!("http://{at}{path}"))
        .header("ce-source", "rocketmq://b/T/0")
        .header("ce-partitionkey", "k")
        .header("ce-sequence", offset.to_string())
        .header("ce-deadline", "2026-01-01T00:00:00Z")
}

async fn until_running(shared: &Shared, running: u64) {
    while lock(&shared.record).count().running != running {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_handler_is_idle_only_when_the_call_is_over_whose_caller_is_gone() {
    let shared = Shared::new(2);
    let at = serve_member(&shared, 0).await;
    let other = serve_member(&shared, 1).await;
    assert!(is_idle(at).await);
    let caller = tokio::spawn(call(at, LONGER_EVERY).send());
    until_running(&shared, 1).await;
    caller.abort();
    assert!(!is_idle(at).await && is_idle(other).await);
    until_running(&shared, 0).await;
    while !is_idle(at).await {
        tokio::task::yield_now().await;
    }
    assert!(lock(&shared.record).since(0)[0].handled().is_some());
}

#[tokio::test]
async fn a_dead_handler_ends_its_calls_and_begins_none_until_it_lives_again() {
    let shared = Shared::new(1);
    let at = serve_member(&shared, 0).await;
    let caller = tokio::spawn(call(at, LONGER_EVERY).send());
    until_running(&shared, 1).await;
    die(State(shared.clone()), Path(0)).await;
    let answer = caller.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!call(at, 1).send().await.unwrap().status().is_success());
    let record = lock(&shared.record).since(0);
    assert_eq!(record.len(), 1);
    assert_eq!(record[0].handled(), None);
    live(State(shared.clone()), Path(0)).await;
    assert!(call(at, 1).send().await.unwrap().status().is_success());
}

#[tokio::test]
async fn a_call_of_a_pod_ends_with_the_handler_that_handed_it_on_and_is_not_handled() {
    let shared = Shared::new(0);
    let at = serve(of_pods(shared.clone())).await;
    let Json(asked) = member(State(shared.clone()), Path("a".into())).await;
    let of = |pod, offset| posted(at, &format!("/pods/{pod}/events"), offset).send();
    assert!(of("b", 1).await.unwrap().status().is_success());
    let caller = tokio::spawn(of("a", LONGER_EVERY));
    until_running(&shared, 1).await;
    caller.abort();
    until_running(&shared, 0).await;
    let record = lock(&shared.record).since(0);
    let members: Vec<usize> = record.iter().map(|call| call.member).collect();
    assert_eq!(members, [1, asked]);
    assert!(record[0].handled().is_some());
    assert!(record[1].end.is_some() && record[1].handled().is_none());
    assert_eq!(lock(&shared.record).count().handled, 1);
}
