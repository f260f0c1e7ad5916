// Follows the node's events: the whole snapshot first, then what changed. Honest about what it does not know: it says when
// the node is gone, when it refuses, and how old what is shown has become.

import { patched, type Snapshot } from "./model";

export type Phase =
  /** Not heard of yet. */
  | "connecting"
  /** Events come. */
  | "live"
  /** It was heard and is not any more, or never answered. */
  | "lost"
  /** The token is missing or wrong. */
  | "locked"
  /** The node said no. */
  | "refused";

export interface View {
  phase: Phase;
  snapshot?: Snapshot;
  /** When the last event came, by this page's clock. */
  heardAt?: number;
  /** The node's or the browser's words. */
  why?: string;
  /** The node lives and cannot take a sample. */
  trouble?: string;
}

/** Events come every half second; a node silent for so long is lost. */
const SILENT_AFTER_MS = 2500;
const RETRY_MS = [250, 500, 1000, 2000] as const;
/** No event is larger; a stream that goes on is not a node's. */
const MAX_EVENT = 8 << 20;

const TOKEN = "pqcnet-token";

/** Takes the token out of the address, where it would stay in the history, into this tab's memory. */
export function takeToken(): string | null {
  const given = location.hash.slice(1);
  if (given) {
    sessionStorage.setItem(TOKEN, given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(TOKEN);
}

export function follow(show: (view: View) => void): void {
  let view: View = { phase: "connecting" };
  let attempt = 0;
  const set = (change: Partial<View>) => {
    view = { ...view, ...change };
    show(view);
  };

  const once = async (token: string): Promise<void> => {
    const abort = new AbortController();
    let alarm = 0;
    const heard = () => {
      clearTimeout(alarm);
      alarm = window.setTimeout(() => abort.abort("it says nothing any more"), SILENT_AFTER_MS);
    };
    heard();
    try {
      const response = await fetch("/api/v1/events", {
        headers: { Authorization: `Bearer ${token}`, Accept: "text/event-stream" },
        cache: "no-store",
        signal: abort.signal,
      });
      if (response.status === 401) {
        set({ phase: "locked", why: undefined });
        return;
      }
      if (!response.ok || !response.body) {
        set({ phase: "refused", why: await words(response) });
        return;
      }
      for await (const { name, data } of events(response.body)) {
        heard();
        const heardAt = performance.now();
        if (name === "trouble") {
          set({ phase: "live", heardAt, trouble: (data as { what: string }).what });
          continue;
        }
        attempt = 0;
        const snapshot = name === "snapshot" ? (data as Snapshot) : patched(view.snapshot, data);
        set({ phase: "live", snapshot, heardAt, trouble: undefined, why: undefined });
      }
      set({ phase: "lost", why: "it ended the connection" });
    } catch (error) {
      const why = abort.signal.aborted ? String(abort.signal.reason) : "nobody answers there";
      set({ phase: "lost", why: error instanceof SyntaxError ? "it sent something else" : why });
    } finally {
      clearTimeout(alarm);
      abort.abort();
    }
  };

  const run = async () => {
    for (;;) {
      const token = takeToken();
      if (token) await once(token);
      else set({ phase: "locked" });
      // A locked page waits for another address, not for time.
      if (view.phase === "locked") await new Promise((go) => addEventListener("hashchange", go, { once: true }));
      else await pause(RETRY_MS[Math.min(attempt++, RETRY_MS.length - 1)] ?? 2000);
    }
  };
  void run();
}

const pause = (ms: number) => new Promise((go) => setTimeout(go, ms));

async function words(response: Response): Promise<string> {
  try {
    return ((await response.json()) as { what: string }).what;
  } catch {
    return `status ${response.status}`;
  }
}

async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<{ name: string; data: unknown }> {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    if (buffer.length > MAX_EVENT) throw new SyntaxError("an event without end");
    let end: number;
    while ((end = buffer.indexOf("\n\n")) >= 0) {
      let name = "";
      let data = "";
      for (const line of buffer.slice(0, end).split("\n")) {
        if (line.startsWith("event: ")) name = line.slice(7);
        else if (line.startsWith("data: ")) data += line.slice(6);
      }
      buffer = buffer.slice(end + 2);
      if (name) yield { name, data: JSON.parse(data) };
    }
  }
}
