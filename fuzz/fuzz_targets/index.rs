//! `cargo fuzz run index`: see `herald_log::fuzzing::index`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| herald_log::fuzzing::index(input));
