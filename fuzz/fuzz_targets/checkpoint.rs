//! `cargo fuzz run checkpoint`: see `herald_fuzz::checkpoint`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| herald_fuzz::checkpoint(input));
