//! The dead letters of a group: the operator asks its brokers, with its own way to them and the rights that the
//! roles of the API server give to who asks.

use super::api::{GROUP, VERSION, failure, passed_on};
use super::pods;
use crate::broker::letters::{LetterId, Letters, LettersError, Listing, Replay};
use crate::broker::{self, SecretError};
use crate::crd::OrderedConsumer;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use keylane_consumer::contract::admin;
use kube::{Api, Client};
use serde::Serialize;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::info;

/// The resource.
pub(super) const RESOURCE: &str = "deadletters";
/// Questions at a time; each has connections to brokers of its own.
const AT_ONCE: usize = 4;
/// Longest wait for its turn.
const TURN: Duration = Duration::from_secs(3);
/// Longest time of a question after that: `kubectl keylane` gives up a little later.
const LIMIT: Duration = Duration::from_secs(11);
/// Letters that are told at once.
const USUAL: usize = 100;
const MOST: usize = 1_000;

static TURNS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(AT_ONCE));

/// Where the dead letters of an OrderedConsumer's group are.
pub fn path(namespace: &str, name: &str) -> String {
    format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{RESOURCE}/{name}")
}

pub(super) fn router() -> Router<Client> {
    let of_one = path("{namespace}", "{name}");
    Router::new()
        .route(&of_one, get(read))
        .route(&format!("{of_one}/replay"), post(replay))
}

/// What is asked for in the query.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    all: bool,
    after: Option<LetterId>,
    limit: Option<usize>,
    id: Option<LetterId>,
}

impl Asked {
    fn parse(query: &str) -> Result<Self, Failed> {
        let mut asked = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = |reason: String| Failed::Wrong(format!("{name}: {reason}"));
            let id = || {
                let id: Result<LetterId, _> = value.parse();
                id.map(Some).map_err(|error| wrong(error.to_string()))
            };
            match &*name {
                "all" => asked.all = value == "true",
                "after" => asked.after = id()?,
                "id" => asked.id = id()?,
                "limit" => {
                    let limit = value
                        .parse()
                        .ok()
                        .filter(|limit| (1..=MOST).contains(limit));
                    let limit = limit.ok_or_else(|| {
                        wrong(format!("{value:?} is no number between 1 and {MOST}"))
                    })?;
                    asked.limit = Some(limit);
                }
                _ => {
                    return Err(Failed::Wrong(format!(
                        "{name} cannot be asked for; all, after, limit and id can"
                    )));
                }
            }
        }
        Ok(asked)
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Letters(#[from] LettersError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{0}")]
    Wrong(String),
    #[error("{0}")]
    Gone(String),
    #[error(
        "the brokers did not tell within {LIMIT:?}, or too many ask at once; kubectl keylane check tells whether they answer"
    )]
    Late,
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let (code, reason) = match &self {
            Self::Api(kube::Error::Api(status)) => return passed_on(status),
            Self::Letters(LettersError::Busy(_)) => (StatusCode::CONFLICT, "Conflict"),
            Self::Letters(LettersError::Asked(_)) | Self::Wrong(_) => {
                (StatusCode::BAD_REQUEST, "BadRequest")
            }
            Self::Gone(_) => (StatusCode::GONE, "Gone"),
            Self::Late => (StatusCode::GATEWAY_TIMEOUT, "Timeout"),
            Self::Api(_) | Self::Letters(_) | Self::Secret(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "InternalError")
            }
        };
        failure(code, reason, &self.to_string())
    }
}

/// What is told, and whose it is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<T> {
    api_version: String,
    kind: &'static str,
    metadata: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    content: T,
}

fn told<T: Serialize>((namespace, name): (String, String), content: T) -> Response {
    let told = Told {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: "DeadLetters",
        metadata: BTreeMap::from([("namespace", namespace), ("name", name)]),
        content,
    };
    Json(told).into_response()
}

async fn read(
    State(client): State<Client>,
    Path(of): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failed> {
    let asked = Asked::parse(&query.unwrap_or_default())?;
    let most = asked.limit.unwrap_or(USUAL);
    let question = async {
        let letters = connect(&client, &of).await?;
        let known = pods(&client, &of).await;
        let Some(id) = asked.id else {
            let mut listing = letters.list(asked.all, asked.after.as_ref(), most).await?;
            explain(&mut listing, &known);
            return Ok(told(of, listing));
        };
        let Some(mut content) = letters.content(&id).await? else {
            return Err(Failed::Gone(format!(
                "there is no dead letter {id}: it may have expired; kubectl keylane dlq list --all names those there are"
            )));
        };
        let mut one = Listing {
            letters: vec![content.letter],
            ..Listing::default()
        };
        explain(&mut one, &known);
        content.letter = one.letters.pop().unwrap_or_default();
        Ok(told(of, content))
    };
    let bounded = async { timeout(LIMIT, question).await.unwrap_or(Err(Failed::Late)) };
    in_turn(bounded).await
}

/// It goes on when nobody waits for it any more: what was sent is to be noted. It ends by itself.
async fn replay(
    State(client): State<Client>,
    Path(of): Path<(String, String)>,
    headers: HeaderMap,
    Json(what): Json<Replay>,
) -> Result<Response, Failed> {
    let user = headers
        .get("x-remote-user")
        .and_then(|user| user.to_str().ok());
    let user = user.unwrap_or("somebody").to_owned();
    let work = async move {
        let letters = connect(&client, &of).await?;
        let replayed = letters.replay(&what).await?;
        if !what.dry_run {
            info!(
                "{user} had {} dead letters of {}/{} sent again, {} are held",
                replayed.sent.len(),
                of.0,
                of.1,
                replayed.held_count
            );
        }
        Ok(told(of, replayed))
    };
    let begun = tokio::spawn(in_turn(work));
    begun.await.unwrap_or(Err(Failed::Late))
}

/// Does it once it is its turn.
async fn in_turn(work: impl Future<Output = Result<Response, Failed>>) -> Result<Response, Failed> {
    let Ok(Ok(_turn)) = timeout(TURN, TURNS.acquire()).await else {
        return Err(Failed::Late);
    };
    work.await
}

async fn connect(client: &Client, (namespace, name): &(String, String)) -> Result<Letters, Failed> {
    let consumers: Api<OrderedConsumer> = Api::namespaced(client.clone(), namespace);
    let consumer = consumers.get(name).await?;
    let spec = &consumer.spec.consumer;
    let access = broker::access(client, namespace, spec).await?;
    Ok(Letters::connect(spec, access).await?)
}

/// What pods remember of letters, by the id of the message and its place.
type Known = BTreeMap<(String, String, u64), admin::DeadLetter>;

/// Pods that do not answer remember nothing.
async fn pods(client: &Client, (namespace, name): &(String, String)) -> Known {
    let Ok(stats) = pods::ask(client, namespace, name).await else {
        return Known::new();
    };
    let stats = stats.pods.into_iter().filter_map(|pod| pod.stats);
    let letters = stats.flat_map(|stats| stats.dead_letters);
    letters
        .map(|of| ((of.id.clone(), of.queue.clone(), of.offset), of))
        .collect()
}

fn explain(listing: &mut Listing, known: &Known) {
    for letter in &mut listing.letters {
        let (Some(queue), Some(offset)) = (&letter.queue, letter.offset) else {
            continue;
        };
        let found = known.get(&(letter.message_id.clone(), queue.clone(), offset));
        letter.attempts = found.map(|of| of.attempts);
        letter.last_error = found.map(|of| of.last_error.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::letters::DeadLetter;

    #[test]
    fn what_is_asked_for_is_read_or_said_to_be_wrong() {
        let id: LetterId = "b-1/0/7".parse().unwrap();
        let asked = |query| Asked::parse(query).unwrap();
        assert_eq!(asked(""), Asked::default());
        let wanted = Asked {
            all: true,
            after: Some(id.clone()),
            limit: Some(1_000),
            id: None,
        };
        assert_eq!(asked("all=true&after=b-1/0/7&limit=1000"), wanted);
        assert_eq!(asked("id=b-1%2F0%2F7").id, Some(id));
        for (query, says) in [
            ("id=7", "such as broker-a/0/17"),
            ("limit=0", "\"0\" is no number between 1 and 1000"),
            ("limit=1001", "between 1 and 1000"),
            ("key=a", "key cannot be asked for"),
        ] {
            let error = Asked::parse(query).unwrap_err().to_string();
            assert!(error.contains(says), "{query}: {error}");
        }
    }

    #[test]
    fn why_a_message_was_given_up_is_told_where_a_pod_remembers_it_and_else_not_known() {
        let letter = |offset| DeadLetter {
            message_id: "I".into(),
            queue: Some("b/1".into()),
            offset,
            ..DeadLetter::default()
        };
        let mut listing = Listing {
            letters: vec![letter(Some(7)), letter(Some(8)), letter(None)],
            ..Listing::default()
        };
        let remembered = admin::DeadLetter {
            attempts: 16,
            last_error: "500 no stock".into(),
            ..admin::DeadLetter::default()
        };
        let known = Known::from([(("I".to_owned(), "b/1".to_owned(), 7), remembered)]);
        explain(&mut listing, &known);
        let told: Vec<_> = listing.letters.iter().map(|of| of.attempts).collect();
        assert_eq!(told, [Some(16), None, None]);
        assert_eq!(
            listing.letters[0].last_error.as_deref(),
            Some("500 no stock")
        );
    }
}
