import { duration, shortId } from "../format";
import type { View } from "../live";
import { Mark, type Tone } from "./parts";

const PHASES: Record<View["phase"], [Tone, string]> = {
  connecting: ["idle", "connecting"],
  live: ["ok", "live"],
  lost: ["bad", "connection lost"],
  locked: ["warn", "no token"],
  refused: ["bad", "refused"],
};

export function Head({ view }: { view: View }) {
  const node = view.snapshot?.node;
  const [tone, word] = PHASES[view.phase];
  return (
    <header class="top">
      <div class="who">
        <img src="/ui/icon.svg" alt="" width="28" height="28" />
        {node ? (
          <h1>
            <span class="role">{node.role}</span> <span class="mono">{shortId(node.id)}</span>
            <span class="of"> in {node.network}</span>
          </h1>
        ) : (
          <h1>PQCNet node</h1>
        )}
      </div>
      <div class="state">
        {node && view.snapshot && (
          <span class="up">up {duration(view.snapshot.taken_at_ms - node.started_at_ms)}</span>
        )}
        <span class={`pill ${tone}`} id="connection" data-phase={view.phase}>
          <Mark tone={tone} />
          {word}
        </span>
      </div>
    </header>
  );
}
