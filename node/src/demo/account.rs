//! What the demo tells at its end.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use pqcnet_p2p::handshake;

/// Largest latency that is told apart, in microseconds: ten minutes.
const MOST_US: u64 = 600_000_000;

/// With fewer messages a throughput says more about start and end than about the network.
const FEWEST: u64 = 1000;

/// Times from send to arrival, in microseconds.
#[derive(Debug)]
pub struct Ways {
    /// Of messages sent one at a time.
    pub unhurried: Histogram<u64>,
    /// Of messages sent at full speed.
    pub hurried: Histogram<u64>,
}

impl Ways {
    /// Pairs the times of each channel by offset; the first `unhurried` of each were sent one at a time.
    pub fn from_times(sent: &[Vec<u64>], received: &[Vec<u64>], unhurried: u64) -> Result<Ways> {
        let histogram = || Histogram::new_with_bounds(1, MOST_US, 3).context("a histogram");
        let mut ways = Ways {
            unhurried: histogram()?,
            hurried: histogram()?,
        };
        for (sent, received) in sent.iter().zip(received) {
            ensure!(
                sent.len() == received.len(),
                "{} sent, {} received",
                sent.len(),
                received.len()
            );
            for (index, (sent, received)) in sent.iter().zip(received).enumerate() {
                let slow = (index as u64) < unhurried;
                let way = if slow {
                    &mut ways.unhurried
                } else {
                    &mut ways.hurried
                };
                way.saturating_record(received.saturating_sub(*sent).max(1));
            }
        }
        Ok(ways)
    }
}

/// The account of a demo that went well.
#[derive(Debug)]
pub struct Account {
    /// Where the messages came from.
    pub input: String,
    /// How many.
    pub messages: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Processes of the network, publisher and subscriber included.
    pub processes: usize,
    /// A handshake with the sentry.
    pub handshake: handshake::Account,
    /// Channels used.
    pub channels: u64,
    /// Shards that hold records, of how many.
    pub shards: (u64, u64),
    /// From the first message sent at full speed to the last arrival, in microseconds.
    pub full_speed_us: u64,
    /// Latencies.
    pub ways: Ways,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handshake = &self.handshake;
        writeln!(
            f,
            "\nPQCNet demo: every message arrived once, in order, unaltered\n"
        )?;
        writeln!(f, "input        {}", self.input)?;
        writeln!(
            f,
            "messages     {} ({} bytes) in {} channels; count, order and SHA-256 equal at the far end",
            grouped(self.messages),
            grouped(self.bytes),
            self.channels
        )?;
        writeln!(
            f,
            "processes    {}: 1 sentry, 2 relayers, 1 publisher, 1 subscriber",
            self.processes
        )?;
        writeln!(
            f,
            "suite        QSTP/1 suite {}: X-Wing (X25519 + ML-KEM-768), Ed25519 + ML-DSA-65, {:?}",
            handshake.suite.number(),
            handshake.suite
        )?;
        writeln!(
            f,
            "handshake    {} bytes ({} out, {} in), {:.1} ms",
            grouped((handshake.sent + handshake.received) as u64),
            handshake.sent,
            handshake.received,
            handshake.took.as_secs_f64() * 1e3
        )?;
        writeln!(
            f,
            "shards       {} of {} hold records, on 2 relayers; every message synced before its ack",
            self.shards.0, self.shards.1
        )?;
        if self.ways.hurried.len() < FEWEST {
            writeln!(f, "throughput   no figure from so few messages")?;
        } else {
            let hurried = self.ways.hurried.len().saturating_mul(1_000_000);
            let per_second = grouped(hurried / self.full_speed_us.max(1));
            writeln!(
                f,
                "throughput   {per_second} messages/s from publish to delivery, at full speed"
            )?;
        }
        if !self.ways.hurried.is_empty() {
            way(
                f,
                "latency",
                &self.ways.hurried,
                "at full speed, waiting in batches included",
            )?;
        }
        if !self.ways.unhurried.is_empty() {
            way(f, "latency", &self.ways.unhurried, "one message at a time")?;
        }
        Ok(())
    }
}

fn way(f: &mut fmt::Formatter<'_>, name: &str, way: &Histogram<u64>, when: &str) -> fmt::Result {
    let ms = |quantile| way.value_at_quantile(quantile) as f64 / 1e3;
    writeln!(
        f,
        "{name:<12} p50 {:.1} ms, p99 {:.1} ms, {when} ({} messages)",
        ms(0.5),
        ms(0.99),
        grouped(way.len())
    )
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    // Scenario: times are paired by offset, the slow ones apart; a missing one is an error.
    use super::*;

    #[test]
    fn times_are_paired_by_offset() {
        let ways = Ways::from_times(&[vec![10, 20, 30]], &[vec![15, 40, 60]], 1).unwrap();
        assert_eq!((ways.unhurried.len(), ways.unhurried.max()), (1, 5));
        assert_eq!(
            (ways.hurried.len(), ways.hurried.min(), ways.hurried.max()),
            (2, 20, 30)
        );
        let error = Ways::from_times(&[vec![1, 2]], &[vec![1]], 0).unwrap_err();
        assert_eq!(error.to_string(), "2 sent, 1 received");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [7, 1000, 1_234_567].map(grouped),
            ["7", "1,000", "1,234,567"]
        );
    }
}
