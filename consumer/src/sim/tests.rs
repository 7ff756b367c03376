use super::*;

#[test]
fn promises_hold_in_any_world() {
    let seeds = std::env::var("KEYLANE_SIM_SEEDS").map_or(300, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let run = std::panic::catch_unwind(|| World::new(Plan::any(seed)).run());
        assert!(run.is_ok(), "seed {seed} fails: {:?}", Plan::any(seed));
    }
}
