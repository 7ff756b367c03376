//! Amounts of memory as users write them: Kubernetes' quantities in whole bytes, such as `256Mi`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Pattern of a quantity, the same in the schema and in the parser.
pub const PATTERN: &str = "^[0-9]{1,15}(k|M|G|T|Ki|Mi|Gi|Ti)?$";

const SUFFIXES: [(&str, u64); 9] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
    ("", 1),
];

/// A number of bytes; in YAML a whole number or a text with a suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteQuantity(u64);

/// Why a text is not a number of bytes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a number of bytes: write digits and k, M, G, T, Ki, Mi, Gi or Ti, such as 256Mi"
)]
pub struct InvalidQuantity(String);

impl ByteQuantity {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteQuantity {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = SUFFIXES
            .iter()
            .find(|(suffix, _)| *suffix == unit)
            .map(|(_, factor)| *factor);
        let bytes = (1..=15)
            .contains(&digits)
            .then(|| number.parse::<u64>().ok()?.checked_mul(factor?));
        bytes
            .flatten()
            .map(Self)
            .ok_or_else(|| InvalidQuantity(text.to_owned()))
    }
}

impl fmt::Display for ByteQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, factor): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*factor);
        let (suffix, factor) = SUFFIXES.iter().find(fits).unwrap_or(&("", 1));
        write!(f, "{}{suffix}", self.0 / factor)
    }
}

impl Serialize for ByteQuantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteQuantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for ByteQuantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ByteQuantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true, "maxLength": 32, "pattern": PATTERN,
            "x-kubernetes-validations": [{
                "rule": format!("type(self) == int || self.matches('{PATTERN}')"),
                "message": "write bytes as a number, or as one with Ki, Mi, Gi, k, M or G, such as 256Mi"
            }]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["0", "1", "1000Ki", "256Mi", "3G", "1Ti", "1500k"] {
            let bytes: ByteQuantity = text.parse().unwrap();
            assert_eq!(bytes.to_string().parse(), Ok(bytes), "{text}");
        }
        assert_eq!(ByteQuantity::new(256 << 20).to_string(), "256Mi");
        assert_eq!("1500k".parse::<ByteQuantity>().unwrap().get(), 1_500_000);
    }

    #[test]
    fn a_whole_number_is_bytes() {
        let read = serde_json::from_str::<ByteQuantity>;
        assert_eq!(read("1048576").unwrap(), read("\"1Mi\"").unwrap());
        assert!(read("1.5").is_err() && read("-1").is_err());
    }

    #[test]
    fn refuses_what_is_no_number_of_whole_bytes() {
        for text in [
            "",
            "Mi",
            "1.5Gi",
            "-1",
            "1 Mi",
            "1mi",
            "1e3",
            "1m",
            "99999999Ti",
        ] {
            let error = text.parse::<ByteQuantity>().unwrap_err().to_string();
            assert!(error.contains("such as 256Mi"), "{text}: {error}");
        }
    }
}
