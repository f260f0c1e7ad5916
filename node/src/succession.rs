//! A node's request that its next identity succeed the one in use: what the root looks at before it orders so.

use pqcnet_crypto::keystore::succession_bytes;
use pqcnet_crypto::{HybridSignature, NodeId, NodeKeys, NodePublic};
use serde::{Deserialize, Serialize};

/// Longest request that is read, in bytes: keys and signatures in hexadecimal have 17,900.
pub const MAX_REQUEST: usize = 32 * 1024;

/// Signed by both identities over the same bytes: nobody can hand his own key in for another's node, or another's key for
/// his own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succession {
    /// The network it is for.
    pub network_id: [u8; 32],
    /// The identity in use.
    pub old: NodePublic,
    /// The next one.
    pub new: NodePublic,
    /// The node's clock, milliseconds since the Unix epoch.
    pub asked_at_ms: u64,
    old_signature: HybridSignature,
    new_signature: HybridSignature,
}

/// Why a request is none; whoever wrote it erred.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuccessionError {
    /// Over [`MAX_REQUEST`].
    #[error("a request has at most {MAX_REQUEST} bytes, got {got}")]
    TooLong {
        /// Bytes offered.
        got: usize,
    },
    /// Not the file that `keys rotate identity` writes.
    #[error("not a succession request: {0}")]
    Malformed(String),
    /// It was made for another network.
    #[error("the request is for another network")]
    WrongNetwork,
    /// Old and new are the same.
    #[error("the request names one identity twice")]
    Same,
    /// One of the two did not sign it.
    #[error("the {0} identity did not sign the request")]
    BadSignature(&'static str),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    network: String,
    old: String,
    new: String,
    asked_at_ms: u64,
    old_signature: String,
    new_signature: String,
}

impl Succession {
    /// Signs a request with both identities.
    pub fn ask(
        network_id: [u8; 32],
        old: &NodeKeys,
        new: &NodeKeys,
        asked_at_ms: u64,
    ) -> Succession {
        let bytes = succession_bytes(&network_id, old.node_id(), new.public(), asked_at_ms);
        Succession {
            network_id,
            old: old.public().clone(),
            new: new.public().clone(),
            asked_at_ms,
            old_signature: old.sign(&bytes),
            new_signature: new.sign(&bytes),
        }
    }

    /// Checks that it is for this network and that both identities signed it.
    ///
    /// # Errors
    /// The first check that failed.
    pub fn verify(&self, network_id: &[u8; 32]) -> Result<(), SuccessionError> {
        if self.network_id != *network_id {
            return Err(SuccessionError::WrongNetwork);
        }
        if self.old.node_id() == self.new.node_id() {
            return Err(SuccessionError::Same);
        }
        let old = self.old.node_id();
        let bytes = succession_bytes(network_id, old, &self.new, self.asked_at_ms);
        for (which, public, signature) in [
            ("old", &self.old, &self.old_signature),
            ("new", &self.new, &self.new_signature),
        ] {
            public
                .verify(&bytes, signature)
                .map_err(|_| SuccessionError::BadSignature(which))?;
        }
        Ok(())
    }

    /// Who asks.
    pub fn old_id(&self) -> NodeId {
        self.old.node_id()
    }

    /// As a file.
    pub fn to_text(&self) -> String {
        let text = Text {
            network: hex::encode(self.network_id),
            old: hex::encode(self.old.to_bytes()),
            new: hex::encode(self.new.to_bytes()),
            asked_at_ms: self.asked_at_ms,
            old_signature: hex::encode(self.old_signature.to_bytes()),
            new_signature: hex::encode(self.new_signature.to_bytes()),
        };
        let body = toml::to_string(&text).expect("texts and a number are TOML");
        format!(
            "# {} asks that {} succeed it. Nothing here is secret.\n{body}",
            self.old.node_id(),
            self.new.node_id()
        )
    }

    /// Reads a file; nothing is verified.
    ///
    /// # Errors
    /// It is not one.
    pub fn parse(text: &str) -> Result<Succession, SuccessionError> {
        if text.len() > MAX_REQUEST {
            return Err(SuccessionError::TooLong { got: text.len() });
        }
        let malformed = |what: &str| SuccessionError::Malformed(what.to_owned());
        let read: Text = toml::from_str(text).map_err(|error| malformed(error.message()))?;
        let bytes = |field: &'static str, text: &str| {
            hex::decode(text).map_err(|_| malformed(&format!("`{field}` is not hexadecimal")))
        };
        let public = |field, text: &str| {
            NodePublic::from_bytes(&bytes(field, text)?)
                .map_err(|error| malformed(&format!("`{field}`: {error}")))
        };
        let signature = |field, text: &str| {
            HybridSignature::from_bytes(&bytes(field, text)?)
                .map_err(|error| malformed(&format!("`{field}`: {error}")))
        };
        Ok(Succession {
            network_id: bytes("network", &read.network)?
                .try_into()
                .map_err(|_| malformed("`network` has 64 digits"))?,
            old: public("old", &read.old)?,
            new: public("new", &read.new)?,
            asked_at_ms: read.asked_at_ms,
            old_signature: signature("old_signature", &read.old_signature)?,
            new_signature: signature("new_signature", &read.new_signature)?,
        })
    }
}

#[cfg(test)]
mod tests {
    // Scenario: a request goes through its file and verifies; one for another network, of one identity alone, with a key
    // exchanged, or damaged is refused by name.
    use super::*;

    const NETWORK: [u8; 32] = [7; 32];

    #[test]
    fn a_request_comes_back_from_its_file() {
        let (old, new) = (NodeKeys::generate(), NodeKeys::generate());
        let request = Succession::ask(NETWORK, &old, &new, 5);
        let text = request.to_text();
        assert!(text.len() <= MAX_REQUEST, "{}", text.len());
        let back = Succession::parse(&text).unwrap();
        assert_eq!(back, request);
        assert_eq!(back.verify(&NETWORK), Ok(()));
        assert_eq!(
            (back.old_id(), back.new.node_id()),
            (old.node_id(), new.node_id())
        );
    }

    #[test]
    fn what_is_not_signed_by_both_is_refused() {
        let (old, new, eve) = (
            NodeKeys::generate(),
            NodeKeys::generate(),
            NodeKeys::generate(),
        );
        let good = Succession::ask(NETWORK, &old, &new, 5);
        assert_eq!(good.verify(&[8; 32]), Err(SuccessionError::WrongNetwork));
        let same = Succession::ask(NETWORK, &old, &old, 5);
        assert_eq!(same.verify(&NETWORK), Err(SuccessionError::Same));
        let by_eve = Succession::ask(NETWORK, &eve, &new, 5);
        let stolen = Succession {
            old: old.public().clone(),
            ..by_eve
        };
        assert_eq!(
            stolen.verify(&NETWORK),
            Err(SuccessionError::BadSignature("old"))
        );
        let hers = Succession {
            new: eve.public().clone(),
            ..good.clone()
        };
        assert_eq!(
            hers.verify(&NETWORK),
            Err(SuccessionError::BadSignature("old"))
        );
        let unproven = Succession {
            new_signature: good.old_signature.clone(),
            ..good.clone()
        };
        assert_eq!(
            unproven.verify(&NETWORK),
            Err(SuccessionError::BadSignature("new"))
        );
        let later = Succession {
            asked_at_ms: 6,
            ..good
        };
        assert_eq!(
            later.verify(&NETWORK),
            Err(SuccessionError::BadSignature("old"))
        );
    }

    #[test]
    fn other_files_are_named() {
        let request = Succession::ask(NETWORK, &NodeKeys::generate(), &NodeKeys::generate(), 5);
        let text = request.to_text();
        let why = |text: &str| Succession::parse(text).unwrap_err().to_string();
        assert_eq!(
            Succession::parse(&"x".repeat(MAX_REQUEST + 1)),
            Err(SuccessionError::TooLong {
                got: MAX_REQUEST + 1
            })
        );
        assert!(why("nothing").starts_with("not a succession request: "));
        assert!(why(&text.replace("asked_at_ms", "asked")).contains("asked"));
        let odd = text.replacen("network = \"07", "network = \"0x", 1);
        assert!(
            why(&odd).ends_with("`network` is not hexadecimal"),
            "{}",
            why(&odd)
        );
        let short = text.replacen("network = \"0707", "network = \"07", 1);
        assert!(
            why(&short).ends_with("`network` has 64 digits"),
            "{}",
            why(&short)
        );
    }
}
