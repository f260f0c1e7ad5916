//! pqcnet-sentry
fn main() {}
