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
    <Card id="keys" title="Keys" aside={aside(keys.map(([, key]) => key), snapshot.taken_at_ms)}>
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

/** The oldest key in use: what a rotation would make young again. */
function aside(keys: Key[], now: number): string | undefined {
  const since = keys.filter((key) => key.state === "current").flatMap((key) => key.since_ms ?? []);
  return since.length ? `the oldest in use was made ${duration(now - Math.min(...since))} ago` : undefined;
}

function tone(key: Key): Tone {
  return key.state === "current" ? "ok" : key.state === "revoked" ? "bad" : "idle";
}

function age(key: Key, now: number): string {
  const age = key.since_ms === undefined ? "age unknown" : `${duration(now - key.since_ms)} old`;
  if (key.until_ms === undefined) return age;
  return key.until_ms > now ? `${age}, valid for ${duration(key.until_ms - now)} more` : `${age}, valid no more`;
}
