//! `cargo fuzz run token`: see `herald_fuzz::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| herald_fuzz::token(input));
