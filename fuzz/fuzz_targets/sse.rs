//! `cargo fuzz run sse`: see `herald_fuzz::sse`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| herald_fuzz::sse(input));
