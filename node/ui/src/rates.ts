// What the page remembers: traffic of the last minutes, and how fast counts rise between two snapshots.

import type { Snapshot } from "./model";

/** Samples kept: five minutes of two a second. */
const KEPT = 600;

export interface Rates {
  /** Bytes a second by link number. */
  links: Record<string, { in: number; out: number }>;
  /** Messages a second and busy share (0 to 1) by actor path. */
  actors: Record<string, { handled: number; busy: number }>;
}

export class History {
  /** Seconds since 1970, by the node's clock. */
  readonly at: number[] = [];
  readonly bytesIn: number[] = [];
  readonly bytesOut: number[] = [];
  rates: Rates = { links: {}, actors: {} };
  private last?: Snapshot;

  /** Takes a snapshot in; the same one twice changes nothing. */
  add(next: Snapshot): void {
    const last = this.last;
    if (last === next) return;
    this.last = next;
    // Another run of the node, or another node: what was counted before has nothing to do with it.
    if (!last || last.node.id !== next.node.id || Math.abs(last.node.started_at_ms - next.node.started_at_ms) > 5000) {
      this.at.length = this.bytesIn.length = this.bytesOut.length = 0;
      this.rates = { links: {}, actors: {} };
      return;
    }
    const seconds = (next.taken_at_ms - last.taken_at_ms) / 1000;
    if (seconds <= 0) return;
    const rates: Rates = { links: {}, actors: {} };
    let [into, out] = [0, 0];
    for (const [id, link] of Object.entries(next.links)) {
      const before = last.links[id];
      if (!before) continue;
      const rate = {
        in: Math.max(0, link.bytes_in - before.bytes_in) / seconds,
        out: Math.max(0, link.bytes_out - before.bytes_out) / seconds,
      };
      rates.links[id] = rate;
      into += rate.in;
      out += rate.out;
    }
    for (const [path, actor] of Object.entries(next.actors)) {
      const before = last.actors[path];
      if (!before) continue;
      rates.actors[path] = {
        handled: Math.max(0, actor.handled - before.handled) / seconds,
        busy: Math.min(1, Math.max(0, actor.busy_us - before.busy_us) / 1e6 / seconds),
      };
    }
    this.rates = rates;
    this.at.push(next.taken_at_ms / 1000);
    this.bytesIn.push(into);
    this.bytesOut.push(out);
    if (this.at.length > KEPT) for (const list of [this.at, this.bytesIn, this.bytesOut]) list.shift();
  }
}
