//! `cargo fuzz run framing`: see `herald_fuzz::framing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| herald_fuzz::framing(input));
