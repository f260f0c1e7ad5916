// The verdict: problems first, the worst at the top, each with its cause and its remedy.

import { duration, plural, shortId } from "../format";
import type { View } from "../live";
import type { Problem, Snapshot } from "../model";
import { Mark, type Tone } from "./parts";

export function Strip({ view }: { view: View }) {
  const { phase, snapshot, heardAt, why } = view;
  const age = heardAt === undefined ? undefined : duration(performance.now() - heardAt);
  if (phase === "locked") {
    return (
      <Plain tone="warn" title="This page needs the node's token">
        On the node's machine, <code>pqcnet ui</code> prints the address to open. Whoever has it sees what you see here;
        it stays in this tab.
      </Plain>
    );
  }
  if (phase === "refused") {
    return (
      <Plain tone="bad" title="The node refuses to show itself">
        {why ?? "It did not say why."} This page asks again.
      </Plain>
    );
  }
  if (phase === "connecting") return <Plain tone="idle" title="Asking the node…">Nothing has come yet.</Plain>;
  const said = snapshot && <Said snapshot={snapshot} />;
  if (phase === "lost") {
    return (
      <>
        <Plain tone="bad" title="The connection to the node is lost" alert>
          {why && <>To be exact: {why}. </>}
          {snapshot ? (
            <>
              What you see below is <strong>{age} old</strong>, and the node may be gone.
            </>
          ) : (
            <>Nothing was heard of it yet.</>
          )}{" "}
          This page tries again by itself.
        </Plain>
        {said}
      </>
    );
  }
  if (view.trouble) {
    return (
      <>
        <Plain tone="bad" title="The node lives and cannot tell how it is" alert>
          In its words: {view.trouble}. What you see below is from before.
        </Plain>
        {said}
      </>
    );
  }
  return said ?? null;
}

function Plain(props: { tone: Tone; title: string; alert?: boolean; children: preact.ComponentChildren }) {
  const { tone, title, alert, children } = props;
  return (
    <section class={`verdict ${tone}`} role={alert ? "alert" : undefined}>
      <div class="line">
        <Mark tone={tone} />
        <h2>{title}</h2>
      </div>
      <p>{children}</p>
    </section>
  );
}

function Said({ snapshot }: { snapshot: Snapshot }) {
  const { verdict, problems, totals } = snapshot;
  const critical = problems.filter((problem) => problem.severity === "critical").length;
  const tone: Tone = verdict === "ok" ? "ok" : verdict === "not_serving" || critical ? "bad" : "warn";
  return (
    <section class={`verdict ${tone}`} id="verdict" data-verdict={verdict}>
      <div class="line" aria-live="polite">
        <Mark tone={tone} />
        <h2>{headline(snapshot)}</h2>
      </div>
      {problems.length > 0 ? (
        <ul class="problems">
          {problems.map((problem) => (
            <Wrong key={`${problem.code}/${problem.about ?? ""}/${problem.what}`} problem={problem} />
          ))}
        </ul>
      ) : (
        <p>
          {plural(totals.links, "link")} open, {plural(totals.clients, "client")} connected,{" "}
          {plural(totals.actors, "actor")} at work.
        </p>
      )}
    </section>
  );
}

function headline({ verdict, problems }: Snapshot): string {
  const wrong = `${problems.length === 1 ? "one thing is" : `${problems.length} things are`} wrong`;
  switch (verdict) {
    case "ok":
      return "All is well";
    case "degraded":
      return `It works, and ${wrong}`;
    case "not_serving":
      return problems.length ? `It does not do its work: ${wrong}` : "It does not do its work";
    case "draining":
      return "It was told to stop, and finishes what is in flight";
  }
}

function Wrong({ problem }: { problem: Problem }) {
  const tone = problem.severity === "critical" ? "bad" : "warn";
  return (
    <li data-problem={problem.code} data-about={problem.about}>
      <Mark tone={tone} />
      <div>
        <p class="what">
          <strong>{problem.what}</strong> <span class="code">{problem.code}</span>
          {problem.about && <span class="sr"> about node {shortId(problem.about)}</span>}
        </p>
        {problem.cause && (
          <p>
            <span class="label">Why</span> {problem.cause}
          </p>
        )}
        {problem.fix && (
          <p>
            <span class="label">Mend</span> {problem.fix}
          </p>
        )}
        {problem.explains.length > 0 && (
          <details>
            <summary>{plural(problem.explains.length, "symptom")} of the same</summary>
            <ul>
              {problem.explains.map((symptom) => (
                <li>{symptom}</li>
              ))}
            </ul>
          </details>
        )}
      </div>
    </li>
  );
}
