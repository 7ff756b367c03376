//! Comparing secrets.

/// Compares in a time that does not tell how much agrees.
pub fn is_same(given: &[u8], expected: &[u8]) -> bool {
    let differs = given
        .iter()
        .zip(expected)
        .fold(0, |differs, (left, right)| differs | (left ^ right));
    given.len() == expected.len() && differs == 0
}
