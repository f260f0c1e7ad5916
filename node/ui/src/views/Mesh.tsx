// The network from where this node stands: it in the middle, the others around it, and the same as a list.

import { duration, plural, shortId, words } from "../format";
import type { MeshNode, MeshState, Snapshot } from "../model";
import { Card, Mark, type Tone, useFold } from "./parts";

const TONES: Record<MeshState, Tone> = { this: "ok", linked: "ok", partial: "warn", down: "bad", known: "idle" };

/** Labels stand beside nodes up to here; beyond it the list tells them apart. */
const LABELLED = 18;
/** Nodes of the list at first. */
const LISTED = 10;

const W = 560;

interface Place {
  id: string;
  node: MeshNode;
  x: number;
  y: number;
}

/** The worst first in the list; around the circle by role, so that a node keeps its place whatever becomes of it. */
const SEVERITY: MeshState[] = ["down", "partial", "this", "linked", "known"];

export function Mesh({ snapshot }: { snapshot: Snapshot }) {
  const own = snapshot.node.id;
  const others = Object.entries(snapshot.nodes)
    .filter(([id]) => id !== own)
    .sort(([a, x], [b, y]) => (x.roles[0] ?? "").localeCompare(y.roles[0] ?? "") || a.localeCompare(b));
  // A pair needs no height.
  const H = others.length <= 2 ? 230 : 350;
  const places = around(others, H);
  const self = snapshot.nodes[own];
  const listed = [...others].sort(([, a], [, b]) => SEVERITY.indexOf(a.state) - SEVERITY.indexOf(b.state));
  const [shown, more] = useFold(listed, LISTED);
  const down = others.filter(([, node]) => node.state === "down").length;
  const aside = `${plural(snapshot.totals.nodes, "node")}${down ? `, ${down} not reached` : ""}`;
  return (
    <Card id="mesh" title="Network" aside={aside}>
      <svg class="map" viewBox={`0 0 ${W} ${H}`} role="img" aria-label={`Map of the network: ${aside}. The list below says the same.`}>
        {between(places).map(([a, b]) => (
          <line key={`${a.id}${b.id}`} class="edge far" x1={a.x} y1={a.y} x2={b.x} y2={b.y} />
        ))}
        {places.map(({ id, node, x, y }) => (
          <g key={id} class={`edge-group ${TONES[node.state]}`}>
            {node.state !== "known" && (
              <line class={`edge ${node.state}`} x1={W / 2} y1={H / 2} x2={x} y2={y} />
            )}
            {node.state === "down" && (
              <path class="cut" d={cross((W / 2 + x) / 2, (H / 2 + y) / 2)} />
            )}
          </g>
        ))}
        {places.map(({ id, node, x, y }) => (
          <g key={id} class={`dot ${TONES[node.state]} ${node.state}`} transform={`translate(${x} ${y})`}>
            <Shape role={node.roles[0] ?? ""} r={places.length > LABELLED ? 8 : 14} />
            {places.length <= LABELLED && (
              <>
                <text y={y < H / 2 ? -22 : 31} class="name">
                  {shortId(id)}
                </text>
                <text y={y < H / 2 ? -38 : 46} class="sub">
                  {node.roles.join(", ")}
                </text>
              </>
            )}
          </g>
        ))}
        <g class="dot this" transform={`translate(${W / 2} ${H / 2})`}>
          <circle class="halo" r="30" />
          <Shape role={self?.roles[0] ?? ""} r={19} />
          <text y="48" class="name">
            this {snapshot.node.role}
          </text>
          {snapshot.totals.clients > 0 && (
            <text y="64" class="sub">
              {plural(snapshot.totals.clients, "client")}
            </text>
          )}
        </g>
      </svg>
      <ul class="nodes">
        {shown.map(([id, node]) => (
          <li key={id} data-node={id} data-state={node.state} class={`tone-${TONES[node.state]}`}>
            <Mark tone={TONES[node.state]} />
            <span>
              <span class="role">{node.roles.join(", ") || "node"}</span>{" "}
              <span class="mono" title={id}>
                {shortId(id)}
              </span>
            </span>
            <span class="tells">{told(node, snapshot.taken_at_ms)}</span>
          </li>
        ))}
      </ul>
      {more}
      {others.length === 0 && <p class="empty">The network file lists no other node that serves.</p>}
    </Card>
  );
}

function told(node: MeshNode, now: number): string {
  const planes = (list: string[]) => list.join(" and ");
  switch (node.state) {
    case "down":
      return `not linked; wanted on ${planes(node.expected)}`;
    case "partial": {
      const missing = node.expected.filter((plane) => !node.linked.includes(plane));
      return `linked on ${planes(node.linked)}, not on ${planes(missing)}`;
    }
    case "known":
      return "known, no link wanted from here";
    default: {
      const parts = [`linked on ${planes(node.linked)}`];
      if (node.clients) parts.push(plural(node.clients, "client"));
      if (node.problems) parts.push(`reports ${plural(node.problems, "problem")}`);
      const age = node.told_at_ms === undefined ? 0 : now - node.told_at_ms;
      if (age > 10_000) parts.push(`last told ${duration(age)} ago`);
      return parts.join(", ");
    }
  }
}

function around(nodes: [string, MeshNode][], H: number): Place[] {
  const count = nodes.length;
  return nodes.map(([id, node], index) => {
    // Two nodes stand left and right, a little above; more as a ring that begins at the top; two rings when there are many.
    const inner = count > 36 && index % 2 === 1;
    const [rx, ry] = inner ? [W * 0.27, H * 0.25] : [W * 0.39, H * 0.34];
    const angle = count === 2 ? [Math.PI + 0.6, -0.6][index]! : (2 * Math.PI * index) / count - Math.PI / 2;
    return { id, node, x: round(W / 2 + rx * Math.cos(angle)), y: round(H / 2 + ry * Math.sin(angle)) };
  });
}

const round = (value: number) => Math.round(value * 10) / 10;

/** Pairs of others that are linked, as at least one of the two says. */
function between(places: Place[]): [Place, Place][] {
  const pairs: [Place, Place][] = [];
  places.forEach((a, index) => {
    for (const b of places.slice(index + 1)) {
      if (a.node.peers.includes(b.id) || b.node.peers.includes(a.id)) pairs.push([a, b]);
    }
  });
  return pairs;
}

/** A relayer is a store, a sentry a gate: square, hexagon. */
function Shape({ role, r }: { role: string; r: number }) {
  switch (words(role)) {
    case "relayer":
      return <rect class="shape" x={-r} y={-r} width={2 * r} height={2 * r} rx={r / 3} />;
    case "sentry":
      return <path class="shape" d={hexagon(r * 1.15)} />;
    default:
      return <circle class="shape" r={r} />;
  }
}

function hexagon(r: number): string {
  const corners = [0, 1, 2, 3, 4, 5].map((corner) => {
    const angle = (Math.PI / 3) * corner + Math.PI / 6;
    return `${round(r * Math.cos(angle))} ${round(r * Math.sin(angle))}`;
  });
  return `M${corners.join("L")}Z`;
}

const cross = (x: number, y: number) => `M${round(x - 6)} ${round(y - 6)}l12 12m0 -12l-12 12`;
