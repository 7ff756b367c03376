//! How a server is entered: in clear or over TLS, and as whom.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sha1::Sha1;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::remoting::Fields;

/// Both directions of a connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What a server asks of its clients; by default nothing.
#[derive(Clone, Default)]
pub(super) struct Door {
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// A user of the ACL and the password.
    pub(super) user: Option<(String, String)>,
    /// Options of Java programs to get in over TLS.
    pub(super) java: Vec<String>,
}

impl fmt::Debug for Door {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Door")
    }
}

impl Door {
    pub(super) async fn enter(&self, stream: TcpStream) -> std::io::Result<Box<dyn Stream>> {
        Ok(match &self.tls {
            None => Box::new(stream),
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                Box::new(connector.connect(name.clone(), stream).await?)
            }
        })
    }

    /// The fields with a signature: the user's name among them, an HMAC-SHA1 with the password of all their
    /// values in the order of their names, and of the body. Source: `AclUtils` and `AclSigner` of Apache
    /// RocketMQ 5.3.3.
    pub(super) fn sign(&self, fields: &Fields, body: &[u8]) -> HashMap<&'static str, String> {
        let mut fields = fields.clone();
        let Some((user, password)) = &self.user else {
            return fields;
        };
        fields.insert("AccessKey", user.clone());
        let mut sorted: Vec<_> = fields.iter().collect();
        sorted.sort();
        // An HMAC takes keys of any length.
        if let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(password.as_bytes()) {
            for (_, value) in sorted {
                mac.update(value.as_bytes());
            }
            mac.update(body);
            let signature = base64(&mac.finalize().into_bytes());
            fields.insert("Signature", signature);
        }
        fields
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| {
            bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0))
        });
        for digit in 0..4 {
            if digit <= chunk.len() {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_fills_up_to_four_digits() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
