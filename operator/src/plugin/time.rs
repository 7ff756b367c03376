//! Spans of time as kubectl shows them.

use k8s_openapi::jiff::Timestamp;

/// How long ago it was, in its two largest units; a clock that is behind makes that nothing.
pub(super) fn since(moment: Timestamp, now: Timestamp) -> String {
    span(now.as_second() - moment.as_second())
}

/// A number of seconds.
pub(super) fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let first = units.iter().position(|(unit, _)| seconds >= *unit);
    let first = first.unwrap_or(units.len() - 1);
    let mut rest = seconds;
    let mut text = String::new();
    for (unit, name) in units.iter().skip(first).take(2) {
        if rest / unit > 0 || text.is_empty() {
            text += &format!("{}{name}", rest / unit);
        }
        rest %= unit;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn a_span_has_its_two_largest_units() {
        let spans = [-5, 0, 59, 60, 147, 7_200, 7_260, 93_600].map(span);
        assert_eq!(
            spans,
            ["0s", "0s", "59s", "1m", "2m27s", "2h", "2h1m", "1d2h"]
        );
    }
}
