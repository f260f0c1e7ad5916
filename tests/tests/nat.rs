//! Nodes behind NATs, in real processes on hosts of their own: circuits, holes, and who finds out by itself how it is reached.
//!
//! Each test runs in network namespaces that it makes and that end with it (`pqcnet_tests::hosts`); as root.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pqcnet_messages::Role;
use pqcnet_tests::hosts::{Host, Ports, World, alone};
use pqcnet_tests::network::{CONTROL_PORT, Network, Node};

/// What is broken does not come about in this time either: three attempts at a hole may take twenty seconds.
const GIVE_UP: Duration = Duration::from_secs(90);
/// Between two looks.
const PACE: Duration = Duration::from_millis(100);
const ANYWHERE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// Runs a test that waits on hosts of its own.
fn on_hosts(name: &str, body: impl Future<Output = Result<()>>) -> Result<()> {
    alone(name, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(body)
    })
}

/// One of a node's metrics; none while it is too busy to give an account of itself.
fn metric(node: &Node, name: &str) -> Result<Option<f64>> {
    let url = format!("http://{}/metrics", node.admin()?);
    let host = node.host().context("a host")?;
    let answer = host.within(|| ureq::get(&url).call())??;
    let text = answer.into_body().read_to_string()?;
    let mut plain = text.lines().filter_map(|line| line.split_once(' '));
    let found = plain.find(|(found, _)| *found == name);
    Ok(found.and_then(|(_, value)| value.parse().ok()))
}

/// Looks again until it is so, or the time is up; then every node's log is part of the failure.
async fn until(network: &Network, what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let looking = async {
        while !holds()? {
            tokio::time::sleep(PACE).await;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(GIVE_UP, looking).await {
        Ok(looked) => looked,
        Err(_) => {
            let logs = network.nodes.iter().map(|node| {
                let log = node.log();
                format!("--- {} ({})\n{log}", node.name, node.id.short())
            });
            anyhow::bail!("never {what}\n{}", logs.collect::<String>())
        }
    }
}

/// Waits until a node has links of the control plane with exactly so many peers.
async fn linked_with(network: &Network, node: &Node, peers: u64) -> Result<()> {
    let what = format!("{} is linked with {peers}", node.name);
    until(network, &what, || {
        Ok(metric(node, "pqcnet_mesh_peers_linked")? == Some(peers as f64))
    })
    .await
}

async fn says(network: &Network, node: &Node, words: &str) -> Result<()> {
    let what = format!("{} says `{words}`", node.name);
    until(network, &what, || Ok(node.log().contains(words))).await
}

/// The TCP connections of a host with another address, as the host sees them.
fn connections(from: &Host, with: Ipv4Addr) -> Result<usize> {
    let with = with.to_string();
    let listed = from.run("ss", &["-Htn", "state", "established", "dst", &with], "")?;
    Ok(listed.lines().count())
}

fn reached(network: &Network, how: &[(Role, usize, &str)]) -> Result<()> {
    for (role, number, reach) in how {
        let node = network.node(*role, *number);
        node.configure(&format!("[mesh]\nreach = \"{reach}\"\n"))?;
    }
    Ok(())
}

/// A relay, sentry 1, that everybody reaches, and two nodes behind a NAT each that are reached through it: sentry 2 and
/// relayer 1. With the relay's host and those of the two.
fn behind_two_nats(world: &mut World, ports: Ports) -> Result<(Network, Host, [Host; 2])> {
    let public = world.host()?;
    let (one, two) = (world.behind_nat(ports, &[])?, world.behind_nat(ports, &[])?);
    let network = Network::on_hosts(
        &[(public.clone(), public.at), (one.clone(), one.at)],
        &[(two.clone(), two.at)],
    )?;
    reached(
        &network,
        &[
            (Role::Sentry, 1, "relay"),
            (Role::Sentry, 2, "relayed"),
            (Role::Relayer, 1, "relayed"),
        ],
    )?;
    Ok((network, public, [one, two]))
}

/// Two nodes behind two NATs that let in nothing but answers, and a relay that both reach. They meet through the relay; the
/// relay tells each how it is seen, both dial at once, and a connection from NAT to NAT takes the circuit's place. When the
/// relay is killed they stay linked.
#[test]
fn a_hole_is_punched_through_two_nats() -> Result<()> {
    on_hosts("a_hole_is_punched_through_two_nats", async {
        let mut world = World::create()?;
        let (network, public, [one, two]) = behind_two_nats(&mut world, Ports::Kept)?;
        network.start_together().await?;
        let relay = network.node(Role::Sentry, 1);
        let hidden = [
            network.node(Role::Sentry, 2),
            network.node(Role::Relayer, 1),
        ];
        for node in hidden {
            says(&network, node, "reached through a relay").await?;
            says(&network, node, "connected directly, in place of a circuit").await?;
            linked_with(&network, node, 2).await?;
        }
        for (from, to) in [(&one, &two), (&two, &one)] {
            ensure!(connections(from, to.seen_as)? >= 1, "no way to {to:?}");
        }
        relay.kill().await?;
        for node in hidden {
            says(&network, node, &format!("link closed peer={}", relay.id)).await?;
            linked_with(&network, node, 1).await?;
        }
        for (from, to) in [(&one, &two), (&two, &one)] {
            let gone = || Ok(connections(from, public.at)? == 0);
            until(&network, "the dead relay's connections are gone", gone).await?;
            ensure!(connections(from, to.seen_as)? >= 1, "no way to {to:?}");
        }
        Ok(())
    })
}

/// The same with NATs that draw a port for each connection: nobody knows at which port to knock. The attempts end, and the
/// nodes stay linked through the relay.
#[test]
fn a_nat_that_draws_ports_leaves_the_circuit() -> Result<()> {
    on_hosts("a_nat_that_draws_ports_leaves_the_circuit", async {
        let mut world = World::create()?;
        let (network, public, [one, two]) = behind_two_nats(&mut world, Ports::Drawn)?;
        network.start_together().await?;
        let hidden = [
            network.node(Role::Sentry, 2),
            network.node(Role::Relayer, 1),
        ];
        until(&network, "an attempt at a hole is given up", || {
            Ok((hidden.iter()).any(|node| node.log().contains("no hole punched")))
        })
        .await?;
        for node in hidden {
            linked_with(&network, node, 2).await?;
        }
        for (from, to) in [(&one, &two), (&two, &one)] {
            ensure!(connections(from, to.seen_as)? == 0, "a way to {to:?}");
            ensure!(connections(from, public.at)? >= 1, "no way to the relay");
        }
        Ok(())
    })
}

/// Three nodes that are to find out how they are reached: one behind a NAT, one behind a NAT that passes its port on, one on the
/// public network. The relay tries each. The first has itself reached through the relay, the others say where they were
/// reached; all link with all.
#[test]
fn nodes_find_out_how_they_are_reached() -> Result<()> {
    on_hosts("nodes_find_out_how_they_are_reached", async {
        let mut world = World::create()?;
        let (public, open) = (world.host()?, world.host()?);
        let closed = world.behind_nat(Ports::Kept, &[])?;
        let forwarded = world.behind_nat(Ports::Kept, &[CONTROL_PORT])?;
        let network = Network::on_hosts(
            &[
                (public.clone(), public.at),
                (closed.clone(), closed.at),
                (open.clone(), ANYWHERE),
            ],
            &[(forwarded.clone(), forwarded.at)],
        )?;
        reached(
            &network,
            &[
                (Role::Sentry, 1, "relay"),
                (Role::Sentry, 2, "auto"),
                (Role::Sentry, 3, "auto"),
                (Role::Relayer, 1, "auto"),
            ],
        )?;
        network.start_together().await?;
        let node = |role, number| network.node(role, number);
        says(&network, node(Role::Sentry, 2), "reached through a relay").await?;
        for (node, host) in [
            (node(Role::Sentry, 3), &open),
            (node(Role::Relayer, 1), &forwarded),
        ] {
            let told = format!("reached directly at={}:{CONTROL_PORT}", host.seen_as);
            says(&network, node, &told).await?;
            ensure!(!node.log().contains("reached through a relay"));
        }
        for node in &network.nodes {
            linked_with(&network, node, 3).await?;
        }
        network.stop().await
    })
}

/// A node behind a NAT is reached through the relay, and another one that says nowhere where it listens, as it is behind a
/// firewall, and knows nothing of NATs (`direct`). Only the second can dial the first, through the relay, and does.
#[test]
fn a_direct_node_dials_circuits() -> Result<()> {
    on_hosts("a_direct_node_dials_circuits", async {
        let mut world = World::create()?;
        let (public, mute) = (world.host()?, world.host()?);
        let hidden = world.behind_nat(Ports::Kept, &[])?;
        let network = Network::on_hosts(
            &[(public.clone(), public.at), (mute.clone(), ANYWHERE)],
            &[(hidden.clone(), hidden.at)],
        )?;
        reached(
            &network,
            &[(Role::Sentry, 1, "relay"), (Role::Relayer, 1, "relayed")],
        )?;
        network.start_together().await?;
        let mute = network.node(Role::Sentry, 2);
        says(&network, mute, "connected through a relay").await?;
        for node in [mute, network.node(Role::Relayer, 1)] {
            linked_with(&network, node, 2).await?;
        }
        network.stop().await
    })
}
