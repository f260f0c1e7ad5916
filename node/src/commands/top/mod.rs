//! `pqcnet top`: a live view of a network: what is wrong, every node, the shards furthest behind.
//!
//! It asks every node for its status each second, as `pqcnet status` does. [`board`] holds what was said and what changed since;
//! [`view`] draws it. Both are pure; this file has the terminal, the clock and the network.

mod board;
mod view;

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use pqcnet_actor::Env;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

pub use board::Board;
pub use view::draw;

use super::identity::IdentityArgs;
use super::nodes::chosen;
use super::status::{ask, problems};
use crate::exit::{Exit, Failed};
use crate::operator::Operator;
use crate::signals::Interrupt;

/// How long the keyboard's thread waits before it looks whether it is still wanted.
const KEYBOARD: Duration = Duration::from_millis(200);

/// Whom to watch.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// A node's name, its id, or the beginning of it; without one, every node with a data address.
    node: Option<String>,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Seconds between rounds.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    every: u64,
}

/// `pqcnet top`: until q, Esc or Ctrl-C.
pub async fn top(args: &TopArgs) -> Result<Exit, Failed> {
    if !std::io::stdout().is_terminal() {
        return Err(Failed::usage(anyhow::anyhow!(
            "top needs a terminal; `pqcnet status` prints once"
        )));
    }
    let identity = args.identity.open("operator")?;
    let env = Env::plain();
    let operator = Operator::new(&env, identity.keys.clone(), &identity.network)?;
    let nodes = chosen(&identity.network, &identity.names, args.node.as_deref())?;
    let mut board = Board::new(identity.network.name(), identity.names.clone());
    let mut interrupt = Interrupt::new()?;
    let mut keys = keyboard(&env)?;
    let mut terminal = ratatui::try_init().context("the terminal")?;
    let outcome = async {
        loop {
            terminal
                .draw(|frame| draw(frame, &board))
                .context("the terminal")?;
            let round = async {
                if board.rounds() > 0 {
                    env.sleep(Duration::from_secs(args.every)).await;
                }
                ask(&operator, &nodes).await
            };
            tokio::select! {
                biased;
                () = interrupt.next() => return Ok(()),
                () = asked_to_end(&mut keys) => return Ok(()),
                answers = round => {
                    let problems = problems(&identity.network, &identity.names, &answers);
                    board.hear(env.now(), answers, problems);
                }
            }
        }
    };
    let outcome: anyhow::Result<()> = outcome.await;
    ratatui::try_restore().context("the terminal")?;
    outcome?;
    Ok(Exit::Ok)
}

async fn asked_to_end(keys: &mut mpsc::Receiver<KeyEvent>) {
    while let Some(key) = keys.recv().await {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return,
            KeyCode::Char('c') if control => return,
            _ => {}
        }
    }
}

/// Keys as they are pressed, by a thread that ends with its receiver.
fn keyboard(env: &Env) -> anyhow::Result<mpsc::Receiver<KeyEvent>> {
    let (pressed, keys) = mpsc::channel(16);
    env.dedicated_thread("keyboard", move || {
        while !pressed.is_closed() {
            match event::poll(KEYBOARD).and_then(|ready| ready.then(event::read).transpose()) {
                Ok(Some(Event::Key(key))) if key.kind == KeyEventKind::Press => {
                    if pressed.blocking_send(key).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => return tracing::debug!(%error, "keyboard"),
            }
        }
    })
    .context("no thread for the keyboard")?;
    Ok(keys)
}
