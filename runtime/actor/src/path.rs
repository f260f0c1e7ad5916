//! Where an actor stands in its node's tree.

use std::fmt;
use std::sync::Arc;

/// Names from the root down, joined by `/`: `sentry/sessions/session#17`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Arc<str>);

impl Path {
    /// A path of one name.
    pub fn root(name: &str) -> Path {
        Path(Arc::from(name))
    }

    /// This path and one more name.
    pub fn join(&self, name: &str) -> Path {
        Path(Arc::from(format!("{}/{name}", self.0)))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last name.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
