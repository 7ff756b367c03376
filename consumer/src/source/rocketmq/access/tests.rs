use super::*;
use crate::contract::spec::{SecretRef, Tls};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use rocketmq_transport::api::RPCHook;

fn secret(name: &str) -> Option<SecretRef> {
    Some(SecretRef { name: name.into() })
}

/// A spec that names every Secret there is to name.
fn everything() -> Rocketmq {
    Rocketmq {
        name_servers: vec!["n:9876".into()],
        credentials_secret_ref: secret("mq-acl"),
        tls: Some(Tls {
            ca_secret_ref: SecretRef {
                name: "mq-ca".into(),
            },
            server_name: Some("rocketmq.test".into()),
            client_certificate_secret_ref: secret("mq-client"),
        }),
    }
}

fn parts(changes: &[(Part, &str)]) -> Parts {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["rocketmq.test".to_owned()]).unwrap();
    let all = [
        (Part::AccessKey, "orders\n".to_owned()),
        (Part::SecretKey, "  pass word ".to_owned()),
        (Part::Authority, cert.pem()),
        (Part::Certificate, cert.pem()),
        (Part::PrivateKey, signing_key.serialize_pem()),
    ];
    let all = all.map(|(part, text)| (part, text.into_bytes()));
    let changes = changes.iter();
    let changes = changes.map(|(part, text)| (*part, text.as_bytes().to_vec()));
    all.into_iter().chain(changes).collect()
}

#[test]
fn what_is_missing_or_wrong_is_named_with_its_field_its_secret_and_what_to_do() {
    let no_pem = "-----BEGIN CERTIFICATE-----\nsecret?\n-----END CERTIFICATE-----\n";
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    for (changes, named) in [
        (
            (Part::AccessKey, ""),
            [
                "spec.rocketmq.credentialsSecretRef: \"accessKey\" of Secret \"mq-acl\"",
                "it is empty; put the name",
            ],
        ),
        (
            (Part::SecretKey, "hush\nhush"),
            [
                "\"secretKey\" of Secret \"mq-acl\"",
                "more than one line; put the password",
            ],
        ),
        (
            (Part::Authority, "hush"),
            [
                "spec.rocketmq.tls.caSecretRef: \"ca.crt\" of Secret \"mq-ca\"",
                "there is no certificate in it",
            ],
        ),
        (
            (Part::Authority, no_pem),
            ["\"ca.crt\"", "put the certificate (PEM)"],
        ),
        (
            (Part::Certificate, ""),
            [
                "spec.rocketmq.tls.clientCertificateSecretRef: \"tls.crt\" of Secret \"mq-client\"",
                "no certificate",
            ],
        ),
        (
            (Part::PrivateKey, "hush"),
            ["\"tls.key\"", "there is no private key in it"],
        ),
        ((Part::PrivateKey, &other_key), ["\"tls.key\"", "PKCS #8"]),
    ] {
        let error = Access::new(&everything(), parts(&[changes])).unwrap_err();
        let error = error.to_string();
        for words in named {
            assert!(error.contains(words), "{error}");
        }
        assert!(!error.contains("hush"), "{error}");
    }
    let some: Parts = [(Part::AccessKey, b"a".to_vec())].into_iter().collect();
    let error = Access::new(&everything(), some).unwrap_err().to_string();
    assert!(
        error.contains("Secret \"mq-acl\" has no \"secretKey\": put"),
        "{error}"
    );
    let error = Access::open(&everything()).unwrap_err();
    assert!(error.to_string().contains("--rocketmq-secrets"), "{error}");
    let mut nameless = everything();
    nameless.tls.as_mut().unwrap().server_name = Some("a..b".into());
    let error = Access::new(&nameless, parts(&[])).unwrap_err().to_string();
    assert!(error.contains("serverName is \"a..b\""), "{error}");
}

#[test]
fn what_a_program_gives_is_used_as_far_as_it_is_given_and_called_by_its_methods() {
    let given = |wanted: &[Part]| {
        let all = parts(&[]);
        let of = |part: &Part| (*part, all.get(*part).unwrap_or_default().to_vec());
        Access::given(None, wanted.iter().map(of).collect()).unwrap()
    };
    let open = given(&[]);
    assert!(!open.signs() && !open.is_encrypted());
    assert_eq!(open.who(), "who gives no credentials");
    let signs = given(&[Part::AccessKey, Part::SecretKey]);
    assert_eq!(signed(&signs).0, "orders");
    assert!(!signs.is_encrypted());
    assert_eq!(signs.who(), "access key \"orders\"");
    let name = ServerName::try_from("broker-a").unwrap();
    let is_shown = [Part::Authority, Part::Certificate, Part::PrivateKey];
    for (wanted, told) in [
        (&is_shown[..1], "give one to Tls::client_certificate"),
        (&is_shown[..], "the certificate of Tls::client_certificate"),
    ] {
        let access = given(wanted);
        assert!(access.is_encrypted() && !access.signs());
        let explain = |error| explain(&error, &name, &access);
        let asked = explain(rustls::Error::AlertReceived(
            rustls::AlertDescription::CertificateRequired,
        ));
        assert!(asked.contains(told), "{asked}");
        let unknown = rustls::CertificateError::UnknownIssuer;
        let unknown = explain(rustls::Error::InvalidCertificate(unknown));
        assert!(
            unknown.contains("that Builder::tls does not have"),
            "{unknown}"
        );
        let other = rustls::CertificateError::NotValidForName;
        let other = explain(rustls::Error::InvalidCertificate(other));
        assert!(other.contains("set Tls::server_name to a name"), "{other}");
    }
}

#[test]
fn nothing_of_what_secrets_hold_is_shown() {
    let all = parts(&[]);
    let access = Access::new(&everything(), all.clone()).unwrap();
    let shown = format!("{access:?} {all:?} {}", access.who());
    for hidden in ["pass word", "BEGIN"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    assert_eq!(access.who(), "access key \"orders\" of Secret \"mq-acl\"");
}

fn signed(access: &Access) -> (String, String) {
    let mut request = RemotingCommand::create_remoting_command(10).set_body(b"body".to_vec());
    request.ensure_ext_fields_initialized();
    request.add_ext_field("z", "last");
    request.add_ext_field("a", "first");
    let address = "127.0.0.1:9876".parse().unwrap();
    let signer = Signer(access.clone());
    signer.do_before_request(address, &mut request).unwrap();
    let fields = request.ext_fields().unwrap();
    let field = |name: &str| {
        fields
            .get(name)
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    (field("AccessKey"), field("Signature"))
}

#[test]
fn requests_are_signed_with_what_is_in_force_and_a_change_that_is_no_good_changes_nothing() {
    let rocketmq = Rocketmq {
        tls: None,
        ..everything()
    };
    let access = Access::new(&rocketmq, parts(&[])).unwrap();
    let (user, first) = signed(&access);
    assert_eq!(user, "orders");
    // The order of fields does not count, what they and the body say does (`AclUtils.combineRequestContent`).
    assert_eq!(signed(&access).1, first);
    assert!(!access.replace(access.read().parts).unwrap());
    access.replace(parts(&[(Part::SecretKey, "")])).unwrap_err();
    assert_eq!(signed(&access), (user.clone(), first.clone()));
    assert!(access.replace(parts(&[(Part::SecretKey, "next")])).unwrap());
    let (same, second) = signed(&access);
    assert_eq!(same, user);
    assert_ne!(second, first);
    let open = Rocketmq {
        credentials_secret_ref: None,
        ..rocketmq
    };
    let open = Access::new(&open, Parts::default()).unwrap();
    assert_eq!(signed(&open), (String::new(), String::new()));
}

#[tokio::test]
async fn files_are_followed_and_never_read_half_changed() {
    let dir = tempfile::tempdir().unwrap();
    // As the kubelet keeps them.
    let version = |name: &str, user: &str, password: &str| {
        let version = dir.path().join(name);
        std::fs::create_dir(&version).unwrap();
        std::fs::write(version.join("accessKey"), user).unwrap();
        std::fs::write(version.join("secretKey"), password).unwrap();
        let link = dir.path().join("..new");
        std::os::unix::fs::symlink(name, &link).unwrap();
        std::fs::rename(link, dir.path().join("..data")).unwrap();
    };
    let rocketmq = Rocketmq {
        tls: None,
        ..everything()
    };
    let files = Files::new(dir.path(), &rocketmq);
    let error = files.access().unwrap_err().to_string();
    assert!(error.contains("accessKey cannot be read"), "{error}");
    assert!(
        error.contains("\"accessKey\" of Secret \"mq-acl\""),
        "{error}"
    );
    version("..1", "old", "a");
    let access = files.access().unwrap();
    let following = tokio::spawn(files.follow(access.clone()));
    version("..2", "", "b");
    version("..3", "new", "c");
    let changed = async {
        while signed(&access).0 != "new" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, changed).await.unwrap();
    following.abort();
}
