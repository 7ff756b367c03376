//! What the broker says of the same is asked in `tests/consumer/filters.rs`.

use super::*;
use proptest::prelude::*;

fn read(text: &str) -> Expression {
    Expression::parse(text).unwrap_or_else(|unread| panic!("{text}: {unread}"))
}

/// A message with properties of many kinds.
fn properties() -> Properties {
    [
        ("i", "7"),
        ("minus", "-7"),
        ("plus", "+7"),
        ("big", "3000000000"),
        ("d", "2.5"),
        ("suffixed", " 2.5f "),
        ("nan", "NaN"),
        ("inf", "Infinity"),
        ("rust", "inf"),
        ("zero", "-0.0"),
        ("hex", "0x1p1"),
        ("arabic", "٧"),
        ("umlaut", "7ü"),
        ("broken", "a\u{FFFD}"),
        ("s", "it's blue"),
        ("t", "True"),
        ("_$1", "odd"),
    ]
    .into_iter()
    .collect()
}

/// Expressions, separated by bars. Each is evaluated by itself and negated, so that NULL and FALSE are told
/// apart.
fn assert_truths(truth: Option<bool>, texts: &str) {
    for text in texts.split('|').map(str::trim) {
        let found = read(text).node.truth(&properties());
        assert_eq!(found, Ok(truth), "{text}");
        let opposite = read(&format!("NOT ({text})")).matches(&properties());
        assert_eq!(opposite, truth == Some(false), "NOT ({text})");
    }
}

fn assert_faults(fault: Fault, texts: &str) {
    for text in texts.split('|').map(str::trim) {
        assert_eq!(read(text).node.truth(&properties()), Err(fault), "{text}");
        let matches = read(text).matches(&properties());
        assert_eq!(matches, fault == Fault::Undecided, "{text}");
    }
}

#[test]
fn relations_compare_numbers() {
    assert_truths(
        Some(true),
        "i = 7 | i <> 8 | i > 6 | i >= 7 | i < 8 | i <= 7 | 7 = i | 8 > i | minus = -7 | \
         minus < 0 | plus = 7 | plus = +7 | i = 7L | i = 7l | i > 6.5 | i = 7. | d = 2.5 | d > .5 | \
         d = 25e-1 | d < 1E+3 | d = suffixed OR d < i | i > minus | suffixed = 2.5 | \
         big = 3000000000 | big > 2147483648 | nan > 1.5 | nan = nan | nan > inf | inf > 1e300 | zero < 1.5 | \
         3 > 2.5 | 3 < 3000000000 | 3000000000 > 3 | 3000000000 = 3e9 | - (0 = 0) IS NULL | \
         -i IS NULL | - -7 = i",
    );
    assert_truths(
        Some(false),
        "i = 8 | i <> 7 | i > 7 | i < 7 | d > 2.5 | 3 = 4 | nan < 1.5 | d = suffixed",
    );
}

#[test]
fn text_that_is_no_number_of_the_type_beside_it_fails_as_a_whole() {
    assert_faults(
        Fault::Throws,
        "s > 1 | s = 1 | 1 <> s | d > 2 | big > 7 | s > d | s BETWEEN 1 AND 2 | rust > 1.5 | \
         NOT (s > 1) | i = 7 AND s > 1 | s > 1 OR i = 7 | TRUE = t | (i = 7) = t | zero = 0",
    );
    assert_truths(Some(true), "i = 7 OR s > 1");
    assert_truths(Some(false), "i = 8 AND s > 1");
}

#[test]
fn what_java_may_read_otherwise_is_left_to_the_broker() {
    assert_faults(
        Fault::Undecided,
        "arabic = 7 | hex > 1.5 | broken = 'a' | NOT (broken STARTSWITH 'b')",
    );
    assert_faults(Fault::Throws, "arabic > 1.5 | umlaut = 7");
    assert_truths(Some(true), "arabic = '٧' | hex CONTAINS 'x'");
}

#[test]
fn text_is_equal_in_part_or_in_a_list() {
    assert_truths(
        Some(true),
        "s = 'it''s blue' | s <> 'blue' | s CONTAINS 'blue' | s STARTSWITH 'it' | s ENDSWITH 'e' | \
         s NOT CONTAINS 'red' | s NOT STARTSWITH 'blue' | s NOT ENDSWITH 'it' | i IN ('6', '7') | \
         i NOT IN ('8') | 'blue' CONTAINS 'lu' | _$1 = 'odd' | 'a' = 'a'",
    );
    assert_truths(
        Some(false),
        "s CONTAINS '' | s NOT CONTAINS '' | none CONTAINS 'a' | none NOT CONTAINS 'a' | \
         7 CONTAINS '7' | s NOT CONTAINS 'blue' | i IN ('8') | i NOT IN ('7') | S = 'x' AND i = 8 | \
         none STARTSWITH 'a' | none NOT ENDSWITH 'a' | i CONTAINS '7' CONTAINS 'T'",
    );
}

#[test]
fn null_is_unknown_but_not_to_the_right_of_an_equation() {
    assert_truths(
        None,
        "none = 1 | none <> 1 | none > 1 | 1 > none | none BETWEEN 1 AND 2 | none IN ('a') | \
         none NOT IN ('a') | none | NULL | none = 1 AND i = 7 | none = 1 OR i = 8 | -s > 1 | \
         S = 'it''s blue' | none NOT BETWEEN 1 AND 2 | i NOT BETWEEN none AND 8",
    );
    assert_truths(
        Some(true),
        "none IS NULL | i IS NOT NULL | none = nothing | 1 <> none | none = 1 OR i = 7 | \
         (none = 1) IS NULL | i NOT BETWEEN none AND 6",
    );
    assert_truths(
        Some(false),
        "none IS NOT NULL | i IS NULL | 1 = none | none = 1 AND i = 8 | i BETWEEN none AND 6",
    );
}

#[test]
fn between_has_both_bounds() {
    assert_truths(
        Some(true),
        "i BETWEEN 7 AND 8 | i BETWEEN 6 AND 7 | i NOT BETWEEN 8 AND 9",
    );
    assert_truths(
        Some(false),
        "i BETWEEN 8 AND 9 | i NOT BETWEEN 7 AND 8 | i NOT BETWEEN 6 AND 7",
    );
    assert_truths(
        Some(true),
        "i BETWEEN 6 AND 8 AND i BETWEEN minus AND i | 5 BETWEEN minus AND i",
    );
}

#[test]
fn a_truth_value_is_its_own_type() {
    assert_truths(
        Some(true),
        "TRUE | t = TRUE | s = FALSE | (i = 7) = TRUE | NOT t | (i = 7) <> 1 | 1 <> (i = 7)",
    );
    assert_truths(
        Some(false),
        "FALSE | t | NOT t = 1 | t AND i = 7 | NOT i IS NULL",
    );
}

#[test]
fn words_signs_and_comments_are_told_apart_as_the_broker_does() {
    assert_truths(
        Some(true),
        "i=7and(d>1.5) | i /* * a -- ** */ = 7 | i = -- seven\n7 | \ti\n=\r7\x0c | \
         i Between 6 aNd 8 | i >= --7 | i = 7 OR/**/none | i > 00.5 | s is not null",
    );
}

#[test]
fn what_follows_the_expression_is_ignored_as_the_broker_does() {
    for (text, ignored) in [
        ("i = 7 anything * goes", "anything * goes"),
        ("i = 7 'a' AND i = 8", "'a' AND i = 8"),
        ("i <> 07", "7"),
        ("i = 7) AND (i = 8", ") AND (i = 8"),
        ("i = 7 -- without an end of the line", ""),
        ("i = 7 -- with one\n /* none */ ", ""),
    ] {
        assert!(read(text).matches(&properties()), "{text}");
        assert_eq!(read(text).ignored(), ignored);
    }
    let like = read("s LIKE 'it%'");
    assert!(!like.matches(&properties()));
    assert_eq!(like.ignored(), "LIKE 'it%'");
}

#[test]
fn and_binds_closer_than_or_and_not_closest() {
    assert_truths(
        Some(true),
        "i = 7 OR i = 7 AND i = 8 | NOT (i = 8) AND i = 7",
    );
    assert_truths(
        Some(false),
        "(i = 7 OR i = 7) AND i = 8 | NOT (i = 7) OR i = 8",
    );
}

#[test]
fn what_cannot_be_read_says_where() {
    for (text, complaint) in [
        ("", "character 1: a property or a value was expected"),
        ("i >", "character 4: a property or a value was expected"),
        ("i ! 7", "character 3: this character has no meaning"),
        ("ü = 7", "character 1: this character has no meaning"),
        (
            "s = 'ü' AND 'open",
            "character 13: the text that begins here has no end",
        ),
        ("i = .", "character 5: a point begins no number"),
        ("i /* open", "character 3: this character has no meaning"),
        (
            "i = 9223372036854775808",
            "character 5: this number is too large",
        ),
        ("i IN (7)", "character 7: a text in quotes was expected"),
        ("i IN ('7'", "character 10: ) was expected"),
        ("(i = 7", "character 7: ) was expected"),
        ("7 IN ('7')", "character 3: IN is for a property only"),
        ("i NOT 7", "character 7: NOT is not expected here"),
        ("i NOT > 7", "character 7: NOT is not expected here"),
        ("i IS 7", "character 6: NULL was expected"),
        ("i = NULL", "character 9: NULL is compared by IS NULL only"),
        ("i BETWEEN 1", "character 12: AND was expected"),
        ("s > 'a'", "character 8: only numbers are more or less"),
        (
            "i BETWEEN 'a' AND 'b'",
            "character 22: only numbers are more or less",
        ),
        ("i > 1 > 2", "character 10: only numbers are more or less"),
        ("7", "character 2: what comes before is no condition"),
        ("NOT -i", "character 7: what comes before is no condition"),
        (
            "i = 7 AND 'a'",
            "character 14: what comes before is no condition",
        ),
    ] {
        let unread = Expression::parse(text).unwrap_err();
        assert_eq!(unread.to_string(), complaint, "{text}");
    }
}

/// What is deep is left to the broker, whatever makes it so; what is long is not deep.
#[test]
fn no_expression_exhausts_the_stack() {
    for deep in ["(", "NOT ", "-", "+", "(-", "NOT(", "i = ", "- (i = "] {
        let unread = Expression::parse(&deep.repeat(2_000)).unwrap_err();
        assert!(unread.what.contains("deep"), "{deep}: {unread}");
    }
    for chain in [" = i", " IS NULL", " CONTAINS 'a'"] {
        let text = format!("i{}", chain.repeat(2_000));
        assert!(Expression::parse(&text).is_err(), "{chain}");
    }
    let long =
        vec!["(i = 8) OR NOT (i > 6) OR i IN ('1') OR i BETWEEN 8 AND 9"; 2_000].join(" OR ");
    assert!(!read(&long).matches(&properties()));
    assert!(read(&format!("{long} OR i = 7")).matches(&properties()));
    let deepest = format!("{}i = 7{}", "(".repeat(64), ")".repeat(64));
    assert!(read(&deepest).matches(&properties()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in ".{0,40}") {
        let _ = Expression::parse(&text).map(|read| read.matches(&properties()));
    }

    #[test]
    fn no_words_panic(words in prop::collection::vec(prop::sample::select(vec![
        "NOT", "AND", "OR", "BETWEEN", "IN", "TRUE", "NULL", "IS", "CONTAINS", "ENDSWITH", "i", "none", "s",
        "arabic", "7", "7L", "2.5", "1e999", "'7'", "''", "=", "<>", "<", ">=", "(", ")", ",", "+", "-", "--",
        "/*", "*/", "\n", "'", "ü",
    ]), 0..24), glue in "[ ]?") {
        let _ = Expression::parse(&words.join(&glue)).map(|read| read.matches(&properties()));
    }
}
