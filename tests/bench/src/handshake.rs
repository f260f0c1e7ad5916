//! A whole handshake in memory: CPU of both sides, bytes on the wire, handshakes a second on one thread.
//!
//! Beside rustls with TLS 1.3, X25519MLKEM768 and mutual certificates, once of Ed25519 and once of ML-DSA-65. QSTP proves
//! both kinds of key at once, so the second is the nearer relative. A self-signed certificate costs its verifier a second
//! signature; the pinned variant saves it, as raw keys do in QSTP. Contenders take turns; medians count.

use std::io::{Read, Write};
use std::time::Duration;

use crate::Args;
use crate::cpu::{self, median};
use crate::pair::Qstp;
use crate::row::Row;
use crate::tls::Tls;
use anyhow::{Context as _, bail};

const GROUP: &str = "handshake";

/// What one handshake costs.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// CPU of both sides.
    cpu: Duration,
    /// Bytes in both directions.
    bytes: usize,
}

/// Measures QSTP and both kinds of TLS.
pub fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    let (rounds, handshakes) = if args.quick { (3, 20) } else { (21, 100) };
    let qstp = Qstp::new()?;
    let ed25519 = Tls::mutual(&rcgen::PKCS_ED25519)?;
    let ml_dsa = Tls::mutual(&rcgen::PKCS_ML_DSA_65)?;
    let pinned = Tls::pinned(&rcgen::PKCS_ML_DSA_65)?;
    let contenders: [&dyn Fn() -> anyhow::Result<usize>; 4] = [
        &|| Ok(qstp.shake()?.1),
        &|| tls_shake(&ed25519),
        &|| tls_shake(&ml_dsa),
        &|| tls_shake(&pinned),
    ];
    let mut samples = vec![Vec::new(); contenders.len()];
    let mut bytes = [0; 4];
    for round in 0..=rounds {
        for (index, shake) in contenders.iter().enumerate() {
            let cost = measure(handshakes, shake)?;
            bytes[index] = cost.bytes;
            // The first round warms caches and tables.
            if round > 0 {
                samples[index].push(cost.cpu.as_secs_f64() * 1e6);
            }
        }
    }
    let [ours, ed25519, ml_dsa, pinned] = [0, 1, 2, 3].map(|index| median(&mut samples[index]));
    let peers = [
        ("rustls, mutual Ed25519", ed25519, bytes[1]),
        ("rustls, mutual ML-DSA-65", ml_dsa, bytes[2]),
        ("rustls, mutual ML-DSA-65, pinned", pinned, bytes[3]),
    ];
    let mut rows = Vec::new();
    for (name, cpu, bytes_of_peer) in peers {
        rows.push(Row::new(GROUP, "CPU of both sides", ours, "us").beside(name, cpu));
        rows.push(
            Row::new(GROUP, "handshakes, one thread", 1e6 / ours, "1/s").beside(name, 1e6 / cpu),
        );
        rows.push(
            Row::new(GROUP, "on the wire", bytes[0] as f64, "bytes")
                .beside(name, bytes_of_peer as f64),
        );
    }
    Ok(rows)
}

fn measure(count: u32, shake: &dyn Fn() -> anyhow::Result<usize>) -> anyhow::Result<Cost> {
    let mut cost = Cost::default();
    let start = cpu::thread()?;
    for _ in 0..count {
        cost.bytes = shake()?;
    }
    cost.cpu = (cpu::thread()? - start) / count;
    Ok(cost)
}

/// Both sides until each has verified the other.
fn tls_shake(tls: &Tls) -> anyhow::Result<usize> {
    let (mut client, mut server) = tls.pair()?;
    let mut bytes = 0;
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() {
        let before = bytes;
        wire.clear();
        while client.wants_write() {
            bytes += client.write_tls(&mut wire as &mut dyn Write)?;
        }
        feed(&wire, |input| server.read_tls(input))?;
        server.process_new_packets().context("server")?;
        wire.clear();
        while server.wants_write() {
            bytes += server.write_tls(&mut wire as &mut dyn Write)?;
        }
        feed(&wire, |input| client.read_tls(input))?;
        client.process_new_packets().context("client")?;
        if bytes == before {
            bail!("the TLS handshake stalled");
        }
    }
    Ok(bytes)
}

fn feed(
    mut wire: &[u8],
    mut read: impl FnMut(&mut dyn Read) -> std::io::Result<usize>,
) -> anyhow::Result<()> {
    while !wire.is_empty() {
        if read(&mut wire)? == 0 {
            bail!("TLS takes no more input");
        }
    }
    Ok(())
}
