#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqcnet_fuzz_targets::run("log_bundle", data));
