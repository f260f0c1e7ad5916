import { bytes, duration, plural, rtt, shortId } from "../format";
import type { Snapshot } from "../model";
import type { Rates } from "../rates";
import { Card, Empty, Table, useFold } from "./parts";

/** Rows at first. */
const SHOWN = 16;
const COLUMNS = [
  { name: "Peer" },
  { name: "Plane" },
  { name: "Round trip", numeric: true, hint: "of the last ping" },
  { name: "In", numeric: true },
  { name: "Out", numeric: true },
  { name: "Waits", numeric: true, hint: "bytes that wait for the socket" },
  { name: "Asks", numeric: true, hint: "open here / not answered yet for the peer" },
  { name: "Credit", numeric: true, hint: "smallest credit held, in units of 16 KiB: at 0 the peer takes nothing more of a kind for now" },
  { name: "Open for", numeric: true },
];

export function Links({ snapshot, rates }: { snapshot: Snapshot; rates: Rates }) {
  const links = Object.entries(snapshot.links);
  const { totals } = snapshot;
  const serving = (role: string) => (role === "client" || role === "operator" ? 1 : 0);
  // Silent ones first, then nodes, then clients.
  links.sort(([a, x], [b, y]) => Number(y.silent) - Number(x.silent) || serving(x.role) - serving(y.role) || x.role.localeCompare(y.role) || x.peer.localeCompare(y.peer) || Number(a) - Number(b));
  const aside =
    totals.links > links.length ? `${links.length} of ${plural(totals.links, "link")}` : plural(totals.links, "link");
  const [shown, more] = useFold(links, SHOWN);
  const rows = shown.map(([id, link]) => {
    const rate = rates.links[id];
    return {
      key: id,
      tone: link.silent ? ("bad" as const) : undefined,
      data: { "data-link": link.peer, "data-plane": link.plane },
      cells: [
        <>
          <span class="role">{link.role}</span>{" "}
          <span class="mono" title={link.peer}>
            {shortId(link.peer)}
          </span>
        </>,
        link.plane,
        link.silent ? "does not answer" : link.rtt_us === undefined ? <Unknown /> : rtt(link.rtt_us),
        rate ? `${bytes(rate.in)}/s` : <Unknown />,
        rate ? `${bytes(rate.out)}/s` : <Unknown />,
        bytes(link.outbound_bytes),
        `${link.open_asks} / ${link.unanswered}`,
        link.credit === undefined ? <Unknown /> : link.credit,
        duration(snapshot.taken_at_ms - link.opened_at_ms),
      ],
    };
  });
  return (
    <Card id="links" title="Links" aside={aside}>
      {rows.length ? (
        <Table label="Links" columns={COLUMNS} rows={rows} />
      ) : (
        <Empty>No link is open: this node reaches nobody, and nobody reached it.</Empty>
      )}
      {more}
    </Card>
  );
}

const Unknown = () => (
  <span class="unknown" title="not known yet">
    –
  </span>
);
