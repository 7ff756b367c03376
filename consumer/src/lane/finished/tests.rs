use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Step {
    One(u64),
    Range(u64, u64),
}

fn steps(span: u64) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..span).prop_map(Step::One),
        1 => (0..span, 0..span / 3).prop_map(|(from, length)| Step::Range(from, from + length)),
    ];
    prop::collection::vec(step, 0..300)
}

fn agrees(start: u64, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut finished = Finished::new(start);
    let mut model: BTreeSet<u64> = (0..start).collect();
    for step in steps {
        match step {
            Step::One(offset) => prop_assert_eq!(finished.finish(offset), model.insert(offset)),
            Step::Range(from, to) => {
                finished.finish_range(from, to);
                model.extend(from..to);
            }
        }
        let watermark = (start..).find(|offset| !model.contains(offset)).unwrap();
        prop_assert_eq!(finished.watermark(), watermark);
        prop_assert_eq!(
            finished.finished_above(),
            model.range(watermark..).count() as u64
        );
    }
    let above: Vec<u64> = finished.ranges().flatten().collect();
    let expected: Vec<u64> = model.range(finished.watermark()..).copied().collect();
    prop_assert_eq!(above, expected);
    for offset in 0..model.last().map_or(0, |last| last + 2) {
        prop_assert_eq!(finished.contains(offset), model.contains(&offset));
    }
    let mut copy = Finished::new(start / 2);
    copy.union(&finished);
    prop_assert_eq!(copy.watermark(), finished.watermark());
    prop_assert!(copy.ranges().eq(finished.ranges()));
    Ok(())
}

proptest! {
    #[test]
    fn agrees_with_a_plain_set(start in 0u64..200, steps in steps(600)) {
        agrees(start, steps)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_a_plain_set_over_many_chunks(start in 0u64..200, steps in steps(3 * CHUNK)) {
        agrees(start, steps)?;
    }
}

#[test]
fn a_million_finished_offsets_beyond_a_stuck_head_take_at_most_a_bit_each() {
    let boxes = |finished: &Finished| {
        finished
            .chunks
            .iter()
            .filter(|chunk| chunk.bits.is_some())
            .count() as u64
    };
    let (mut all, mut every_other) = (Finished::new(7), Finished::new(7));
    for offset in 8..1_000_008 {
        assert!(all.finish(offset));
        assert!(every_other.finish(offset * 2));
    }
    assert_eq!((all.watermark(), all.finished_above()), (7, 1_000_000));
    assert!(boxes(&all) <= 2, "a finished run is not kept bit by bit");
    assert!(boxes(&every_other) <= 2_000_016 / CHUNK + 1);
    assert!(all.finish(7));
    assert_eq!((all.watermark(), all.finished_above()), (1_000_008, 0));
    assert!(boxes(&all) <= 1);
}

#[test]
fn a_far_jump_over_filtered_messages_costs_little() {
    let mut finished = Finished::new(0);
    finished.finish_range(0, 1 << 40);
    assert_eq!((finished.watermark(), finished.chunks.len()), (1 << 40, 0));
    // The same beyond an unfinished message: a few bytes per chunk.
    finished.finish_range((1 << 40) + 1, (1 << 40) + 1_000_000_000);
    assert_eq!(finished.finished_above(), 999_999_999);
    assert!(finished.chunks.len() < 70_000);
    finished.finish(1 << 40);
    assert_eq!(finished.finished_above(), 0);
}

#[test]
fn offsets_that_finish_in_order_take_no_memory() {
    let mut finished = Finished::new(5);
    for offset in 5..100_000 {
        finished.finish(offset);
        assert_eq!(finished.chunks.capacity(), 0);
    }
}
