#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trigger_fuzz::run("urls", data));
