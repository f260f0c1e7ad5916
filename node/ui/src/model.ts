// The form of a snapshot: docs/spec/snapshot.md. Fields that this page does not show are not named here.

export type Verdict = "ok" | "degraded" | "not_serving" | "draining";
export type MeshState = "this" | "linked" | "partial" | "down" | "known";

export interface Snapshot {
  version: number;
  taken_at_ms: number;
  node: {
    id: string;
    network: string;
    network_id: string;
    role: string;
    software: string;
    suites: string[];
    started_at_ms: number;
  };
  verdict: Verdict;
  problems: Problem[];
  totals: { nodes: number; links: number; clients: number; shards: number; actors: number };
  nodes: Record<string, MeshNode>;
  links: Record<string, Link>;
  shards: Record<string, Shard>;
  actors: Record<string, Actor>;
  keys: Record<string, Key>;
  counters: Record<string, number>;
}

export interface Problem {
  code: string;
  severity: "critical" | "warning";
  what: string;
  cause: string;
  fix: string;
  about?: string;
  explains: string[];
}

export interface MeshNode {
  roles: string[];
  state: MeshState;
  expected: string[];
  linked: string[];
  peers: string[];
  clients: number;
  problems: number;
  told_at_ms?: number;
}

export interface Link {
  peer: string;
  role: string;
  plane: string;
  software: string;
  opened_at_ms: number;
  bytes_in: number;
  bytes_out: number;
  frames_in: number;
  frames_out: number;
  outbound_bytes: number;
  open_asks: number;
  unanswered: number;
  credit?: number;
  rtt_us?: number;
  silent: boolean;
}

export interface Shard {
  owner: string;
  source: "here" | "told" | "none";
  channels?: number;
  records?: number;
  bytes?: number;
  subscriptions?: number;
  lag_records?: number;
  unwritten_bytes?: number;
  paused_channels?: number;
  paused?: { channel: string; cause: string };
}

export interface Lanes {
  control: number;
  request: number;
  bulk: number;
}

export interface Actor {
  behaviour: string;
  life: string;
  depth: Lanes;
  bounds: Lanes;
  restarts: number;
  handled: number;
  busy_us: number;
  says?: string;
}

export interface Key {
  purpose: string;
  version: number;
  fingerprint?: string;
  state: string;
  since_ms?: number;
  until_ms?: number;
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const isObject = (value: unknown): value is Record<string, Json> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Applies a JSON Merge Patch (RFC 7396); what it does not touch stays the same object. */
export function patched<T>(document: T, patch: unknown): T {
  if (!isObject(patch)) return patch as T;
  const out: Record<string, Json> = isObject(document) ? { ...(document as Record<string, Json>) } : {};
  for (const [key, change] of Object.entries(patch)) {
    if (change === null) delete out[key];
    else out[key] = patched(out[key], change) as Json;
  }
  return out as T;
}
