//! `cargo fuzz run proof`: see `herald_fuzz::proof`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| herald_fuzz::proof(input));
