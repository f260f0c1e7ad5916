import { brief, number, plural, short } from "../format";
import type { Actor, Lanes, Snapshot } from "../model";
import type { Rates } from "../rates";
import { Card, Empty, Meter, Table, type Tone, useFold } from "./parts";

const COLUMNS = [
  { name: "Actor" },
  { name: "Waiting", hint: "messages in its mailbox: control · request · bulk" },
  { name: "Handled", numeric: true, hint: "messages a second" },
  { name: "Busy", numeric: true, hint: "share of the time spent handling" },
  { name: "Restarts", numeric: true },
  { name: "Says" },
];
/** Rows at first. */
const SHOWN = 14;

export function Actors({ snapshot, rates }: { snapshot: Snapshot; rates: Rates }) {
  const actors = Object.entries(snapshot.actors).sort(
    ([a, x], [b, y]) => weight(y) - weight(x) || a.localeCompare(b, "en", { numeric: true }),
  );
  const restarts = actors.reduce((sum, [, actor]) => sum + actor.restarts, 0);
  const waiting = actors.reduce((sum, [, actor]) => sum + depth(actor.depth), 0);
  const aside = `${plural(snapshot.totals.actors, "actor")} · ${plural(waiting, "message")} waiting · ${plural(restarts, "restart")}`;
  const [shown, more] = useFold(actors, SHOWN);
  const rows = shown.map(([path, actor]) => {
    const rate = rates.actors[path];
    return {
      key: path,
      tone: tone(actor),
      data: { "data-actor": path },
      cells: [
        <>
          <Path path={path} /> {actor.life !== "running" && <span class="life">{actor.life}</span>}
        </>,
        <Depth actor={actor} />,
        rate ? `${short(rate.handled)}/s` : "–",
        rate ? `${(rate.busy * 100).toFixed(rate.busy < 0.1 ? 1 : 0)} %` : "–",
        actor.restarts ? <strong>{number(actor.restarts)}</strong> : "0",
        <span class="says" title={actor.says}>
          {actor.says === undefined ? (actor.life === "running" ? "" : "not running") : brief(actor.says)}
        </span>,
      ],
    };
  });
  return (
    <Card id="actors" title="Actors" aside={aside}>
      {rows.length ? <Table label="Actors" columns={COLUMNS} rows={rows} /> : <Empty>No actor runs.</Empty>}
      {more}
      {snapshot.totals.actors > actors.length && (
        <p class="more">and {plural(snapshot.totals.actors - actors.length, "more actor")} with nothing waiting</p>
      )}
    </Card>
  );
}

const depth = (lanes: Lanes) => lanes.control + lanes.request + lanes.bulk;

/** What is remarkable stands first; what comes and goes within a moment does not move rows about. */
function weight(actor: Actor): number {
  const fullest = Math.max(
    ...LANES.map((lane) => actor.depth[lane] / Math.max(1, actor.bounds[lane])),
  );
  return (actor.life === "running" ? 0 : 1e6) + actor.restarts * 1000 + (fullest > 0.5 ? 1 : 0);
}

function tone(actor: Actor): Tone | undefined {
  if (actor.life === "held") return "bad";
  return actor.restarts > 0 ? "warn" : undefined;
}

/** The last part says which one it is; the way to it is grey. */
function Path({ path }: { path: string }) {
  const at = path.lastIndexOf("/") + 1;
  return (
    <span class="path">
      <span class="way">{path.slice(0, at)}</span>
      {path.slice(at)}
    </span>
  );
}

const LANES = ["control", "request", "bulk"] as const;

/** Counts of the three lanes; a bar for the fullest, once something waits. */
function Depth({ actor }: { actor: Actor }) {
  const { depth: waits, bounds } = actor;
  const says = LANES.map((lane) => `${lane} ${number(waits[lane])} of ${number(bounds[lane])}`).join(", ");
  const share = (lane: keyof Lanes) => waits[lane] / Math.max(1, bounds[lane]);
  const fullest = LANES.reduce((most, lane) => (share(lane) > share(most) ? lane : most));
  return (
    <span class={`depth ${depth(waits) ? "" : "none"}`} title={says}>
      <span class="sr">{says}</span>
      <span aria-hidden="true">{LANES.map((lane) => short(waits[lane])).join(" · ")}</span>
      {depth(waits) > 0 && <Meter value={waits[fullest]} of={bounds[fullest]} label={`${fullest} lane`} />}
    </span>
  );
}
