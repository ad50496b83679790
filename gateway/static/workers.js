// The workers, the turns that run now, and the last hang.

import { askJson, post } from "./api.js";
import { $, ago, button, clock, confirmed, element, link, megabytes, reconcile, sessionLink } from "./dom.js";

export class Workers {
  static template = "workers";

  constructor(app) {
    this.app = app;
  }

  async open() {
    await this.refresh();
  }

  close() {
    this.closed = true;
  }

  async refresh() {
    const [table, turns, hangs] = await Promise.all(["/v1/workers", "/v1/turns", "/v1/hangs"].map((path) => askJson(path)));
    if (this.closed) return;
    this.show(table);
    $("no-turns").hidden = turns.turns.length > 0;
    reconcile($("turns"), turns.turns, (turn) => turn.message_id, (turn) => turnRow(turn, turns.titles?.[turn.session]));
    this.showHang(hangs.hangs[0]);
  }

  happened(name, said) {
    if (name === "workers") this.show(said);
    if (name === "tool" || name === "workers") this.app.refreshSoon();
  }

  show(table) {
    $("workers-count").textContent = table.workers.length;
    const restarts = `${table.restarts} restart${table.restarts === 1 ? "" : "s"}`;
    $("workers-note").textContent = `${table.spares} warm spare${table.spares === 1 ? "" : "s"}, ${restarts}`;
    reconcile($("workers"), table.workers, name, (worker) => this.row(worker));
    this.showHosts(table.hosts ?? []);
    const own = table.workers.flatMap((worker) => (worker.mcp ?? []).map((server) => ({ ...server, of: `worker ${name(worker)}` })));
    this.showServers([...(table.mcp ?? []).map((server) => ({ ...server, of: "all workers" })), ...own]);
  }

  showHosts(hosts) {
    $("hosts-card").hidden = hosts.length === 0;
    reconcile($("hosts"), hosts, (host) => host.host, (host) => {
      const row = element("li");
      row.append(element("b", "", host.host));
      const does = [host.gateway && "gateway", host.workers && `${host.workers} worker${host.workers === 1 ? "" : "s"}`];
      const turns = `${host.running} turn${host.running === 1 ? "" : "s"}, ${host.waiting} waiting`;
      row.append(element("span", "muted", [...does, turns, `since ${clock(host.joined_at)}`].filter(Boolean).join(", ")));
      return row;
    });
  }

  row(worker) {
    const row = element("tr");
    const looked = worker.todo_cache.hits + worker.todo_cache.misses;
    row.append(element("td", "n", name(worker)), element("td", `state ${worker.state}`, worker.state));
    const hits = looked ? `${Math.round((worker.todo_cache.hits / looked) * 100)} % of ${looked.toLocaleString()}` : "–";
    const cells = [["turns", worker.turns], ["sessions", worker.sessions], ["memory", megabytes(worker.rss_bytes)], ["cache hits", hits], ["loop lag", worker.pid ? lag(worker.loop_lag_s) : "–"], ["since", worker.started_at ? ago(worker.started_at) : "–"]];
    for (const [label, text] of cells) {
      const cell = element("td", "number", text);
      cell.dataset.label = label;
      row.append(cell);
    }
    const acts = element("td", "number acts-cell");
    acts.dataset.pid = worker.pid; // what its buttons are about
    if (worker.state === "ready" && !worker.host) acts.append(button("Recycle", () => this.recycle(worker), "small plain"));
    if (worker.pid) acts.append(button("Kill", () => this.kill(worker), "small danger"));
    row.append(acts);
    row.title = worker.pid ? `pid ${worker.pid}` : "";
    return row;
  }

  async kill(worker) {
    if (!(await confirmed(`Kill worker ${name(worker)} (pid ${worker.pid})? Its turns go on in another one.`, "Kill"))) return;
    await post(`/v1/workers/${name(worker).split("/").map(encodeURIComponent).join("/")}/kill`).catch(this.app.report);
    this.app.refreshSoon();
  }

  async recycle(worker) {
    await post(`/v1/workers/${worker.n}/recycle`).catch(this.app.report);
    this.app.refreshSoon();
  }

  // A server has one row, however many workers talk to it.
  showServers(connections) {
    $("mcp-card").hidden = connections.length === 0;
    const servers = Object.entries(Object.groupBy(connections, (one) => one.server));
    reconcile($("mcp"), servers, ([server]) => server, ([server, found]) => {
      const up = found.filter((one) => one.up);
      const state = up.length === found.length ? "up" : up.length ? "partly up" : "down";
      const row = element("li");
      row.append(element("b", "", server), element("span", `state-chip ${state === "up" ? "done" : "failed"}`, state));
      const of = found.length === 1 ? found[0].of : `up in ${up.length} of ${found.length} workers`;
      const problems = [...new Set(found.map((one) => one.problem).filter(Boolean))];
      row.append(element("span", "muted", [of, `${Math.max(...found.map((one) => one.tools))} tools`, ...problems].join(", ")));
      return row;
    });
  }

  showHang(hang) {
    $("hangs-card").hidden = !hang;
    if (!hang) return;
    $("hang-facts").textContent = `${clock(hang.at)}, worker ${hang.n}, ${hang.cause}: ${hang.error}`;
    if (hang.message) $("hang-facts").append(", in the turn of ", link(`/messages/${encodeURIComponent(hang.message)}`, hang.message));
    if ($("hang-stacks").textContent !== hang.stacks) $("hang-stacks").textContent = hang.stacks;
  }
}

function name(worker) {
  return worker.host ? `${worker.host}/${worker.n}` : `${worker.n}`;
}

function lag(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}

function turnRow(turn, title) {
  const row = element("li");
  const head = element("span", "card-head");
  head.append(...sessionLink(`/messages/${encodeURIComponent(turn.message_id)}`, turn.session, title));
  row.append(head);
  const doing = turn.said || (turn.tool ? `using ${turn.tool}` : "asks the model");
  const runs = `since ${clock(turn.started_at)}, worker ${turn.host ? `${turn.host}/` : ""}${turn.worker}, step ${turn.step}, ${doing}`;
  row.append(element("span", "muted", turn.worker === null ? "waits for a slot" : runs));
  return row;
}
