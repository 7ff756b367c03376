//! Colour, where there is a terminal to show it.

use std::io::IsTerminal;

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paint(bool);

impl Paint {
    /// Text as it is.
    pub const PLAIN: Self = Self(false);

    /// Coloured if this is a terminal, and the user has not said otherwise (<https://no-color.org>).
    pub fn of(stream: &impl IsTerminal) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|kind| kind == "dumb");
        Self(stream.is_terminal() && !unwanted && !dumb)
    }

    fn coloured(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.coloured("1", text)
    }

    pub(super) fn well(self, text: &str) -> String {
        self.coloured("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.coloured("31", text)
    }

    pub(super) fn note(self, text: &str) -> String {
        self.coloured("33", text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.coloured("2", text)
    }
}
