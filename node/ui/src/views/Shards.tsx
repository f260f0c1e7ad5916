// Shards by their owners; the bar of each is its lag beside the largest one.

import { bytes, number, plural, short, shortId } from "../format";
import type { Shard, Snapshot } from "../model";
import { Card, Empty } from "./parts";

export function Shards({ snapshot }: { snapshot: Snapshot }) {
  const shards = Object.entries(snapshot.shards).sort(([a], [b]) => Number(a) - Number(b));
  const owners = new Map<string, [string, Shard][]>();
  for (const entry of shards) {
    const list = owners.get(entry[1].owner);
    if (list) list.push(entry);
    else owners.set(entry[1].owner, [entry]);
  }
  const lag = Math.max(0, ...shards.map(([, shard]) => shard.lag_records ?? 0));
  const dark = shards.filter(([, shard]) => shard.source === "none").length;
  const paused = shards.reduce((all, [, shard]) => all + (shard.paused_channels ?? 0), 0);
  const behind = shards.find(([, shard]) => lag > 0 && shard.lag_records === lag);
  const aside = [
    shards.length < snapshot.totals.shards
      ? `${shards.length} of ${plural(snapshot.totals.shards, "shard")}`
      : plural(shards.length, "shard"),
    behind ? `furthest behind: shard ${behind[0]} by ${plural(lag, "record")}` : dark ? "" : "no subscriber is behind",
    dark ? `${number(dark)} unknown` : "",
    paused > 0 ? `publishers of ${plural(paused, "channel")} asked to wait` : "",
  ];
  return (
    <Card id="shards" title="Shards and lag" aside={aside.filter(Boolean).join(" · ")}>
      {shards.length > 0 && (
        <p class="legend">Each tile: the shard, records stored in it, and how many of them still wait for its slowest subscriber.</p>
      )}
      {shards.length === 0 && <Empty>This network has no shards.</Empty>}
      {[...owners].map(([owner, list]) => (
        <Owned key={owner} owner={owner} list={list} snapshot={snapshot} largest={lag} />
      ))}
    </Card>
  );
}

function Owned(props: { owner: string; list: [string, Shard][]; snapshot: Snapshot; largest: number }) {
  const { owner, list, snapshot, largest } = props;
  const here = owner === snapshot.node.id;
  const down = snapshot.nodes[owner]?.state === "down";
  const sum = (of: (shard: Shard) => number | undefined) => list.reduce((all, [, shard]) => all + (of(shard) ?? 0), 0);
  const known = list.some(([, shard]) => shard.source !== "none");
  return (
    <div class={`owned ${down ? "down" : ""}`} data-owner={owner} data-known={known}>
      <h3>
        {here ? (
          "this relayer"
        ) : (
          <>
            relayer <span class="mono">{shortId(owner)}</span>
          </>
        )}
        <span class="sum">
          {known
            ? `${short(sum((shard) => shard.records))} records, ${bytes(sum((shard) => shard.bytes))}, ${plural(sum((shard) => shard.subscriptions), "subscription")}`
            : down
              ? "out of reach: nothing is known of its shards"
              : "has not told yet"}
        </span>
      </h3>
      <ul class="tiles">
        {list.map(([id, shard]) => (
          <Tile key={id} id={id} shard={shard} largest={largest} />
        ))}
      </ul>
    </div>
  );
}

/** What of it waits, and why, for the words of its tile. */
function paused(shard: Shard): string {
  const count = shard.paused_channels ?? 0;
  if (count === 0) return "";
  const longest = shard.paused ? `, ${shard.paused.channel} longest, for ${shard.paused.cause}` : "";
  return `; publishers of ${plural(count, "channel")} are asked to wait${longest}`;
}

function Tile({ id, shard, largest }: { id: string; shard: Shard; largest: number }) {
  const lag = shard.lag_records ?? 0;
  const height = largest > 0 ? (lag / largest) * 26 : 0;
  const unknown = shard.source === "none";
  const says = unknown
    ? `Shard ${id}: unknown`
    : `Shard ${id}: ${plural(shard.records ?? 0, "record")} in ${plural(shard.channels ?? 0, "channel")}, lag ${number(lag)}, ${bytes(shard.unwritten_bytes ?? 0)} not yet durable${paused(shard)}`;
  const waits = (shard.paused_channels ?? 0) > 0;
  return (
    <li class={`tile ${unknown ? "unknown" : lag > 0 ? "behind" : ""} ${waits ? "paused" : ""}`} title={says} data-shard={id}>
      <span class="sr">{says}</span>
      <svg viewBox="0 0 10 28" preserveAspectRatio="none" aria-hidden="true">
        <rect class="track" x="0" y="0" width="10" height="28" rx="2" />
        {lag > 0 && <rect class="fill" x="0" y={28 - Math.max(2, height)} width="10" height={Math.max(2, height)} rx="2" />}
      </svg>
      <span class="text" aria-hidden="true">
        <span class="id">{id}</span>
        <span class="records">{unknown ? "?" : short(shard.records ?? 0)}</span>
        <span class="lag">{unknown ? "" : waits ? "paused" : lag > 0 ? `−${short(lag)}` : "even"}</span>
      </span>
    </li>
  );
}
