//! Certificates that the operator makes: each signs itself, is trusted as it is, and lies in a Secret with its
//! key. It is exchanged a month before it ends, and the one before it stays there to be trusted until whoever
//! shows it has the new one.

use jiff::civil::Date;
use jiff::{Span, ToSpan};
use k8s_openapi::api::core::v1::Secret;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use std::collections::BTreeMap;

/// Key of the certificate in the Secret.
pub const CERTIFICATE: &str = "tls.crt";
/// Key of the certificate's private key.
pub const PRIVATE_KEY: &str = "tls.key";
/// Key of the certificate before, once there was one.
pub const PREVIOUS: &str = "previous.crt";
/// Key of the last day on which the certificate is valid, such as 2026-05-31.
pub const EXPIRES: &str = "expires";

const VALID_DAYS: i32 = 90;
const RENEWED_BEFORE_DAYS: i32 = 30;
/// Clocks differ.
const BACKDATED_DAYS: i32 = 1;

/// No certificate could be made.
#[derive(Debug, thiserror::Error)]
#[error("no certificate can be made for {server_name}: {source}")]
pub struct CertificateError {
    server_name: String,
    source: rcgen::Error,
}

/// A new certificate for a server, with its key and its last day.
pub fn issue(server_name: &str, today: Date) -> Result<BTreeMap<String, String>, CertificateError> {
    let failed = |source| CertificateError {
        server_name: server_name.to_owned(),
        source,
    };
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new([server_name.to_owned()]).map_err(failed)?;
    params
        .distinguished_name
        .push(DnType::CommonName, format!("keylane {today}"));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let expires = add(today, VALID_DAYS);
    // Months and days are at least 1.
    let midnight = |date: Date| {
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        date_time_ymd(date.year().into(), month, day)
    };
    params.not_before = midnight(add(today, -BACKDATED_DAYS));
    params.not_after = midnight(add(expires, 1));
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(BTreeMap::from([
        (CERTIFICATE.to_owned(), certificate.pem()),
        (PRIVATE_KEY.to_owned(), key.serialize_pem()),
        (EXPIRES.to_owned(), expires.to_string()),
    ]))
}

/// What is to change in a Secret because its certificate is missing or ends soon; none if it does not.
pub fn renewal(
    secret: &Secret,
    server_name: &str,
    today: Date,
) -> Result<Option<BTreeMap<String, String>>, CertificateError> {
    let text = |key| part(secret, key).map(String::from_utf8_lossy);
    let expires = text(EXPIRES).and_then(|text| text.trim().parse::<Date>().ok());
    let complete = [CERTIFICATE, PRIVATE_KEY].map(|key| part(secret, key).is_some());
    let lasts = expires.is_some_and(|expires| today < add(expires, -RENEWED_BEFORE_DAYS));
    if complete == [true; 2] && lasts {
        return Ok(None);
    }
    let mut data = issue(server_name, today)?;
    if let Some(before) = text(CERTIFICATE) {
        data.insert(PREVIOUS.to_owned(), before.into_owned());
    }
    Ok(Some(data))
}

/// A part of a Secret that is there and not empty.
pub fn part<'s>(secret: &'s Secret, key: &str) -> Option<&'s [u8]> {
    let bytes = secret.data.as_ref()?.get(key)?;
    Some(bytes.0.as_slice()).filter(|bytes| !bytes.is_empty())
}

fn add(date: Date, days: i32) -> Date {
    let days: Span = days.days();
    date.saturating_add(days)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    const SERVER: &str = "orders-keylane.shop.svc";

    pub fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    pub fn secret(data: &BTreeMap<String, String>) -> Secret {
        let bytes = |text: &String| ByteString(text.clone().into_bytes());
        let data = data.iter().map(|(key, text)| (key.clone(), bytes(text)));
        Secret {
            metadata: ObjectMeta {
                name: Some("orders-keylane-admin".to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(data.collect()),
            ..Secret::default()
        }
    }

    #[test]
    fn a_certificate_is_exchanged_a_month_before_it_ends_and_the_one_before_is_kept() {
        let mut data = issue(SERVER, day("2026-03-02")).unwrap();
        assert_eq!(data[EXPIRES], "2026-05-31");
        let renewed = |data: &_, today| renewal(&secret(data), SERVER, day(today)).unwrap();
        assert_eq!(renewed(&data, "2026-04-30"), None);
        let changes = renewed(&data, "2026-05-01").unwrap();
        assert_eq!(changes[PREVIOUS], data[CERTIFICATE]);
        assert_ne!(changes[CERTIFICATE], data[CERTIFICATE]);
        data.extend(changes);
        assert_eq!(data[EXPIRES], "2026-07-30");
        assert_eq!(renewed(&data, "2026-05-01"), None);
    }

    #[test]
    fn what_is_missing_or_unclear_is_made_anew() {
        let renewed = |data: &_| renewal(&secret(data), SERVER, day("2026-03-02")).unwrap();
        let mut data = BTreeMap::from([("token".to_owned(), "t".to_owned())]);
        let changes = renewed(&data).unwrap();
        assert!(!changes.contains_key(PREVIOUS) && !changes.contains_key("token"));
        data.extend(changes);
        assert_eq!(renewed(&data), None);
        data.insert(EXPIRES.to_owned(), "soon".to_owned());
        assert!(renewed(&data).is_some());
    }
}
