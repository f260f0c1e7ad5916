import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import "uplot/dist/uPlot.min.css";
import "./style.css";
import { follow, type View } from "./live";
import { History } from "./rates";
import { Actors } from "./views/Actors";
import { Head } from "./views/Head";
import { Keys } from "./views/Keys";
import { Links } from "./views/Links";
import { Mesh } from "./views/Mesh";
import { Shards } from "./views/Shards";
import { Traffic } from "./views/Traffic";
import { Strip } from "./views/Strip";

const history = new History();

function Page() {
  const [view, setView] = useState<View>({ phase: "connecting" });
  const [, setNow] = useState(0);
  useEffect(() => {
    follow(setView);
    // Ages go on while nothing comes.
    const clock = setInterval(() => setNow((count) => count + 1), 1000);
    return () => clearInterval(clock);
  }, []);
  const { snapshot } = view;
  if (snapshot) history.add(snapshot);
  useEffect(() => {
    document.title = title(view);
  });
  const stale = view.phase !== "live" || view.trouble !== undefined;
  return (
    <>
      <Head view={view} />
      <main class={stale ? "stale" : ""}>
        <Strip view={view} />
        {snapshot && (
          <>
            <div class="pair">
              <Mesh snapshot={snapshot} />
              <Traffic snapshot={snapshot} history={history} />
            </div>
            <Shards snapshot={snapshot} />
            <Links snapshot={snapshot} rates={history.rates} />
            <Actors snapshot={snapshot} rates={history.rates} />
            <Keys snapshot={snapshot} />
          </>
        )}
      </main>
      {snapshot && (
        <footer>
          <span>{snapshot.node.software}</span>
          <span>
            network <span class="mono">{snapshot.node.network_id.slice(0, 16)}…</span>
          </span>
          <span>ciphers {snapshot.node.suites.join(", ") || "unknown"}</span>
        </footer>
      )}
    </>
  );
}

function title({ phase, snapshot }: View): string {
  if (!snapshot) return "PQCNet node";
  const { role, id } = snapshot.node;
  const name = `${role} ${id.slice(0, 8)}`;
  if (phase !== "live") return `✕ lost: ${name}`;
  const wrong = snapshot.problems.length;
  return wrong ? `(${wrong}) ${name}` : name;
}

const root = document.getElementById("app");
if (root) render(<Page />, root);
