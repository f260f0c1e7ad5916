//! Supervised actors on actix: behaviours, refs, bounded mailboxes, trees, Env.
