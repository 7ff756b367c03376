//! Paths of Unix sockets that a handler listens on.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::path::Path;
use std::str::FromStr;

/// Pattern of a path, the same in the schema and in the parser.
pub const PATTERN: &str = "^/(run|tmp|var/run)(/[A-Za-z0-9_-][A-Za-z0-9._-]*){2,}$";

/// Most bytes the kernel takes.
const LONGEST: usize = 107;

/// What the API server says to what is none.
const HINT: &str = "write the path of a socket in a directory of its own below /run, /var/run or /tmp, such as /run/handler/handler.sock, of at most 107 letters, digits, ., _ and -; the directory is shared with the executor";

/// An absolute path in a directory of its own below /run, /var/run or /tmp. Its directory can be mounted
/// into two containers without hiding anything else of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPath(String);

/// Why a text is not such a path.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be a handler's socket: {HINT}")]
pub struct InvalidSocketPath(String);

impl SocketPath {
    /// The socket itself.
    pub fn path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// The directory it lies in.
    pub fn directory(&self) -> &str {
        self.0
            .rsplit_once('/')
            .map_or("/", |(directory, _)| directory)
    }
}

impl FromStr for SocketPath {
    type Err = InvalidSocketPath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let below = ["/run/", "/tmp/", "/var/run/"]
            .iter()
            .find_map(|root| text.strip_prefix(root));
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let part =
            |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed);
        let is_path = below.is_some_and(|below| below.contains('/') && below.split('/').all(part));
        if is_path && text.len() <= LONGEST {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSocketPath(text.to_owned()))
        }
    }
}

impl Serialize for SocketPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SocketPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for SocketPath {
    fn schema_name() -> Cow<'static, str> {
        "SocketPath".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": LONGEST,
            "pattern": PATTERN,
            "x-kubernetes-validations": [{"rule": format!("self.matches('{PATTERN}')"), "message": HINT}],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_a_directory_of_its_own_where_nothing_else_is_hidden() {
        for good in ["/run/h/h.sock", "/var/run/h/s", "/tmp/a-b/c_d/e.sock"] {
            let path: SocketPath = good.parse().unwrap();
            assert_eq!(path.path(), Path::new(good));
        }
        let deep: SocketPath = "/run/a/b/c".parse().unwrap();
        assert_eq!(deep.directory(), "/run/a/b");
        let long = format!("/run/h/{}", "s".repeat(101));
        for bad in [
            "",
            "/",
            "h.sock",
            "run/h/h.sock",
            "/run/h.sock",
            "/run/h/",
            "/run//h",
            "/run/../h",
            "/run/.h/s",
            "/usr/h/s",
            "/etc/keylane/s",
            "/runner/h/s",
            "/run/h/s s",
            "/run/h/s\n",
            &long,
        ] {
            assert!(bad.parse::<SocketPath>().is_err(), "{bad:?}");
        }
    }
}
