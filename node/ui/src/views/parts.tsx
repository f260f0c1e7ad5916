import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

/** What stands on a card. */
export function Card(props: { id: string; title: string; aside?: ComponentChildren; children: ComponentChildren }) {
  const { id, title, aside, children } = props;
  return (
    <section class="card" id={id} aria-labelledby={`${id}-title`}>
      <header>
        <h2 id={`${id}-title`}>{title}</h2>
        {aside && <p class="aside">{aside}</p>}
      </header>
      {children}
    </section>
  );
}

export type Tone = "ok" | "warn" | "bad" | "idle";

/** A state by shape and colour: whoever sees no colours sees the shape. */
export function Mark({ tone }: { tone: Tone }) {
  const shapes: Record<Tone, ComponentChildren> = {
    ok: <path d="M3.5 8.5l3 3 6-7" />,
    warn: <path d="M8 3.5v5.5M8 12v.6" />,
    bad: <path d="M4.5 4.5l7 7M11.5 4.5l-7 7" />,
    idle: <path d="M4 8h8" />,
  };
  return (
    <svg class={`mark ${tone}`} viewBox="0 0 16 16" aria-hidden="true">
      <circle class="disc" cx="8" cy="8" r="8" />
      {shapes[tone]}
    </svg>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

/** A table that turns into a list of cards on a narrow screen: each cell carries its column's name. */
export function Table(props: {
  label: string;
  columns: { name: string; numeric?: boolean; hint?: string }[];
  rows: { key: string; cells: ComponentChildren[]; tone?: Tone; data?: Record<string, string> }[];
}) {
  const { label, columns, rows } = props;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={label}>
      <table>
        <thead>
          <tr>
            {columns.map((column) => (
              <th scope="col" class={column.numeric ? "num" : ""} title={column.hint}>
                {column.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.key} class={row.tone ? `tone-${row.tone}` : ""} {...row.data}>
              {row.cells.map((cell, index) => {
                const column = columns[index];
                const common = { class: column?.numeric ? "num" : "", "data-label": column?.name };
                return index === 0 ? (
                  <th scope="row" {...common}>
                    {cell}
                  </th>
                ) : (
                  <td {...common}>{cell}</td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** How full something is. */
export function Meter({ value, of, label }: { value: number; of: number; label: string }) {
  const share = of > 0 ? Math.min(1, value / of) : 0;
  const tone = share > 0.9 ? "bad" : share > 0.5 ? "warn" : "ok";
  return (
    <svg class={`meter ${tone}`} viewBox="0 0 40 6" role="img" aria-label={label} preserveAspectRatio="none">
      <rect class="track" width="40" height="6" rx="3" />
      {value > 0 && <rect class="fill" width={Math.max(3, 40 * share)} height="6" rx="3" />}
    </svg>
  );
}

/** The first of a list, and a button that shows all of it: a person reads no more at once. */
export function useFold<T>(list: T[], shown: number): [T[], ComponentChildren] {
  const [all, setAll] = useState(false);
  if (list.length <= shown) return [list, null];
  const button = (
    <button type="button" class="quiet" aria-expanded={all} onClick={() => setAll(!all)}>
      {all ? "Show fewer" : `Show all ${list.length}`}
    </button>
  );
  return [all ? list : list.slice(0, shown), button];
}
