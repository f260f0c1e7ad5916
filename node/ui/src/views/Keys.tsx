import { duration, shortId } from "../format";
import type { Key, Snapshot } from "../model";
import { Card, Empty, Mark, type Tone } from "./parts";

const MEANS: Record<string, string> = {
  identity: "proves who this node is",
  storage: "seals what is stored",
  kem: "takes sealed tunnels in",
};

export function Keys({ snapshot }: { snapshot: Snapshot }) {
  const keys = Object.entries(snapshot.keys).sort(([a], [b]) => a.localeCompare(b));
  return (
    <Card id="keys" title="Keys">
      {keys.length === 0 && <Empty>The node tells nothing of its keys.</Empty>}
      <ul class="keys">
        {keys.map(([id, key]) => (
          <li key={id} class={`tone-${tone(key)}`} data-key={id}>
            <Mark tone={tone(key)} />
            <div>
              <p>
                <strong>{key.purpose}</strong> version {key.version}
                {key.state !== "current" && <span class="life">{key.state}</span>}
              </p>
              <p class="tells">
                {age(key, snapshot.taken_at_ms)}
                {MEANS[key.purpose] && `, ${MEANS[key.purpose]}`}
                {key.fingerprint && (
                  <>
                    , <span class="mono">{shortId(key.fingerprint)}</span>
                  </>
                )}
              </p>
            </div>
          </li>
        ))}
      </ul>
    </Card>
  );
}

function tone(key: Key): Tone {
  return key.state === "current" ? "ok" : key.state === "revoked" ? "bad" : "warn";
}

function age(key: Key, now: number): string {
  return key.since_ms === undefined ? "age unknown" : `${duration(now - key.since_ms)} old`;
}
