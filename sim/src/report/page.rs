//! `report.html`: one file with everything in it, readable without a network.

use std::fmt::Write as _;

use super::plot::{Line, Plot, escape};
use super::record::Kept;
use super::run::{Outcome, Run};
use crate::scenario::Bytes;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}\
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;\
text-align:left;vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.85em;\
word-break:break-all}.held{color:#00663f}.broken{color:#a30000}figure{margin:1rem 0}figcaption{font-weight:600}\
svg{width:100%;height:auto}svg text{font-size:11px;fill:#555}.end{text-anchor:end}.mid{text-anchor:middle}\
.grid{stroke:#e4e4e4}.mark{stroke:#c00;stroke-dasharray:2 3}polyline{fill:none;stroke-width:1.5}\
.legend{margin:0;font-size:.85rem}.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}\
pre{background:#f5f5f5;padding:.8rem;overflow:auto;font-size:.8rem}";

/// Series that belong together: how the plot is called, its unit, and how the names of its series begin.
const PLOTS: &[(&str, &str, &str)] = &[
    ("Messages", "a second", "rate/"),
    ("On their way", "messages", "waiting/"),
    (
        "Times of messages that came in that second",
        "ms",
        "latency/",
    ),
    ("Nodes up", "nodes", "up/"),
    ("Network", "bytes a second", "bytes/"),
    (
        "Datagrams, and segments that met a cut",
        "a second",
        "packets/",
    ),
    ("Connections", "streams", "connections/"),
    ("Deepest mailbox", "messages", "mailbox/"),
    ("Events", "a simulated second", "events/"),
    ("Memory of the process", "MiB", "rss/"),
    ("Speed", "simulated seconds a second", "speed/"),
];

/// The page of a run.
pub fn page(run: &Run, about: &str, scenario: &str, kept: &Kept) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}, seed {1}</title><style>{STYLE}</style>\
         </head><body>\n<h1>{0}, seed {1}</h1>\n<p>{2}</p>\n",
        escape(&run.scenario),
        run.seed,
        escape(about)
    );
    outcome(&mut out, run);
    facts(&mut out, run);
    times(&mut out, run);
    for (title, unit, prefix) in PLOTS {
        plot(&mut out, kept, title, unit, prefix);
    }
    faults(&mut out, kept);
    counts(&mut out, run);
    put(
        &mut out,
        format_args!(
            "<h2>Tables</h2><p><code>events.parquet</code>: {} rows. <code>series.parquet</code>: {} rows.</p>\n\
             <h2>Scenario</h2><pre>{}</pre>\n</body></html>\n",
            kept.events,
            kept.samples,
            escape(scenario)
        ),
    );
    out
}

/// Writing into a string cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).unwrap_or_default();
}

fn outcome(out: &mut String, run: &Run) {
    match &run.outcome {
        Outcome::Held => out.push_str("<p class=\"held\">Every invariant held to the end.</p>\n"),
        Outcome::Broken(broken) => {
            put(
                out,
                format_args!(
                    "<p class=\"broken\">Broken at {:.6} s: <strong>{}</strong></p><pre>",
                    broken.at_ns as f64 / 1e9,
                    escape(&broken.reason)
                ),
            );
            for event in &broken.last_events {
                put(out, format_args!("{}\n", escape(event)));
            }
            out.push_str("</pre>\n");
        }
    }
}

fn facts(out: &mut String, run: &Run) {
    let nodes: Vec<String> = run
        .nodes
        .iter()
        .map(|(role, count)| format!("{count} {role}"))
        .collect();
    let changed = if run.commit.changed {
        ", with changes"
    } else {
        ""
    };
    let versions: Vec<String> = run
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    let machine = &run.machine;
    let rows = [
        ("Nodes", nodes.join(", ")),
        ("Simulated", format!("{} s", run.simulated_seconds)),
        ("Cryptography", run.crypto.clone()),
        ("Event hash", run.event_hash.clone()),
        ("Events", run.events.to_string()),
        ("Commit", format!("{}{changed}", run.commit.hash)),
        ("Scenario's hash", run.scenario_sha256.clone()),
        ("Program's hash", run.program_sha256.clone()),
        ("Versions", versions.join(", ")),
        (
            "Machine",
            format!(
                "boot {:.1} s, then {:.1} s: {:.1}x real time, {:.0} events a second, {} at most",
                machine.boot_seconds,
                machine.run_seconds,
                machine.speed,
                machine.events_per_second,
                Bytes(machine.peak_rss_bytes)
            ),
        ),
    ];
    out.push_str("<table>");
    for (name, value) in rows {
        let value = escape(&value);
        put(
            out,
            format_args!("<tr><th>{name}</th><td><code>{value}</code></td></tr>\n"),
        );
    }
    out.push_str("</table>\n");
}

fn times(out: &mut String, run: &Run) {
    if run.times.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Times, in ms</h2><table><tr><th></th><th>count</th><th>p50</th><th>p90</th><th>p99</th><th>longest</th></tr>\n",
    );
    for (name, times) in &run.times {
        put(
            out,
            format_args!(
                "<tr><th>{}</th><td class=\"n\">{}</td><td class=\"n\">{:.1}</td><td class=\"n\">{:.1}</td>\
                 <td class=\"n\">{:.1}</td><td class=\"n\">{:.1}</td></tr>\n",
                escape(name),
                times.count,
                times.p50_ms,
                times.p90_ms,
                times.p99_ms,
                times.max_ms
            ),
        );
    }
    out.push_str("</table>\n");
}

fn plot(out: &mut String, kept: &Kept, title: &str, unit: &str, prefix: &str) {
    let lines: Vec<Line> = kept
        .series
        .iter()
        .filter_map(|(name, points)| {
            let name = name.strip_prefix(prefix)?.to_owned();
            let points = points.clone();
            Some(Line { name, points })
        })
        .collect();
    if !lines.is_empty() {
        let plot = Plot {
            title: title.to_owned(),
            x: "simulated seconds".to_owned(),
            y: unit.to_owned(),
            lines,
            marks: kept.marks.clone(),
            // From milliseconds to minutes.
            by_tens: prefix == "latency/",
        };
        out.push_str(&plot.to_html());
    }
}

fn faults(out: &mut String, kept: &Kept) {
    if kept.marks.is_empty() {
        return;
    }
    out.push_str("<h2>Faults</h2><table>\n");
    for (at, words) in &kept.marks {
        let words = escape(words.trim());
        put(
            out,
            format_args!("<tr><td class=\"n\">{at:.3} s</td><td>{words}</td></tr>\n"),
        );
    }
    let more = kept.faults.saturating_sub(kept.marks.len() as u64);
    if more > 0 {
        put(
            out,
            format_args!("<tr><td></td><td>and {more} more in events.parquet</td></tr>\n"),
        );
    }
    out.push_str("</table>\n");
}

fn counts(out: &mut String, run: &Run) {
    out.push_str("<h2>Counts</h2><table>\n");
    for (name, count) in &run.counts {
        let name = escape(name);
        put(
            out,
            format_args!("<tr><th>{name}</th><td class=\"n\">{count}</td></tr>\n"),
        );
    }
    for (name, share) in &run.shares {
        let (name, percent) = (escape(name), share * 100.0);
        put(
            out,
            format_args!("<tr><th>{name}</th><td class=\"n\">{percent:.4} %</td></tr>\n"),
        );
    }
    out.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::super::run::{Broken, example};
    use super::*;

    // Scenario: the page of a run has the outcome, the hashes and a plot of each series, and names nothing outside itself.
    #[test]
    fn the_page_stands_alone() {
        let mut kept = Kept::default();
        let points = vec![(0.0, 1.0), (1.0, 2.0)];
        kept.series.insert("rate/acked".to_owned(), points);
        kept.marks.push((0.5, "relayer-1 crash".to_owned()));
        let mut run = example();
        let html = page(&run, "About <it>.", "name = \"small\"", &kept);
        for outside in [
            "http:", "https:", "src=", "href=", "url(", "@import", "<script",
        ] {
            assert!(!html.contains(outside), "{outside}");
        }
        for part in [
            "Every invariant held",
            "efefef",
            "<polyline",
            "relayer-1 crash",
            "About &lt;it&gt;.",
        ] {
            assert!(html.contains(part), "{part}");
        }
        assert_eq!(html.matches("<svg").count(), 1);
        assert!(html.contains("<td class=\"n\">0.500 s</td><td>relayer-1 crash</td>"));
        run.outcome = Outcome::Broken(Broken {
            at_ns: 1_500_000_000,
            reason: "offset 3 after 4".to_owned(),
            last_events: vec!["the <last>".to_owned()],
        });
        let html = page(&run, "", "", &kept);
        assert!(html.contains("Broken at 1.500000 s: <strong>offset 3 after 4</strong>"));
        assert!(html.contains("the &lt;last&gt;"));
    }
}
