//! The words of a SQL92 expression, one at a time: the broker never looks at what follows the expression,
//! so neither may this.

use super::Unread;

const KEYWORDS: [&str; 12] = [
    "NOT",
    "AND",
    "OR",
    "BETWEEN",
    "IN",
    "TRUE",
    "FALSE",
    "NULL",
    "IS",
    "CONTAINS",
    "STARTSWITH",
    "ENDSWITH",
];
/// Longer ones first.
const SIGNS: [&str; 11] = ["<>", "<=", ">=", "<", ">", "=", "(", ")", ",", "+", "-"];

#[derive(Debug)]
pub enum Token<'t> {
    End,
    /// A keyword in capitals, or a sign.
    Symbol(&'static str),
    Name(&'t str),
    /// Digits only.
    Whole(&'t str),
    Fraction(&'t str),
    Text(String),
}

pub struct Lexer<'t> {
    text: &'t str,
    rest: &'t str,
    /// Where the token that was read last begins.
    at: usize,
}

impl<'t> Lexer<'t> {
    pub fn new(text: &'t str) -> Self {
        Self {
            text,
            rest: text,
            at: 0,
        }
    }

    /// That `what` is wrong with the token that was read last.
    pub fn unread(&self, what: impl Into<String>) -> Unread {
        Unread {
            what: what.into(),
            place: self.text[..self.at].chars().count() + 1,
        }
    }

    /// The text from the token that was read last. What begins as a comment and has no end of line is one
    /// to whoever wrote it.
    pub fn remainder(&self) -> &'t str {
        let text = &self.text[self.at..];
        if text.starts_with("--") { "" } else { text }
    }

    pub fn next(&mut self) -> Result<Token<'t>, Unread> {
        self.skip_blanks();
        self.at = self.text.len() - self.rest.len();
        let Some(first) = self.rest.bytes().next() else {
            return Ok(Token::End);
        };
        let token = match first {
            b'\'' => Token::Text(self.string()?),
            b'0'..=b'9' | b'.' => self.number()?,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' => {
                let length = count(self.rest, |byte| {
                    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
                });
                let word = self.take(length);
                let keyword = KEYWORDS
                    .into_iter()
                    .find(|keyword| keyword.eq_ignore_ascii_case(word));
                keyword.map_or(Token::Name(word), Token::Symbol)
            }
            _ => {
                let sign = SIGNS.into_iter().find(|sign| self.rest.starts_with(sign));
                let sign = sign.ok_or_else(|| self.unread("this character has no meaning"))?;
                self.take(sign.len());
                Token::Symbol(sign)
            }
        };
        Ok(token)
    }

    fn take(&mut self, length: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    /// Blanks and comments; a comment of a line needs the line's end, else it is two signs.
    fn skip_blanks(&mut self) {
        loop {
            let rest = self
                .rest
                .trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
            let after = if let Some(comment) = rest.strip_prefix("--") {
                comment.split_once(['\n', '\r']).map(|(_, after)| after)
            } else if let Some(comment) = rest.strip_prefix("/*") {
                comment.split_once("*/").map(|(_, after)| after)
            } else {
                None
            };
            match after {
                Some(after) => self.rest = after,
                None => return self.rest = rest,
            }
        }
    }

    /// In quotes; a quote within is written twice.
    fn string(&mut self) -> Result<String, Unread> {
        let mut string = String::new();
        let mut rest = &self.rest[1..];
        loop {
            let (part, after) = rest
                .split_once('\'')
                .ok_or_else(|| self.unread("the text that begins here has no end"))?;
            string.push_str(part);
            let Some(more) = after.strip_prefix('\'') else {
                self.rest = after;
                return Ok(string);
            };
            string.push('\'');
            rest = more;
        }
    }

    /// A number without a point or an exponent begins with 0 only if it is 0, and may end with L.
    fn number(&mut self) -> Result<Token<'t>, Unread> {
        let digits = |from: usize| count(&self.rest[from..], |byte| byte.is_ascii_digit());
        let starts_with = |from: usize, wanted: &[u8]| {
            let byte = self.rest.as_bytes().get(from);
            byte.is_some_and(|byte| wanted.contains(byte))
        };
        let whole = digits(0);
        let point = starts_with(whole, b".");
        let mut length = whole;
        if point {
            length += 1 + digits(whole + 1);
        }
        if length == 1 && point {
            return Err(self.unread("a point begins no number"));
        }
        if starts_with(length, b"eE") {
            let sign = usize::from(starts_with(length + 1, b"+-"));
            let exponent = digits(length + 1 + sign);
            if exponent > 0 {
                return Ok(Token::Fraction(self.take(length + 1 + sign + exponent)));
            }
        }
        if point {
            return Ok(Token::Fraction(self.take(length)));
        }
        if starts_with(0, b"0") {
            return Ok(Token::Whole(self.take(1)));
        }
        let long = starts_with(length, b"lL");
        let number = self.take(length);
        self.take(usize::from(long));
        Ok(Token::Whole(number))
    }
}

fn count(text: &str, counts: impl Fn(u8) -> bool) -> usize {
    text.bytes().take_while(|byte| counts(*byte)).count()
}
