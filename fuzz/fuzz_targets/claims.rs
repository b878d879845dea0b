//! `cargo fuzz run claims`: see `herald_fuzz::claims`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| herald_fuzz::claims(input));
