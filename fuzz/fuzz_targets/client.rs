//! `cargo fuzz run client`: see `herald_fuzz::client`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| herald_fuzz::client(input));
