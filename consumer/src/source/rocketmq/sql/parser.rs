//! The grammar, by recursive descent, with the checks the broker makes while it parses.

use super::lexer::{Lexer, Token};
use super::{Node, Part, Relation};
use std::cmp::Ordering;

/// Deeper expressions are not read, so that no expression exhausts the stack.
const DEEPEST: usize = 64;

/// Why an expression cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("character {place}: {what}")]
pub struct Unread {
    pub(super) what: String,
    /// Counted in characters, from 1.
    pub(super) place: usize,
}

/// The expression, and what follows it: as at the broker, that may be anything.
pub fn parse(text: &str) -> Result<(Node, &str), Unread> {
    let mut lexer = Lexer::new(text);
    let token = lexer.next()?;
    let mut parser = Parser {
        lexer,
        token,
        depth: 0,
    };
    let node = parser.any()?;
    Ok((parser.condition(node)?, parser.lexer.remainder()))
}

struct Parser<'t> {
    lexer: Lexer<'t>,
    token: Token<'t>,
    /// Levels that enclose what is read now, and those of the chains that were read.
    depth: usize,
}

impl<'t> Parser<'t> {
    fn next(&mut self) -> Result<Token<'t>, Unread> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    /// Whether `symbol` came; it is behind then.
    fn takes(&mut self, symbol: &str) -> Result<bool, Unread> {
        let came = matches!(self.token, Token::Symbol(token) if token == symbol);
        if came {
            self.next()?;
        }
        Ok(came)
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Unread> {
        if self.takes(symbol)? {
            Ok(())
        } else {
            Err(self.lexer.unread(format!("{symbol} was expected")))
        }
    }

    fn deeper(&mut self) -> Result<(), Unread> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let what = format!("it is nested more than {DEEPEST} deep");
            return Err(self.lexer.unread(what));
        }
        Ok(())
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Node, Unread>) -> Result<Node, Unread> {
        self.deeper()?;
        let node = read(self)?;
        self.depth -= 1;
        Ok(node)
    }

    /// Of a chain such as a = b = c every link but the first makes the tree deeper.
    fn chained(&mut self, round: usize) -> Result<(), Unread> {
        if round > 0 { self.deeper() } else { Ok(()) }
    }

    fn any(&mut self) -> Result<Node, Unread> {
        self.list("OR", Self::all, Node::Or)
    }

    fn all(&mut self) -> Result<Node, Unread> {
        self.list("AND", Self::equality, Node::And)
    }

    fn list(
        &mut self,
        separator: &str,
        read: fn(&mut Self) -> Result<Node, Unread>,
        node: fn(Vec<Node>) -> Node,
    ) -> Result<Node, Unread> {
        let first = read(self)?;
        if !self.takes(separator)? {
            return Ok(first);
        }
        let mut nodes = vec![self.condition(first)?];
        loop {
            let next = read(self)?;
            nodes.push(self.condition(next)?);
            if !self.takes(separator)? {
                return Ok(node(nodes));
            }
        }
    }

    fn equality(&mut self) -> Result<Node, Unread> {
        let mut left = self.comparison()?;
        for round in 0.. {
            let (right, not) = if self.takes("=")? {
                (self.equated(&left)?, false)
            } else if self.takes("<>")? {
                (self.equated(&left)?, true)
            } else if self.takes("IS")? {
                let not = self.takes("NOT")?;
                self.expect("NULL")?;
                (Node::Null, not)
            } else {
                break;
            };
            left = negated(Node::Equal(Box::new([left, right])), not);
            self.chained(round)?;
        }
        Ok(left)
    }

    /// The right side of = and <>, which do not take NULL.
    fn equated(&mut self, left: &Node) -> Result<Node, Unread> {
        let right = self.comparison()?;
        if matches!((left, &right), (Node::Null, _) | (_, Node::Null)) {
            return Err(self.lexer.unread("NULL is compared by IS NULL only"));
        }
        Ok(right)
    }

    fn comparison(&mut self) -> Result<Node, Unread> {
        let mut left = self.unary()?;
        for round in 0.. {
            let not = self.takes("NOT")?;
            let symbol = match self.token {
                Token::Symbol(symbol) => symbol,
                _ => "",
            };
            left = match symbol {
                ">" | ">=" | "<" | "<=" if !not => {
                    self.next()?;
                    let right = self.unary()?;
                    self.numbers([&left, &right])?;
                    Node::Ordered(Box::new([left, right]), relation(symbol))
                }
                "CONTAINS" | "STARTSWITH" | "ENDSWITH" => {
                    self.next()?;
                    Node::Search {
                        within: Box::new(left),
                        part: match symbol {
                            "CONTAINS" => Part::Any,
                            "STARTSWITH" => Part::Start,
                            _ => Part::End,
                        },
                        what: self.text()?,
                        not,
                    }
                }
                "BETWEEN" => {
                    self.next()?;
                    let low = self.unary()?;
                    self.expect("AND")?;
                    let high = self.unary()?;
                    let signs = if not { ["<", ">"] } else { [">=", "<="] };
                    self.numbers([&left, &low, &high])?;
                    Node::Between(Box::new([left, low, high]), signs.map(relation))
                }
                "IN" => {
                    let Node::Property(name) = left else {
                        return Err(self.lexer.unread("IN is for a property only"));
                    };
                    self.next()?;
                    negated(Node::In(name, self.texts()?), not)
                }
                _ if not => return Err(self.lexer.unread("NOT is not expected here")),
                _ => break,
            };
            self.chained(round)?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Node, Unread> {
        if self.takes("+")? {
            self.nested(Self::unary)
        } else if self.takes("-")? {
            Ok(Node::Negate(Box::new(self.nested(Self::unary)?)))
        } else if self.takes("NOT")? {
            let node = self.nested(Self::unary)?;
            Ok(negated(self.condition(node)?, true))
        } else if self.takes("(")? {
            let node = self.nested(Self::any)?;
            self.expect(")")?;
            Ok(node)
        } else {
            self.operand()
        }
    }

    fn operand(&mut self) -> Result<Node, Unread> {
        let unread = |what: &str| self.lexer.unread(what);
        let node = match &self.token {
            Token::Name(name) => Node::Property((*name).to_owned()),
            Token::Text(text) => Node::Text(text.clone()),
            Token::Whole(digits) => {
                let number: i64 = digits
                    .parse()
                    .map_err(|_| unread("this number is too large"))?;
                i32::try_from(number).map_or(Node::Long(number), Node::Int)
            }
            Token::Fraction(digits) => {
                Node::Double(digits.parse().map_err(|_| unread("this is no number"))?)
            }
            Token::Symbol("TRUE") => Node::Bool(true),
            Token::Symbol("FALSE") => Node::Bool(false),
            Token::Symbol("NULL") => Node::Null,
            Token::Symbol(_) | Token::End => {
                return Err(unread("a property or a value was expected"));
            }
        };
        self.next()?;
        Ok(node)
    }

    fn text(&mut self) -> Result<String, Unread> {
        let Token::Text(text) = &self.token else {
            return Err(self.lexer.unread("a text in quotes was expected"));
        };
        let text = text.clone();
        self.next()?;
        Ok(text)
    }

    fn texts(&mut self) -> Result<Vec<String>, Unread> {
        self.expect("(")?;
        let mut texts = vec![self.text()?];
        while self.takes(",")? {
            texts.push(self.text()?);
        }
        self.expect(")")?;
        Ok(texts)
    }

    /// What can be TRUE or FALSE.
    fn condition(&self, node: Node) -> Result<Node, Unread> {
        if node.is_condition() || matches!(node, Node::Property(_)) {
            Ok(node)
        } else {
            Err(self.lexer.unread("what comes before is no condition"))
        }
    }

    /// <, <=, >, >= and BETWEEN take numbers, and properties that may be some.
    fn numbers<const N: usize>(&self, nodes: [&Node; N]) -> Result<(), Unread> {
        let text_or_truth = |node: &Node| node.is_condition() || matches!(node, Node::Text(_));
        if nodes.into_iter().any(text_or_truth) {
            return Err(self.lexer.unread("only numbers are more or less"));
        }
        Ok(())
    }
}

impl Node {
    /// For the broker NULL is one, too.
    fn is_condition(&self) -> bool {
        !matches!(
            self,
            Self::Int(_)
                | Self::Long(_)
                | Self::Double(_)
                | Self::Text(_)
                | Self::Property(_)
                | Self::Negate(_)
        )
    }
}

fn negated(node: Node, not: bool) -> Node {
    if not { Node::Not(Box::new(node)) } else { node }
}

fn relation(sign: &str) -> Relation {
    match sign {
        ">" => Ordering::is_gt,
        ">=" => Ordering::is_ge,
        "<" => Ordering::is_lt,
        _ => Ordering::is_le,
    }
}
