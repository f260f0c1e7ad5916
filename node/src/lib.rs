//! The binaries: pqcnet, pqcnet-sentry, pqcnet-relayer.
