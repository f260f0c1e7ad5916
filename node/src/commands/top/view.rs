//! Draws a [`Board`]: the verdict, problems, nodes, shards.

use std::time::Duration;

use pqcnet_messages::{Problem, Severity};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table};

use super::board::{Board, stored};
use crate::commands::status::{Answer, is_starting};

/// Problems shown; the verdict counts all.
const PROBLEMS: usize = 5;

/// The whole screen.
pub fn draw(frame: &mut Frame<'_>, board: &Board) {
    let shown = board.problems.len().min(PROBLEMS);
    let problems = u16::try_from(shown * 3).unwrap_or(0);
    let nodes = u16::try_from(board.answers.len())
        .unwrap_or(u16::MAX)
        .saturating_add(3);
    let parts = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(problems),
        Constraint::Max(nodes),
        Constraint::Fill(1),
        Constraint::Length(1),
    ]);
    let [verdict, wrong, table, shards, help] = parts.areas(frame.area());
    frame.render_widget(self::verdict(board), verdict);
    let lines: Vec<Line<'_>> = board
        .problems
        .iter()
        .take(PROBLEMS)
        .flat_map(problem)
        .collect();
    frame.render_widget(Paragraph::new(lines), wrong);
    frame.render_widget(nodes_table(board), table);
    frame.render_widget(shards_table(board), shards);
    let dim = Style::new().add_modifier(Modifier::DIM);
    frame.render_widget(Paragraph::new(Line::styled("q quits", dim)), help);
}

fn verdict(board: &Board) -> Paragraph<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let (told, colour) = match (board.rounds(), board.problems.len()) {
        (0, _) => ("asking…".to_owned(), Color::Gray),
        (_, 0) => (
            format!(
                "{} of {} nodes are well",
                board.answers.len(),
                board.answers.len()
            ),
            Color::Green,
        ),
        (_, 1) => ("1 problem".to_owned(), worst(board)),
        (_, count) => (format!("{count} problems"), worst(board)),
    };
    Paragraph::new(Line::from(vec![
        Span::styled(format!("network {}  ", board.network), bold),
        Span::styled(told, bold.fg(colour)),
    ]))
}

fn worst(board: &Board) -> Color {
    let worst = board.problems.iter().map(|problem| problem.severity).max();
    worst.map_or(Color::Green, colour)
}

fn colour(severity: Severity) -> Color {
    match severity {
        Severity::Critical => Color::Red,
        Severity::Warning => Color::Yellow,
    }
}

fn problem(problem: &Problem) -> [Line<'static>; 3] {
    let style = Style::new().fg(colour(problem.severity));
    let explains = match problem.explains.len() {
        0 => String::new(),
        count => format!("  explains {count} more"),
    };
    [
        Line::styled(
            format!("{}  {}{explains}", problem.code, problem.what),
            style,
        ),
        Line::from(format!("  cause  {}", problem.cause)),
        Line::from(format!("  fix    {}", problem.fix)),
    ]
}

fn nodes_table(board: &Board) -> Table<'static> {
    let header = [
        "node", "role", "state", "up", "links", "records", "rec/s", "lag", "software",
    ];
    let rows = board.answers.iter().map(|answer| row(board, answer));
    let widths = [24, 8, 11, 10, 6, 10, 8, 8, 16].map(Constraint::Length);
    Table::new(rows, widths)
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
        .block(Block::bordered().title("nodes"))
}

fn row(board: &Board, answer: &Answer) -> Row<'static> {
    let who = board.names.full(&answer.node.id);
    match &answer.said {
        Ok(report) => {
            let well = report.problems.is_empty();
            let (state, colour) = match (well, is_starting(answer)) {
                (true, false) => ("ok", Color::Green),
                (true, true) => ("starting", Color::Cyan),
                (false, _) => ("unhealthy", Color::Yellow),
            };
            let lag = report
                .shards
                .iter()
                .map(|shard| shard.lag_records)
                .max()
                .unwrap_or(0);
            let up = Duration::from_secs(report.uptime_ms / 1000);
            Row::new([
                who,
                report.role.name().to_owned(),
                state.to_owned(),
                format!("{up:?}"),
                report.links.len().to_string(),
                stored(report).to_string(),
                format!("{:.0}", board.rate(&answer.node.id)),
                lag.to_string(),
                report.software.clone(),
            ])
            .style(Style::new().fg(colour))
        }
        Err(error) => {
            let roles = answer.node.roles.iter().map(|role| role.name());
            let state = if error.refused {
                "refuses"
            } else {
                "unreachable"
            };
            let cells = [who, roles.collect::<Vec<_>>().join("+"), state.to_owned()];
            Row::new(cells).style(Style::new().fg(Color::Red))
        }
    }
}

fn shards_table(board: &Board) -> Table<'static> {
    let header = [
        "shard",
        "owner",
        "channels",
        "records",
        "sealed bytes",
        "readers",
        "lag",
        "unwritten",
    ];
    let rows = board.shards().into_iter().map(|(owner, shard)| {
        Row::new([
            shard.id.to_string(),
            board.names.full(&owner),
            shard.channels.to_string(),
            shard.records.to_string(),
            shard.bytes.to_string(),
            shard.subscriptions.to_string(),
            shard.lag_records.to_string(),
            shard.unwritten_bytes.to_string(),
        ])
    });
    let widths = [6, 24, 9, 10, 13, 8, 8, 10].map(Constraint::Length);
    Table::new(rows, widths)
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
        .block(Block::bordered().title("shards, the one furthest behind first"))
}

#[cfg(test)]
mod tests {
    use pqcnet_crypto::NodeId;
    use pqcnet_messages::Role;
    use pqcnet_messages::control::{ShardStatus, StatusReport};
    use pqcnet_p2p::network::NodeEntry;
    use pqcnet_roles::problem::Code;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::commands::nodes::Names;
    use crate::operator::{NoAnswer, Step};

    fn node(byte: u8, role: Role) -> NodeEntry {
        NodeEntry {
            id: NodeId::from_bytes([byte; 32]),
            roles: [role].into(),
            control: Vec::new(),
            data: Vec::new(),
        }
    }

    fn answer(records: u64) -> Answer {
        let node = node(1, Role::Relayer);
        let shard = |id, lag_records| ShardStatus {
            id,
            channels: 1,
            records,
            bytes: 640,
            subscriptions: 2,
            lag_records,
            unwritten_bytes: 0,
            work: None,
        };
        let report = StatusReport {
            node_id: node.id,
            role: Role::Relayer,
            software: "pqcnet/0.1.0".to_owned(),
            uptime_ms: 65_000,
            links: Vec::new(),
            shards: vec![shard(3, 0), shard(5, 17)],
            counters: Vec::new(),
            problems: Vec::new(),
        };
        Answer {
            node,
            said: Ok(report),
        }
    }

    fn dead() -> Answer {
        let error = NoAnswer {
            step: Step::Route,
            refused: false,
            why: "refused".to_owned(),
            fault: None,
        };
        Answer {
            node: node(2, Role::Relayer),
            said: Err(error),
        }
    }

    fn screen(board: &Board, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, board)).unwrap();
        let buffer = terminal.backend().buffer();
        let cells: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
        cells
            .chunks(usize::from(width))
            .map(|line| line.concat().trim_end().to_owned())
            .collect()
    }

    fn board() -> Board {
        let names = [(1, "relayer-1"), (2, "relayer-2")];
        Board::new(
            "local",
            Names::new(names.map(|(byte, name)| (NodeId::from_bytes([byte; 32]), name.to_owned()))),
        )
    }

    /// Scenario: before the first round nothing is claimed; two rounds a second apart tell a rate; the problem, its cause and
    /// its remedy stand above the nodes, the shard furthest behind above the others.
    #[test]
    fn a_dead_relayer_and_a_rate_are_shown() {
        let mut board = board();
        assert_eq!(screen(&board, 120, 20)[0], "network local  asking…");
        board.hear(
            Duration::from_secs(1),
            vec![answer(100), dead()],
            Vec::new(),
        );
        let problem = Code::NodeUnreachable
            .problem("relayer-2 (02020202) does not answer")
            .because("route: refused")
            .explaining(["shard 1 is out of reach".to_owned()]);
        board.hear(
            Duration::from_secs(2),
            vec![answer(350), dead()],
            vec![problem],
        );
        let screen = screen(&board, 120, 24);
        assert_eq!(screen[0], "network local  1 problem");
        assert_eq!(
            screen[1],
            "node-unreachable  relayer-2 (02020202) does not answer  explains 1 more"
        );
        assert_eq!(screen[2], "  cause  route: refused");
        assert!(
            screen[3].starts_with("  fix    start the node"),
            "{}",
            screen[3]
        );
        let words = |line: &str| {
            line.trim_matches('│')
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            words(&screen[6]),
            [
                "relayer-1",
                "(01010101)",
                "relayer",
                "ok",
                "65s",
                "0",
                "700",
                "500",
                "17",
                "pqcnet/0.1.0"
            ]
        );
        assert_eq!(
            words(&screen[7]),
            ["relayer-2", "(02020202)", "relayer", "unreachable"]
        );
        let shards: Vec<Vec<String>> = screen[11..13].iter().map(|line| words(line)).collect();
        assert_eq!(shards[0][0], "5", "{screen:#?}");
        assert_eq!(shards[1][0], "3", "{screen:#?}");
        assert_eq!(screen[23], "q quits");
    }

    /// Scenario: a well network says so; no window is too small to draw in.
    #[test]
    fn small_windows_and_well_networks() {
        let mut board = board();
        board.hear(Duration::from_secs(1), vec![answer(1)], Vec::new());
        assert_eq!(
            screen(&board, 60, 12)[0],
            "network local  1 of 1 nodes are well"
        );
        for (width, height) in [(1, 1), (8, 3), (40, 5)] {
            assert_eq!(screen(&board, width, height).len(), usize::from(height));
        }
    }
}
