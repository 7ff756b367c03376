//! A broker that lets only some clients in: ACL 2.0, and TLS in enforcing mode with certificates of clients
//! wanted. What is done to it is done by RocketMQ's own tool.

use crate::world::{Handler, Running, SOON, World};
use keylane_consumer::contract::spec::ConsumerSpec;
use keylane_consumer::exec::Control;
use keylane_consumer::source::rocketmq::{Access, Part, Parts};
use keylane_consumer::{Consumer, Delivery, Failure, Tls};
use keylane_tests::rocketmq::{Authority, Broker, Message, Secured};
use keylane_tests::wait;
use serde_json::json;
use std::time::Duration;
use tokio::sync::OnceCell;

const PASSWORD: &str = "a-password-of-a-test";

/// A broker that all of these tests share, and who issued its certificates.
async fn broker() -> &'static (Broker, Authority) {
    static SHARED: OnceCell<(Broker, Authority)> = OnceCell::const_new();
    let start = || async {
        let authority = Authority::new("of the brokers");
        let secured = Secured {
            acl: true,
            tls: Some(authority.clone()),
            asks_clients: true,
        };
        let broker = Broker::start_secured(&secured).await.unwrap();
        (broker, authority)
    };
    SHARED.get_or_init(start).await
}

/// A topic, a group, and a user who may no more than a consumer of the two needs.
struct Place {
    world: World,
    user: String,
    authority: &'static Authority,
}

impl Place {
    async fn new(name: &str, queues: u32) -> Self {
        let (broker, authority) = broker().await;
        let place = Self {
            world: World::at(broker, name, queues).await,
            user: format!("user-{name}"),
            authority,
        };
        place.permit(&place.user, PASSWORD).await;
        place
    }

    async fn mqadmin(&self, args: &[&str]) {
        self.world.broker().mqadmin(args).await.unwrap();
    }

    async fn permit(&self, user: &str, password: &str) {
        self.permit_for(user, password, false).await;
    }

    /// `retries`: for mode None.
    async fn permit_for(&self, user: &str, password: &str, retries: bool) {
        let World { topic, group, .. } = &self.world;
        let broker = self.world.broker();
        let permitted = broker.permit(user, password, (topic, group), retries);
        permitted.await.unwrap();
    }

    async fn password(&self, password: &str) {
        self.mqadmin(&[
            "updateUser",
            "-c",
            "keylane",
            "-u",
            &self.user,
            "-p",
            password,
        ])
        .await;
    }

    fn spec(&self, port: u16, server_name: Option<&str>) -> ConsumerSpec {
        let rocketmq = json!({
            "nameServers": [self.world.broker().name_server()],
            "credentialsSecretRef": {"name": "mq-acl"},
            "tls": {
                "caSecretRef": {"name": "mq-ca"}, "serverName": server_name,
                "clientCertificateSecretRef": {"name": "mq-client"},
            },
        });
        self.world
            .spec(port, &[("rocketmq", &rocketmq.to_string())])
    }

    fn parts(&self, user: &str, password: &str, trusted: &Authority) -> Parts {
        let (certificate, key) = self.authority.issue(&["client.test"]);
        let parts = [
            (Part::AccessKey, user.to_owned()),
            (Part::SecretKey, password.to_owned()),
            (Part::Authority, trusted.certificate().to_owned()),
            (Part::Certificate, certificate),
            (Part::PrivateKey, key),
        ];
        let parts = parts.into_iter();
        parts
            .map(|(part, text)| (part, text.into_bytes()))
            .collect()
    }

    /// What lets the user in.
    fn right(&self) -> Parts {
        self.parts(&self.user, PASSWORD, self.authority)
    }

    async fn start(&self, server_name: Option<&str>, parts: Parts) -> (Running, Access) {
        let handler = Handler::default();
        let spec = self.spec(handler.serve(0).await, server_name);
        let access = Access::new(&spec.rocketmq, parts).unwrap();
        (Running::enter(handler, &spec, access.clone()).await, access)
    }

    async fn all_is_well(&self, running: Running, count: u64) {
        running.until_handled(count).await;
        self.world.until_committed(count).await;
        let verdict = running.verdict();
        assert_eq!(
            (
                verdict.inversions,
                verdict.overlaps,
                verdict.distinct,
                verdict.duplicates
            ),
            (0, 0, count, 0)
        );
        running.stop().await;
    }
}

const NAME: Option<&str> = Some("rocketmq.test");

async fn said(control: &Control, words: &[&str]) {
    let told = wait::until(SOON, format!("what is wrong, with {words:?}"), async || {
        let stats = control.stats().await;
        let stats = stats.map_err(|gone| gone.to_string())?;
        let error = stats.broker_error.unwrap_or_default();
        match words.iter().all(|words| error.contains(words)) {
            true => Ok(error),
            false => Err(error),
        }
    });
    let told = told.await.unwrap();
    assert!(!told.contains(PASSWORD), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_no_more_than_is_needed_consumes_over_tls() {
    let place = Place::new("secured", 4).await;
    place.world.produce(2_000, 100).await;
    let (running, _) = place.start(NAME, place.right()).await;
    running.until_handled(2_000).await;
    // Nothing that is needed was refused on the way.
    let stats = running
        .until_stats(|stats| stats.broker_error.is_none(), "no trouble")
        .await;
    assert_eq!(stats.queues.len(), 4);
    place.all_is_well(running, 2_000).await;
}

/// A program gives what is in Secrets elsewhere, and is told what is wrong with it in its own words.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_consumes_over_tls_as_a_user_of_the_acl() {
    let place = Place::new("secured_function", 2).await;
    place.world.produce(200, 20).await;
    let consumer = |password: &str, server_name: Option<&str>| {
        let (chain, key) = place.authority.issue(&["client.test"]);
        let tls = Tls::trusting(place.authority.certificate()).client_certificate(chain, key);
        Consumer::builder()
            .name_servers([place.world.broker().name_server()])
            .credentials(&place.user, password)
            .tls(match server_name {
                Some(name) => tls.server_name(name),
                None => tls,
            })
            .topic(&place.world.topic)
            .group(&place.world.group)
    };
    let handle = |_: Delivery| async { Ok::<(), Failure>(()) };
    let running = consumer(PASSWORD, None).start(handle).await.unwrap();
    said(
        running.control(),
        &["is for rocketmq.test", "set Tls::server_name"],
    )
    .await;
    running.stop().await.unwrap();
    let running = consumer("wrong", NAME).start(handle).await.unwrap();
    let who = format!("access key {:?}: ", place.user);
    said(
        running.control(),
        &[&who, "check signature failed", "check Builder::credentials"],
    )
    .await;
    running.stop().await.unwrap();
    let running = consumer(PASSWORD, NAME).start(handle).await.unwrap();
    place.world.until_committed(200).await;
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_needs_no_more_rights() {
    let place = Place::new("secured_dead", 1).await;
    let handler = Handler::default();
    handler.fail_key("order-1");
    let mut spec = place.spec(handler.serve(0).await, NAME);
    spec.retry.max_attempts = 1;
    let access = Access::new(&spec.rocketmq, place.right()).unwrap();
    let running = Running::enter(handler, &spec, access).await;
    place.world.produce(100, 10).await;
    place.world.until_committed(100).await;
    let dead = format!("%DLQ%{}", place.world.group);
    let held = place
        .world
        .broker()
        .mqadmin(&["topicStatus", "-t", &dead])
        .await
        .unwrap();
    assert!(
        held.lines()
            .any(|line| line.split_whitespace().nth(3) == Some("10")),
        "{held}"
    );
    running.stop().await;
}

/// Messages that fail wait in the retry topic, which has a journal of its own.
#[tokio::test(flavor = "multi_thread")]
async fn without_order_the_rights_to_the_retry_topic_are_enough() {
    let place = Place::new("secured_none", 1).await;
    let user = "user-of-retries";
    place.permit_for(user, PASSWORD, true).await;
    place.world.produce(20, 10).await;
    let handler = Handler::default();
    handler.fail_key("order-1");
    let mut spec = place.spec(handler.serve(0).await, NAME);
    spec.ordering = serde_json::from_value(json!({"mode": "None"})).unwrap();
    let parts = place.parts(user, PASSWORD, place.authority);
    let access = Access::new(&spec.rocketmq, parts).unwrap();
    let running = Running::enter(handler.clone(), &spec, access).await;
    // The two messages of that key.
    running
        .until_stats(|stats| stats.sent_back == 2, "messages sent back")
        .await;
    handler.mend_key("order-1");
    running.until_handled(20).await;
    let stats = running
        .until_stats(
            |stats| {
                let retry = stats.queues.iter().filter(|queue| queue.retry);
                retry.filter_map(|queue| queue.committed).sum::<u64>() == 2
            },
            "the retry topic committed",
        )
        .await;
    assert_eq!(
        (stats.broker_error, stats.dead_lettered, stats.sent_back),
        (None, 0, 2)
    );
    place.world.until_committed(20).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_and_the_right_one_taken_over() {
    let place = Place::new("secured_password", 2).await;
    place.world.produce(200, 20).await;
    let wrong = place.parts(&place.user, "wrong", place.authority);
    let (running, access) = place.start(NAME, wrong).await;
    let who = format!("access key {:?} of Secret \"mq-acl\"", place.user);
    said(
        running.control(),
        &[
            &who,
            "check signature failed",
            "spec.rocketmq.credentialsSecretRef",
        ],
    )
    .await;
    assert_eq!(running.verdict().distinct, 0);
    let nobody = place.parts("nobody", PASSWORD, place.authority);
    assert!(access.replace(nobody).unwrap());
    said(running.control(), &["access key \"nobody\"", "not found"]).await;
    assert!(access.replace(place.right()).unwrap());
    place.all_is_well(running, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_said_with_what_it_is_for() {
    let place = Place::new("secured_right", 1).await;
    place.world.produce(50, 5).await;
    let (subject, topic) = (
        format!("User:{}", place.user),
        format!("Topic:{}", place.world.topic),
    );
    place
        .mqadmin(&["deleteAcl", "-c", "keylane", "-s", &subject, "-r", &topic])
        .await;
    let (running, _) = place.start(NAME, place.right()).await;
    said(
        running.control(),
        &[
            "has no permission to access",
            &topic,
            "mqadmin getUser, getAcl",
        ],
    )
    .await;
    assert_eq!(running.verdict().distinct, 0);
    place
        .mqadmin(&[
            "createAcl",
            "-c",
            "keylane",
            "-s",
            &subject,
            "-r",
            &topic,
            "-a",
            "Sub,Get",
            "-d",
            "Allow",
        ])
        .await;
    place.all_is_well(running, 50).await;
}

/// Two ways: the password of the user is changed, so that requests are refused until the Secret is; and
/// another user is named, which the brokers know before the Secret does.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_rotated_while_messages_are_consumed_and_order_is_kept() {
    let place = Place::new("secured_rotation", 4).await;
    let (running, access) = place.start(NAME, place.right()).await;
    running
        .until_stats(|stats| stats.queues.len() == 4, "all queues")
        .await;
    let producer = place.world.producer().await;
    let sending = async {
        let mut clock = tokio::time::interval(Duration::from_millis(2));
        for number in 0..15_000_u32 {
            clock.tick().await;
            let key = format!("order-{}", number % 50);
            let message = Message::keyed(&key, format!("{number}"));
            producer.send(&message).await.unwrap();
        }
    };
    let rotating = async {
        running.until_handled(1_000).await;
        place.password("the-next-password").await;
        said(running.control(), &["check signature failed"]).await;
        let next = place.parts(&place.user, "the-next-password", place.authority);
        assert!(access.replace(next).unwrap());
        let handled = running.verdict().distinct;
        running.until_handled(handled + 1_000).await;
        place.permit("user-second", PASSWORD).await;
        let second = place.parts("user-second", PASSWORD, place.authority);
        assert!(access.replace(second).unwrap());
        place
            .mqadmin(&["deleteUser", "-c", "keylane", "-u", &place.user])
            .await;
    };
    tokio::join!(sending, rotating);
    place.all_is_well(running, 15_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_cannot_be_verified_are_told_of_and_not_asked() {
    let place = Place::new("secured_servers", 2).await;
    place.world.produce(100, 10).await;
    let other = Authority::new("somebody else");
    let wrong = place.parts(&place.user, PASSWORD, &other);
    let (running, access) = place.start(NAME, wrong).await;
    said(
        running.control(),
        &[
            "for want of a TLS connection",
            "spec.rocketmq.tls.caSecretRef (Secret \"mq-ca\", ca.crt)",
        ],
    )
    .await;
    // With the authority alone they can be verified, whichever certificate of ours they are shown.
    assert!(access.replace(place.right()).unwrap());
    place.all_is_well(running, 100).await;

    let (running, _) = place.start(None, place.right()).await;
    said(
        running.control(),
        &[
            "is for rocketmq.test",
            "127.0.0.1",
            "spec.rocketmq.tls.serverName",
        ],
    )
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_in_clear_or_shows_no_certificate_is_told_what_is_wanted() {
    let place = Place::new("secured_clear", 1).await;
    let handler = Handler::default();
    let port = handler.serve(0).await;
    let mut spec = place.spec(port, NAME);
    if let Some(tls) = &mut spec.rocketmq.tls {
        tls.client_certificate_secret_ref = None;
    }
    let access = Access::new(&spec.rocketmq, place.right()).unwrap();
    let running = Running::enter(handler.clone(), &spec, access).await;
    said(
        running.control(),
        &["spec.rocketmq.tls.clientCertificateSecretRef"],
    )
    .await;
    running.stop().await;
    let clear = place.world.spec(port, &[]);
    let access = Access::open(&clear.rocketmq).unwrap();
    let running = Running::enter(handler, &clear, access).await;
    said(
        running.control(),
        &["whether it wants TLS (spec.rocketmq.tls)"],
    )
    .await;
    running.stop().await;
}
