//! `cargo fuzz run append`: see `herald_fuzz::append`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| herald_fuzz::append(input));
