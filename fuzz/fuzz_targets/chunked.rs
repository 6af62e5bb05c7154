#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| spikegate::fuzzing::chunked(bytes));
