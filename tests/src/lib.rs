//! Cross-crate tests: processes, conformance, house rules.
