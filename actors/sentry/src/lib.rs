//! The sentry: one session a client link, one uplink a relayer.
