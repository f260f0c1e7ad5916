// Figures and times as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const number = (value: number): string => whole.format(value);

/** 1234567 → 1.23 M: at most three digits that count. */
export function short(value: number): string {
  return scaled(value, ["", "\u00a0k", "\u00a0M", "\u00a0G", "\u00a0T"]);
}

export const bytes = (value: number): string => scaled(value, ["\u00a0B", "\u00a0kB", "\u00a0MB", "\u00a0GB", "\u00a0TB"]);

function scaled(value: number, units: string[]): string {
  let at = 0;
  while (value >= 999.5 && at < units.length - 1) {
    value /= 1000;
    at += 1;
  }
  const digits = at === 0 ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return `${value.toFixed(digits)}${units[at]}`;
}

/** The two largest units: 3 d 4 h, 12 min 5 s, 8 s. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const parts: [number, string][] = [
    [Math.floor(seconds / 86400), "d"],
    [Math.floor(seconds / 3600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "min"],
    [seconds % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return "0 s";
  return parts
    .slice(first, first + 2)
    .filter(([count], index) => index === 0 || count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(" ");
}

export function rtt(us: number): string {
  return us < 1000 ? `${us} µs` : us < 100_000 ? `${(us / 1000).toFixed(1)} ms` : `${Math.round(us / 1000)} ms`;
}

/** The beginning of an id, as logs print it. */
export const shortId = (id: string): string => id.slice(0, 8);

/** A text with every whole id in it cut to its beginning. */
export const brief = (text: string): string => text.replace(/\b[0-9a-f]{64}\b/g, shortId);

export const plural = (count: number, one: string, many = `${one}s`): string =>
  `${number(count)} ${count === 1 ? one : many}`;

export const words = (name: string): string => name.replaceAll("_", " ");
