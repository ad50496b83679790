// All sessions: found by words, platform and state, a page at a time.

import { askJson } from "./api.js";
import { $, ago, beginWith, element, link, reconcile, sessionName } from "./dom.js";

const PAGE = 100;
const TYPING_MS = 200;

export class Sessions {
  static template = "sessions";

  constructor(app) {
    this.app = app;
    this.rows = [];
    this.next = "";
  }

  async open() {
    $("session-filter").addEventListener("submit", (event) => event.preventDefault());
    let typing = 0;
    $("session-query").addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.load().catch(this.app.report), TYPING_MS);
    });
    for (const id of ["session-platform", "session-busy"])
      $(id).addEventListener("change", () => this.load().catch(this.app.report));
    $("more-sessions").addEventListener("click", () => this.load({ more: true }).catch(this.app.report));
    beginWith($("session-query"));
    await this.load();
  }

  close() {
    this.closed = true;
  }

  async load({ more = false } = {}) {
    const wanted = new URLSearchParams({ limit: PAGE });
    if ($("session-query").value.trim()) wanted.set("q", $("session-query").value.trim());
    if ($("session-platform").value) wanted.set("platform", $("session-platform").value);
    if ($("session-busy").value) wanted.set("state", $("session-busy").value);
    if (more && this.next) wanted.set("after", this.next);
    const asked = (this.asked = String(wanted));
    const found = await askJson(`/v1/sessions?${wanted}`);
    if (this.closed || this.asked !== asked) return;
    this.rows = more ? [...this.rows, ...found.sessions] : found.sessions;
    this.next = found.next ?? "";
    this.show(found.platforms);
  }

  // What changed is fetched for the first page; a reader who went further keeps the rows as they are.
  async refresh() {
    if (this.rows.length <= PAGE) await this.load();
  }

  show(platforms = []) {
    const chosen = $("session-platform");
    const known = new Set([...chosen.options].map((option) => option.value));
    for (const name of [...platforms, ...this.rows.map((row) => row.platform)]) {
      if (known.has(name)) continue;
      known.add(name);
      chosen.append(new Option(name, name));
    }
    reconcile($("session-rows"), this.rows, (row) => row.key, sessionRow);
    $("no-sessions").hidden = this.rows.length > 0;
    $("more-sessions").hidden = !this.next;
  }

  happened() {}
}

function sessionRow(row) {
  const { platform, name } = sessionName(row.key);
  const made = element("tr");
  const cell = element("td", "wide");
  const door = link(`/chat/${encodeURIComponent(row.key)}`, row.title || name);
  door.title = row.key;
  cell.append(door);
  if (row.title) cell.append(element("span", "key", name));
  const state = row.running ? "running" : row.waiting ? `${row.waiting} waiting` : "resting";
  made.append(cell, element("td", "platform", platform), element("td", `doing ${state.split(" ").at(-1)}`, state));
  made.append(element("td", "number", ago(row.updated_at)));
  return made;
}
