//! `cargo fuzz run query`: see `herald_fuzz::query`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| herald_fuzz::query(input));
