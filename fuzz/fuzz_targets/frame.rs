//! `cargo fuzz run frame`: see `herald_log::fuzzing::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| herald_log::fuzzing::frame(input));
