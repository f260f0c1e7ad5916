//! What is wrong with a node: one fact with its root cause and its remedy, in reports and on admin pages.

use pqcnet_crypto::NodeId;
use pqcnet_link::WireError;
use pqcnet_protos::control::v1 as pb;
use serde::{Deserialize, Serialize};

use crate::codec::{clip, clip_lines, node_bytes, node_id};
use crate::control::MAX_REPORT_TEXT;

/// Most symptoms that one problem explains by name; a relayer of a full network owns that many shards.
pub const MAX_EXPLAINED: usize = 64;
/// Bytes of their names together.
pub const MAX_EXPLAINED_TEXT: usize = 4096;
/// The code of a problem that came without one, from software that knew only words.
pub const UNNAMED: &str = "unnamed";

/// How much a problem takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// All work is done; something that protects it is missing, or will be.
    Warning,
    /// Some work is not done.
    Critical,
}

impl Severity {
    /// The word in reports, metrics and alert rules.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Problem {
    /// Its stable name, in kebab case; `docs/runbooks/<code>.md` says what to do.
    pub code: String,
    /// What it takes away.
    pub severity: Severity,
    /// What is seen, in words.
    pub what: String,
    /// Why, in words: the root cause, named. Empty while it is not known.
    pub cause: String,
    /// What mends it.
    pub fix: String,
    /// The node that it is about, when that is another one.
    pub about: Option<NodeId>,
    /// Symptoms that have the same cause and need no remedy of their own.
    pub explains: Vec<String>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl Problem {
    /// With its root cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Problem {
        self.cause = cause.into();
        self
    }

    /// About another node.
    #[must_use]
    pub fn about(mut self, node: NodeId) -> Problem {
        self.about = Some(node);
        self
    }

    /// With the symptoms that it explains.
    #[must_use]
    pub fn explaining(mut self, symptoms: impl IntoIterator<Item = String>) -> Problem {
        self.explains.extend(symptoms);
        self
    }

    /// One from software that sent only words.
    pub(crate) fn unnamed(what: String) -> Problem {
        Problem {
            code: UNNAMED.to_owned(),
            severity: Severity::Critical,
            what,
            cause: String::new(),
            fix: String::new(),
            about: None,
            explains: Vec::new(),
        }
    }
}

impl From<&Problem> for pb::Problem {
    fn from(problem: &Problem) -> Self {
        let severity = match problem.severity {
            Severity::Warning => pb::Severity::Warning,
            Severity::Critical => pb::Severity::Critical,
        };
        let named: Vec<String> = (problem.explains.iter().take(MAX_EXPLAINED))
            .map(|symptom| symptom.replace('\n', " "))
            .collect();
        Self {
            code: clip(&problem.code, MAX_REPORT_TEXT),
            severity: severity.into(),
            what: clip(&problem.what, MAX_REPORT_TEXT),
            cause: clip(&problem.cause, MAX_REPORT_TEXT),
            fix: clip(&problem.fix, MAX_REPORT_TEXT),
            about: problem.about.as_ref().map(node_bytes).unwrap_or_default(),
            explains: clip_lines(&named.join("\n"), MAX_EXPLAINED_TEXT),
        }
    }
}

impl TryFrom<pb::Problem> for Problem {
    type Error = WireError;

    fn try_from(problem: pb::Problem) -> Result<Self, WireError> {
        let severity = match problem.severity() {
            pb::Severity::Warning => Severity::Warning,
            // One that this software does not know is taken seriously.
            pb::Severity::Critical | pb::Severity::Unspecified => Severity::Critical,
        };
        let explains = clip_lines(&problem.explains, MAX_EXPLAINED_TEXT);
        let named = explains.split('\n').filter(|symptom| !symptom.is_empty());
        Ok(Problem {
            code: clip(&problem.code, MAX_REPORT_TEXT),
            severity,
            what: clip(&problem.what, MAX_REPORT_TEXT),
            cause: clip(&problem.cause, MAX_REPORT_TEXT),
            fix: clip(&problem.fix, MAX_REPORT_TEXT),
            about: match problem.about.is_empty() {
                true => None,
                false => Some(node_id("about", &problem.about)?),
            },
            explains: named.take(MAX_EXPLAINED).map(str::to_owned).collect(),
        })
    }
}
