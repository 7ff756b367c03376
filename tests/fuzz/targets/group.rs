#![no_main]
#![recursion_limit = "512"]

#[path = "../guided.rs"]
mod guided;

libfuzzer_sys::fuzz_target!(|input: &[u8]| guided::read("group", input));
