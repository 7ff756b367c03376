//! Which messages of the topic are consumed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether pods share the messages or each gets all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Consumption {
    /// The pods of the group share the messages.
    #[default]
    Clustering,
    /// Every pod gets every message. Nothing is committed: each process begins at startFrom.
    Broadcasting,
}

/// Which messages of the topic are consumed; the others count as finished. Give tags or sql, or neither
/// for all. The broker filters, and the executor checks again: of tags the broker compares only hash codes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(has(self.tags) && has(self.sql))",
    "message": "filter: give tags or sql, not both"
}]))]
pub struct Filter {
    /// Only messages with one of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 64),
        inner(length(min = 1, max = 127), regex(pattern = r"^[^|\s*]+$")),
        extend("x-kubernetes-validations" = [{
            "rule": r"self.all(tag, tag.matches('^[^|\\s*]+$'))",
            "message": "write each tag as an entry of its own, without blanks, | and *; leave the filter out for all tags"
        }])
    )]
    pub tags: Vec<String>,
    /// Only messages that fulfil this SQL92 expression over their properties, such as
    /// amount > 100 AND region = 'eu'. The brokers must run with enablePropertyFilter=true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub sql: Option<String>,
}
