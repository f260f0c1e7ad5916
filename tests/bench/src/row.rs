//! One line of the table: what was measured, beside which named peer, in the same run.

use std::fmt;

/// A measured figure and the peer it is held against.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where it belongs: `actor`, `handshake`, `stream` or `flow`.
    pub group: &'static str,
    /// What was measured, parameters included: `tell, 64 B, one arbiter`.
    pub what: String,
    /// The figure.
    pub value: f64,
    /// Its unit: `msg/s`, `us`, `GiB/s`, `bytes`.
    pub unit: &'static str,
    /// The peer measured in the same run, if there is one.
    pub peer: Option<Peer>,
}

/// A named competitor of the same run, in the row's unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// Its name: `raw actix`, `rustls X25519MLKEM768 + ML-DSA-65`.
    pub name: String,
    /// Its figure.
    pub value: f64,
}

impl Row {
    /// A figure on its own.
    pub fn new(
        group: &'static str,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) -> Self {
        Self {
            group,
            what: what.into(),
            value,
            unit,
            peer: None,
        }
    }

    /// The same figure beside a peer's.
    pub fn beside(mut self, name: impl Into<String>, value: f64) -> Self {
        self.peer = Some(Peer {
            name: name.into(),
            value,
        });
        self
    }

    /// This figure over the peer's; `None` without a peer or when the peer measured nothing.
    pub fn ratio(&self) -> Option<f64> {
        self.peer
            .as_ref()
            .filter(|peer| peer.value > 0.0)
            .map(|peer| self.value / peer.value)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<10} {:<52} {:>12} {:<8}",
            self.group,
            self.what,
            figure(self.value),
            self.unit
        )?;
        if let (Some(peer), Some(ratio)) = (&self.peer, self.ratio()) {
            write!(f, " {ratio:>6.2} x {} ({})", peer.name, figure(peer.value))?;
        }
        Ok(())
    }
}

/// Three or four significant digits, thousands grouped: a bench has no more to say.
fn figure(value: f64) -> String {
    if value.abs() >= 1000.0 {
        let digits = format!("{value:.0}");
        let (sign, digits) = digits
            .strip_prefix('-')
            .map_or(("", digits.as_str()), |rest| ("-", rest));
        let mut out = String::from(sign);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index) % 3 == 0 {
                out.push(',');
            }
            out.push(digit);
        }
        out
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    // Scenario: figures of each size, with and without a peer, are printed and divided.
    use super::*;

    #[test]
    fn figures_are_short_and_grouped() {
        let shown: Vec<String> = [1_234_567.4, 999.94, 12.34, 0.1234, -4321.0]
            .map(figure)
            .into();
        assert_eq!(shown, ["1,234,567", "999.9", "12.3", "0.123", "-4,321"]);
    }

    #[test]
    fn a_ratio_needs_a_peer_that_measured_something() {
        let row = Row::new("actor", "tell", 300.0, "ns");
        assert_eq!(row.ratio(), None);
        assert_eq!(row.clone().beside("raw actix", 0.0).ratio(), None);
        assert_eq!(row.beside("raw actix", 150.0).ratio(), Some(2.0));
    }
}
