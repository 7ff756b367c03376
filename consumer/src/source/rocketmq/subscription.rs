//! What of a topic is asked for, as the broker is told and as is checked again here.
//!
//! For tags the broker compares only hash codes, so messages of another tag with the same hash arrive; they
//! are left out here. A SQL92 expression is evaluated here as the broker evaluates it, see [`sql`](super::sql);
//! one that cannot be read here is the broker's alone, because a message that is left out counts as finished.
//! Source: `SubscriptionData.java`, `FilterAPI.java` and `ExpressionType.java` of Apache RocketMQ 5.3.3.

use super::sql::{Expression, Unread};
use crate::contract::spec::Filter;
use crate::message::{Message, PROPERTY_TAGS};
use serde_json::{Value, json};

/// A subscription to one topic.
#[derive(Clone, Debug)]
pub struct Subscription {
    tags: Vec<String>,
    sql: Option<Result<Expression, Unread>>,
    expression: String,
    kind: &'static str,
}

impl Subscription {
    /// Everything.
    pub fn all() -> Self {
        Self::new(&Filter::default())
    }

    /// What a filter of a spec asks for.
    pub fn new(filter: &Filter) -> Self {
        let (kind, expression) = match &filter.sql {
            Some(sql) => ("SQL92", sql.clone()),
            None if filter.tags.is_empty() => ("TAG", "*".to_owned()),
            None => ("TAG", filter.tags.join(" || ")),
        };
        Self {
            tags: filter.tags.clone(),
            sql: filter.sql.as_deref().map(Expression::parse),
            expression,
            kind,
        }
    }

    /// The expression, as a pull carries it.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The kind of the expression, as a pull carries it.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// As a heartbeat carries it.
    pub fn data(&self, topic: &str) -> Value {
        let codes: Vec<i32> = self.tags.iter().map(|tag| java_hash(tag)).collect();
        json!({
            "topic": topic, "subString": self.expression, "tagsSet": self.tags, "codeSet": codes,
            "subVersion": 0, "classFilterMode": false, "expressionType": self.kind,
        })
    }

    /// Why only the broker decides what fulfils the SQL92 expression; none if it is checked here, too.
    pub fn unread(&self) -> Option<&Unread> {
        self.sql.as_ref()?.as_ref().err()
    }

    /// What the broker ignores of the SQL92 expression; empty if nothing.
    pub fn ignored(&self) -> &str {
        match &self.sql {
            Some(Ok(expression)) => expression.ignored(),
            _ => "",
        }
    }

    /// Whether a message that the broker sent was asked for.
    pub fn wants(&self, message: &Message) -> bool {
        let tag = || message.properties.get(PROPERTY_TAGS);
        match &self.sql {
            Some(Ok(expression)) => expression.matches(&message.properties),
            Some(Err(_)) => true,
            None if self.tags.is_empty() => true,
            None => tag().is_some_and(|tag| self.tags.iter().any(|wanted| wanted == tag.trim())),
        }
    }
}

/// `String.hashCode` of Java: over UTF-16 units.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(tags: &[&str]) -> Subscription {
        Subscription::new(&Filter {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            sql: None,
        })
    }

    #[test]
    fn expressions_are_written_as_the_broker_reads_them() {
        let all = Subscription::all();
        assert_eq!((all.kind(), all.expression()), ("TAG", "*"));
        let two = tags(&["PAID", "SHIPPED"]);
        assert_eq!((two.kind(), two.expression()), ("TAG", "PAID || SHIPPED"));
        let sql = Subscription::new(&Filter {
            tags: Vec::new(),
            sql: Some("a > 1".into()),
        });
        assert_eq!((sql.kind(), sql.expression()), ("SQL92", "a > 1"));
        assert_eq!(two.data("T")["codeSet"][0], java_hash("PAID"));
    }

    #[test]
    fn the_hash_is_javas() {
        assert_eq!(java_hash(""), 0);
        assert_eq!(java_hash("TagA"), 2_598_919);
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
    }

    #[test]
    fn a_tag_with_the_same_hash_is_not_the_same_tag() {
        assert_eq!(java_hash("Aa"), java_hash("BB"));
        let with = |tag: &str| Message {
            properties: [(PROPERTY_TAGS, tag)].into_iter().collect(),
            ..Message::default()
        };
        let wanted = tags(&["Aa"]);
        assert!(wanted.wants(&with("Aa")));
        assert!(!wanted.wants(&with("BB")));
        assert!(!wanted.wants(&Message::default()));
        assert!(Subscription::all().wants(&Message::default()));
    }

    #[test]
    fn an_expression_is_checked_again_unless_only_the_broker_can_read_it() {
        let sql = |text: &str| {
            Subscription::new(&Filter {
                tags: Vec::new(),
                sql: Some(text.to_owned()),
            })
        };
        let with = |amount: &str| Message {
            properties: [("amount", amount)].into_iter().collect(),
            ..Message::default()
        };
        let read = sql("amount > 3");
        assert_eq!(read.unread(), None);
        assert!(read.wants(&with("4")));
        assert!(!read.wants(&with("3")));
        assert!(!read.wants(&Message::default()));
        let unread = sql("amount > 3 AND ~amount");
        assert!(unread.wants(&with("4")) && unread.wants(&with("3")));
        assert_eq!(
            unread.unread().unwrap().to_string(),
            "character 16: this character has no meaning"
        );
    }
}
