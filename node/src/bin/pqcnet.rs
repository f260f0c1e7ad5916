//! pqcnet
fn main() {}
