//! pqcnet-relayer
fn main() {}
