use super::*;
use crate::contract::spec::{Rocketmq, SecretRef, Tls};
use crate::source::rocketmq::{Part, Parts};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

/// An authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for these names, with its key.
    fn issue(&self, names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A server that answers everything with the same, and may want certificates of this authority.
    async fn serve(&self, names: &[&str], asks: bool) -> String {
        let (certificate, key) = self.issue(names);
        let provider = Arc::new(ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(self.der.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let chain = vec![certificate.der().clone()];
        let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(config.clone());
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await?;
                    let mut buffer = [0; 1024];
                    loop {
                        match stream.read(&mut buffer).await? {
                            0 => return io::Result::Ok(()),
                            read => stream.write_all(&buffer[..read]).await?,
                        }
                    }
                });
            }
        });
        address.to_string()
    }
}

fn access(authority: &Authority, server_name: Option<&str>, shown: Option<&Authority>) -> Access {
    let secret = |name: &str| SecretRef { name: name.into() };
    let rocketmq = Rocketmq {
        name_servers: vec!["n:9876".into()],
        credentials_secret_ref: None,
        tls: Some(Tls {
            ca_secret_ref: secret("mq-ca"),
            server_name: server_name.map(str::to_owned),
            client_certificate_secret_ref: shown.map(|_| secret("mq-client")),
        }),
    };
    Access::new(&rocketmq, parts(authority, shown)).unwrap()
}

fn parts(authority: &Authority, shown: Option<&Authority>) -> Parts {
    let mut parts = vec![(Part::Authority, authority.pem.clone().into_bytes())];
    if let Some(shown) = shown {
        let (certificate, key) = shown.issue(&["client.test"]);
        parts.push((Part::Certificate, certificate.pem().into_bytes()));
        parts.push((Part::PrivateKey, key.serialize_pem().into_bytes()));
    }
    parts.into_iter().collect()
}

/// Asks a server through the relay as the client does.
async fn ask(relay: &Relay, password: &str, server: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(relay.address).await?;
    let server: SocketAddr = server.parse().unwrap();
    let IpAddr::V4(ip) = server.ip() else {
        panic!("{server}")
    };
    stream.write_all(&[5, 1, 2]).await?;
    stream.read_exact(&mut [0; 2]).await?;
    let mut greeting = vec![1, 1, b'u', password.len() as u8];
    greeting.extend(password.as_bytes());
    stream.write_all(&greeting).await?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    if answer != [1, 0] {
        return Err(refused("the password"));
    }
    stream.write_all(&[5, 1, 0, 1]).await?;
    stream.write_all(&ip.octets()).await?;
    stream.write_all(&server.port().to_be_bytes()).await?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await?;
    if answer[1] != 0 {
        return Err(refused("the connection"));
    }
    stream.write_all(b"hello").await?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn trouble(relay: &Relay, server: &str) -> String {
    ask(relay, &relay.password, server).await.unwrap_err();
    // It is known once the server has told it, which may be a little after the connection ended.
    let told = timeout(Duration::from_secs(10), async {
        loop {
            match relay.trouble(&format!("other:1;{server}")) {
                Some(Trouble::Untrusted(reason)) => return reason,
                Some(other) => panic!("{other:?}"),
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    told.await.unwrap()
}

#[tokio::test]
async fn a_server_that_can_be_verified_answers() {
    let authority = Authority::new();
    for (names, server_name) in [
        (&["127.0.0.1"][..], None),
        (&["rocketmq.test", "other.test"], Some("rocketmq.test")),
    ] {
        let server = authority.serve(names, false).await;
        let relay = Relay::start(access(&authority, server_name, None)).unwrap();
        assert_eq!(
            ask(&relay, &relay.password, &server).await.unwrap(),
            "hello"
        );
        assert_eq!(relay.trouble(&server), None);
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_verified_is_not_asked_and_it_is_said_why() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = other.serve(&["127.0.0.1"], false).await;
    let known = access(&authority, None, None);
    let relay = Relay::start(known.clone()).unwrap();
    let reason = trouble(&relay, &server).await;
    assert!(
        reason.contains("caSecretRef (Secret \"mq-ca\", ca.crt)"),
        "{reason}"
    );
    // The next connection is made with the new authority, and the trouble is over once it answered.
    assert!(known.replace(parts(&other, None)).unwrap());
    assert_eq!(
        ask(&relay, &relay.password, &server).await.unwrap(),
        "hello"
    );
    assert_eq!(relay.trouble(&server), None);
    let server = other.serve(&["rocketmq.test"], false).await;
    let reason = trouble(&relay, &server).await;
    assert!(reason.contains("rocketmq.test"), "{reason}");
    assert!(
        reason.contains("set spec.rocketmq.tls.serverName"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_server_that_wants_another_certificate_of_ours_is_told_of() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.serve(&["127.0.0.1"], true).await;
    for (shown, named) in [
        (None, "in spec.rocketmq.tls.clientCertificateSecretRef"),
        (Some(&other), "Secret \"mq-client\", tls.crt"),
    ] {
        let relay = Relay::start(access(&authority, None, shown)).unwrap();
        let reason = trouble(&relay, &server).await;
        assert!(reason.contains(named), "{reason}");
    }
    let relay = Relay::start(access(&authority, None, Some(&authority))).unwrap();
    assert_eq!(
        ask(&relay, &relay.password, &server).await.unwrap(),
        "hello"
    );
}

#[tokio::test]
async fn a_server_in_clear_or_none_is_told_of() {
    let authority = Authority::new();
    let relay = Relay::start(access(&authority, None, None)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let reason = trouble(&relay, &server).await;
    assert!(reason.contains("tls.server.mode"), "{reason}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    ask(&relay, &relay.password, &server).await.unwrap_err();
    let Some(Trouble::Unreachable(reason)) = relay.trouble(&server) else {
        panic!("it cannot be reached");
    };
    assert!(reason.contains("refused"), "{reason}");
}

#[tokio::test]
async fn who_does_not_know_the_password_gets_no_connection_and_keeps_nobody_out() {
    let authority = Authority::new();
    let server = authority.serve(&["127.0.0.1"], false).await;
    let relay = Relay::start(access(&authority, None, None)).unwrap();
    let wrong = ask(&relay, &"0".repeat(32), &server).await.unwrap_err();
    assert_eq!(wrong.to_string(), "the password");
    // Without a method that asks for one.
    let mut stream = TcpStream::connect(relay.address).await.unwrap();
    stream.write_all(&[5, 1, 0]).await.unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [5, 0xff]);
    // As many as may be there say nothing; they are gone after a while.
    let mut silent = Vec::new();
    for _ in 0..STRANGERS {
        silent.push(TcpStream::connect(relay.address).await.unwrap());
    }
    let asked = timeout(GREETING * 5, ask(&relay, &relay.password, &server));
    assert_eq!(asked.await.unwrap().unwrap(), "hello");
}

#[tokio::test]
async fn connections_end_with_the_relay() {
    let authority = Authority::new();
    let relay = Relay::start(access(&authority, None, None)).unwrap();
    let address = relay.address;
    drop(relay);
    let ended = timeout(Duration::from_secs(10), async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    ended.await.unwrap();
}
