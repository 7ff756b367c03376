//! SQL92 filter expressions over a message's properties, with the broker's semantics, oddities included.
//!
//! Promise: [`Expression::matches`] is false only if the broker's own evaluation of this message fails or
//! is not TRUE. What the broker may see differently from here (digits of other scripts, hexadecimal
//! floating point, bytes that are not UTF-8) counts as a match, and an expression that cannot be read here
//! is an error of [`Expression::parse`] with which the caller lets the broker decide alone.
//!
//! Where the broker sends more than matches: to a pull that carries its subscription, as ours do, it
//! applies the expression to every message's properties in its commit log and delivers only TRUE, so
//! neither its Bloom filters (`enableCalcFilterBitMap`) nor its consume queue extension widen the answer. It
//! lets everything pass where it could not compile the expression (`PullMessageProcessor` and
//! `ConsumerFilterManager.build`, whose result null is no filter to `ExpressionMessageFilter`): one that
//! is parsed at one broker and not at another, say an older one.
//!
//! Source: `SelectorParser.jj`, `expression/*.java`, `ExpressionMessageFilter.java` and
//! `MessageEvaluationContext.java` of Apache RocketMQ 5.3.3; numbers are read as `Integer.valueOf`,
//! `Long.valueOf` and `Double.valueOf` of Java do.

mod lexer;
mod parser;

use crate::message::Properties;
use std::cmp::Ordering;
use std::str::FromStr;

pub use parser::Unread;

/// An expression that was read.
#[derive(Clone, Debug)]
pub struct Expression {
    node: Node,
    ignored: String,
}

impl Expression {
    /// Reads an expression; never panics, whatever the text. The broker may refuse what is read here, and
    /// is asked before the first pull.
    ///
    /// # Errors
    /// When it is not of the broker's grammar, or nested deeper than is read here.
    pub fn parse(text: &str) -> Result<Self, Unread> {
        let (node, ignored) = parser::parse(text)?;
        Ok(Self {
            node,
            ignored: ignored.to_owned(),
        })
    }

    /// What follows the expression in the text and counts for nothing, as at the broker: in
    /// `name LIKE 'a%'` that is `LIKE 'a%'`. Empty if nothing does.
    pub fn ignored(&self) -> &str {
        &self.ignored
    }

    /// Whether the broker delivers a message with these properties.
    pub fn matches(&self, properties: &Properties) -> bool {
        match self.node.truth(properties) {
            Ok(truth) => truth == Some(true),
            Err(fault) => fault == Fault::Undecided,
        }
    }
}

/// What an order must be.
type Relation = fn(Ordering) -> bool;

/// Part of an expression. What the broker builds from others is built from others here: <>, IS NULL,
/// NOT IN.
#[derive(Clone, Debug)]
enum Node {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(String),
    Property(String),
    Negate(Box<Node>),
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Equal(Box<[Node; 2]>),
    Ordered(Box<[Node; 2]>, Relation),
    /// A value, its bounds, and how it stands to each.
    Between(Box<[Node; 3]>, [Relation; 2]),
    In(String, Vec<String>),
    Search {
        within: Box<Node>,
        part: Part,
        what: String,
        not: bool,
    },
}

/// Where a text is looked for.
#[derive(Clone, Copy, Debug)]
enum Part {
    Any,
    Start,
    End,
}

/// A value that is not NULL. The broker knows numbers by their Java types, which decide what text is one:
/// "3.5" > 3 fails because "3.5" is no Integer.
#[derive(Clone, Copy, Debug)]
enum Value<'v> {
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(&'v str),
}

/// Why an evaluation has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The broker's evaluation throws, and the message is not delivered.
    Throws,
    /// The broker may know better.
    Undecided,
}

impl Node {
    /// As a condition: a property by itself is never TRUE, because every property is text.
    fn truth(&self, of: &Properties) -> Result<Option<bool>, Fault> {
        Ok(self
            .value(of)?
            .map(|value| matches!(value, Value::Bool(true))))
    }

    /// None is NULL.
    fn value<'v>(&'v self, of: &'v Properties) -> Result<Option<Value<'v>>, Fault> {
        let truth = match self {
            Self::Null => None,
            Self::Bool(truth) => Some(*truth),
            Self::Int(number) => return Ok(Some(Value::Int(*number))),
            Self::Long(number) => return Ok(Some(Value::Long(*number))),
            Self::Double(number) => return Ok(Some(Value::Double(*number))),
            Self::Text(text) => return Ok(Some(Value::Text(text))),
            Self::Property(name) => return property(of, name).map(|text| text.map(Value::Text)),
            Self::Negate(node) => return Ok(node.value(of)?.and_then(Value::negated)),
            Self::Not(node) => node.truth(of)?.map(|truth| !truth),
            Self::And(nodes) => decided(false, nodes.iter().map(|node| node.truth(of)))?,
            Self::Or(nodes) => decided(true, nodes.iter().map(|node| node.truth(of)))?,
            Self::Equal(pair) => match (pair[0].value(of)?, pair[1].value(of)?) {
                (None, None) => Some(true),
                (None, Some(_)) => None,
                // Not NULL: 1 <> a is TRUE without a.
                (Some(_), None) => Some(false),
                (Some(left), Some(right)) => Some(left.compare(right)?.is_eq()),
            },
            Self::Ordered(pair, holds) => ordered(pair[0].value(of)?, &pair[1], *holds, of)?,
            Self::Between(nodes, relations) => {
                let [value, bounds @ ..] = &**nodes;
                let value = value.value(of)?;
                // NOT BETWEEN is an OR.
                let decisive = relations[0](Ordering::Less);
                let sides = bounds.iter().zip(relations);
                decided(
                    decisive,
                    sides.map(|(bound, holds)| ordered(value, bound, *holds, of)),
                )?
            }
            Self::In(name, list) => {
                property(of, name)?.map(|text| list.iter().any(|element| element == text))
            }
            // Without text, and for an empty one, both it and its opposite are FALSE.
            Self::Search { what, .. } if what.is_empty() => Some(false),
            Self::Search {
                within,
                part,
                what,
                not,
            } => Some(match within.value(of)? {
                Some(Value::Text(text)) => part.of(text, what) != *not,
                _ => false,
            }),
        };
        Ok(truth.map(Value::Bool))
    }
}

/// AND (`decisive` FALSE) and OR (`decisive` TRUE) of three values, from left to right until decided: what
/// comes after is not evaluated and cannot throw.
fn decided(
    decisive: bool,
    truths: impl Iterator<Item = Result<Option<bool>, Fault>>,
) -> Result<Option<bool>, Fault> {
    let mut outcome = Some(!decisive);
    for truth in truths {
        match truth? {
            Some(truth) if truth == decisive => return Ok(Some(decisive)),
            Some(_) => {}
            None => outcome = None,
        }
    }
    Ok(outcome)
}

/// Two texts are compared as floating point numbers.
fn ordered(
    left: Option<Value<'_>>,
    right: &Node,
    holds: Relation,
    of: &Properties,
) -> Result<Option<bool>, Fault> {
    let Some(left) = left else {
        return Ok(None);
    };
    let Some(right) = right.value(of)? else {
        return Ok(None);
    };
    let order = match (left, right) {
        (Value::Text(left), Value::Text(right)) => {
            Value::Double(double(left)?).order(Value::Double(double(right)?))
        }
        _ => left.compare(right)?,
    };
    Ok(Some(holds(order)))
}

/// Bytes that are not UTF-8 were replaced, and Java may replace them otherwise.
fn property<'v>(of: &'v Properties, name: &str) -> Result<Option<&'v str>, Fault> {
    match of.get(name) {
        Some(text) if text.contains(char::REPLACEMENT_CHARACTER) => Err(Fault::Undecided),
        text => Ok(text),
    }
}

impl Part {
    fn of(self, text: &str, what: &str) -> bool {
        match self {
            Self::Any => text.contains(what),
            Self::Start => text.starts_with(what),
            Self::End => text.ends_with(what),
        }
    }
}

impl Value<'_> {
    /// Of anything but a number it is NULL.
    fn negated(self) -> Option<Self> {
        match self {
            Self::Int(number) => Some(Self::Int(number.wrapping_neg())),
            Self::Long(number) => Some(Self::Long(number.wrapping_neg())),
            Self::Double(number) => Some(Self::Double(-number)),
            Self::Bool(_) | Self::Text(_) => None,
        }
    }

    /// Text beside another type is read as that type.
    fn compare(self, other: Self) -> Result<Ordering, Fault> {
        match (self, other) {
            (Self::Text(left), Self::Text(right)) => Ok(left.cmp(right)),
            // The broker takes the truth for text here.
            (Self::Bool(_), Self::Text(_)) => Err(Fault::Throws),
            (Self::Text(text), _) => Ok(other.same_type(text)?.order(other)),
            (_, Self::Text(text)) => Ok(self.order(self.same_type(text)?)),
            _ => Ok(self.order(other)),
        }
    }

    fn same_type(self, text: &str) -> Result<Self, Fault> {
        Ok(match self {
            Self::Bool(_) => Self::Bool(text.eq_ignore_ascii_case("true")),
            Self::Int(_) => Self::Int(integer(text)?),
            Self::Long(_) => Self::Long(integer(text)?),
            Self::Double(_) => Self::Double(double(text)?),
            Self::Text(_) => self,
        })
    }

    /// Without text. A truth value is less than a number, and a number than it.
    fn order(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Bool(left), Self::Bool(right)) => left.cmp(&right),
            (Self::Int(left), Self::Int(right)) => left.cmp(&right),
            (Self::Int(left), Self::Long(right)) => i64::from(left).cmp(&right),
            (Self::Long(left), Self::Int(right)) => left.cmp(&right.into()),
            (Self::Long(left), Self::Long(right)) => left.cmp(&right),
            _ => match (self.float(), other.float()) {
                (Some(left), Some(right)) => left.total_cmp(&right),
                _ => Ordering::Less,
            },
        }
    }

    /// For `Double.compareTo`: -0.0 comes before 0.0, and NaN, which has no sign here, after all.
    fn float(self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(number.into()),
            Self::Long(number) => Some(number as f64),
            Self::Double(number) => Some(number),
            Self::Bool(_) | Self::Text(_) => None,
        }
    }
}

/// `Integer.valueOf` and `Long.valueOf`, which also read digits of other scripts.
fn integer<N: FromStr>(text: &str) -> Result<N, Fault> {
    text.parse().map_err(|_| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if !text.is_ascii() && digits.chars().all(char::is_numeric) {
            Fault::Undecided
        } else {
            Fault::Throws
        }
    })
}

/// `Double.valueOf`: blanks around and a suffix for the type are allowed.
fn double(text: &str) -> Result<f64, Fault> {
    let text = text.trim_matches(|character| character <= ' ');
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned {
        "NaN" => return Ok(f64::NAN),
        "Infinity" if text.starts_with('-') => return Ok(f64::NEG_INFINITY),
        "Infinity" => return Ok(f64::INFINITY),
        _ if unsigned.starts_with("0x") || unsigned.starts_with("0X") => {
            return Err(Fault::Undecided);
        }
        _ => {}
    }
    let number = text.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(text);
    // Rust would read words as well, such as "inf".
    let written_in_digits = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    if number.bytes().all(written_in_digits) {
        number.parse().map_err(|_| Fault::Throws)
    } else {
        Err(Fault::Throws)
    }
}

#[cfg(test)]
mod tests;
