// Bytes through all links of the last minutes.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { bytes, number, words } from "../format";
import type { Snapshot } from "../model";
import type { History } from "../rates";
import { Card, useFold } from "./parts";

const HEIGHT = 190;
/** Seconds that the chart shows. */
const SPAN = 300;

export function Traffic({ snapshot, history }: { snapshot: Snapshot; history: History }) {
  const into = history.bytesIn.at(-1);
  const out = history.bytesOut.at(-1);
  const counters = Object.entries(snapshot.counters).sort(
    ([a, x], [b, y]) => rank(a, x) - rank(b, y) || a.localeCompare(b),
  );
  const [shown, more] = useFold(counters, COUNTERS);
  return (
    <Card id="traffic" title="Traffic" aside="all links, last 5 minutes">
      <dl class="figures">
        <div>
          <dt>
            <i class="key in" /> in
          </dt>
          <dd>{into === undefined ? "…" : `${bytes(into)}/s`}</dd>
        </div>
        <div>
          <dt>
            <i class="key out" /> out
          </dt>
          <dd>{out === undefined ? "…" : `${bytes(out)}/s`}</dd>
        </div>
      </dl>
      <Chart history={history} at={snapshot.taken_at_ms} />
      <dl class="counters">
        {shown.map(([name, value]) => (
          <div key={name} class={wrong(name, value) ? "wrong" : ""}>
            <dt>{words(name.replace(/_bytes$/, ""))}</dt>
            <dd>{name.endsWith("_bytes") ? bytes(value) : number(value)}</dd>
          </div>
        ))}
      </dl>
      {more}
    </Card>
  );
}

/** Counts that should stay at zero: they stand first when they do not, and last when they do. */
const TROUBLE = ["dead_letters", "bulk_dropped", "refused", "actor_panics", "actor_restarts", "actors_killed"];
/** Counts at first. */
const COUNTERS = 12;
const wrong = (name: string, value: number) => TROUBLE.includes(name) && value > 0;
const rank = (name: string, value: number) => (wrong(name, value) ? 0 : TROUBLE.includes(name) ? 2 : 1);

function Chart({ history, at }: { history: History; at: number }) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  useEffect(() => {
    const box = place.current;
    if (!box) return;
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(box), data(history), box);
    };
    draw();
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", draw);
    const sizes = new ResizeObserver(() => plot.current?.setSize({ width: box.clientWidth, height: HEIGHT }));
    sizes.observe(box);
    return () => {
      scheme.removeEventListener("change", draw);
      sizes.disconnect();
      plot.current?.destroy();
    };
  }, []);
  useEffect(() => {
    plot.current?.setData(data(history), false);
    plot.current?.setScale("x", { min: at / 1000 - SPAN, max: at / 1000 });
  }, [at]);
  return <div class="chart" ref={place} role="img" aria-label="Bytes a second in and out over the last five minutes" />;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

const data = (history: History): uPlot.AlignedData => [history.at, history.bytesIn, history.bytesOut];

function options(box: HTMLElement): uPlot.Options {
  const style = getComputedStyle(box);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: colour("--muted"),
    grid: { stroke: colour("--hair"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
  };
  return {
    width: box.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    padding: [8, 4, 0, 0],
    scales: { x: { time: true }, y: { range: (_, __, max) => [0, Math.max(1000, max * 1.1)] } },
    axes: [
      { ...axis, space: 70, size: 28, values: (_, ticks) => ticks.map((tick) => clock.format(tick * 1000)) },
      { ...axis, size: 60, values: (_, ticks) => ticks.map((tick) => `${bytes(tick)}/s`) },
    ],
    series: [
      {},
      { stroke: colour("--in"), width: 2, points: { show: false }, fill: colour("--in-fill") },
      { stroke: colour("--out"), width: 2, points: { show: false }, dash: [6, 3] },
    ],
  };
}
