//! Keys as others may see them.

use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Shows keys, or hashes of them.
#[derive(Clone, Copy, Debug)]
pub struct Redact<'g> {
    /// The consumer group, if keys are hashed: the same key has another hash in another group.
    pub group: Option<&'g str>,
}

impl Redact<'_> {
    /// The key, or its hash; no key stays none.
    pub fn key(self, key: &str) -> String {
        let Some(group) = self.group.filter(|_| !key.is_empty()) else {
            return key.to_owned();
        };
        let mut hash = Sha256::new();
        hash.update(group);
        hash.update([0]);
        hash.update(key);
        let mut shown = String::from("sha256:");
        for byte in &hash.finalize()[..8] {
            let _ = write!(shown, "{byte:02x}");
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hashed_key_is_the_same_everywhere_in_its_group_and_no_key_is_none() {
        let hashed = Redact { group: Some("g") };
        // printf 'g\0order-7' | sha256sum
        assert_eq!(hashed.key("order-7"), "sha256:60b31f69dcd2cd15");
        assert_ne!(
            hashed.key("order-7"),
            Redact { group: Some("h") }.key("order-7")
        );
        assert_eq!(hashed.key(""), "");
        assert_eq!(Redact { group: None }.key("order-7"), "order-7");
    }
}
