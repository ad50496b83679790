// Dead letters: what no turn answered, what no model answered, and replies that a platform will not take.

import { askJson, post } from "./api.js";
import { $, ago, button, confirmed, element, reconcile, sessionLink } from "./dom.js";

//: requests of one bulk act that are under way at once
const SIDE_BY_SIDE = 8;
const PAGE = 100;
//: as many of a list as one answer may have
const MOST = 1000;
//: letters that one bulk request acts on at the most
const BULK = 10_000;
const TYPING_MS = 200;

export class Dead {
  static template = "dead";

  constructor(app) {
    this.app = app;
    this.letters = [];
    this.chosen = new Set();
    this.next = "";
    this.total = 0;
  }

  async open() {
    $("dead-filter").addEventListener("submit", (event) => event.preventDefault());
    let typing = 0;
    $("dead-query").addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.load().catch(this.app.report), TYPING_MS);
    });
    $("dead-kind").addEventListener("change", () => this.load().catch(this.app.report));
    $("more-dead").addEventListener("click", () => this.load({ more: true }).catch(this.app.report));
    $("dead-all").addEventListener("change", () => {
      this.everything = $("dead-all").checked;
      this.chosen = new Set(this.everything ? this.letters.map((letter) => letter.id) : []);
      this.showChosen();
    });
    $("dead-retry").addEventListener("click", () => this.bulk("retry"));
    $("dead-purge").addEventListener("click", () => this.bulk("purge"));
    await this.load();
  }

  close() {
    this.closed = true;
  }

  // What changed is fetched for as many letters as are shown; past the most of one answer the rows stay as they are.
  async refresh() {
    if (this.letters.length <= MOST) await this.load({ limit: Math.max(PAGE, this.letters.length) });
  }

  filter() {
    const given = { q: $("dead-query").value.trim(), kind: $("dead-kind").value };
    return Object.fromEntries(Object.entries(given).filter(([, value]) => value));
  }

  async load({ more = false, limit = PAGE } = {}) {
    const wanted = new URLSearchParams({ limit, ...this.filter() });
    if (more && this.next) wanted.set("after", this.next);
    const asked = (this.asked = String(wanted));
    const found = await askJson(`/v1/dead?${wanted}`);
    if (this.closed || this.asked !== asked) return;
    this.letters = more ? [...this.letters, ...found.dead] : found.dead;
    this.titles = { ...this.titles, ...found.titles };
    this.next = found.next ?? "";
    if (!more || found.total) this.total = found.total ?? 0;
    this.show();
  }

  show() {
    const there = new Set(this.letters.map((letter) => letter.id));
    this.chosen = new Set(this.everything ? there : [...this.chosen].filter((id) => there.has(id)));
    $("dead-count").textContent = this.fitting();
    const filtered = Object.keys(this.filter()).length > 0;
    $("no-dead").hidden = this.letters.length > 0 || filtered;
    $("no-fitting-dead").hidden = this.letters.length > 0 || !filtered;
    $("more-dead").hidden = !this.next;
    reconcile($("dead"), this.letters, (letter) => letter.id, (letter) => this.card(letter));
    this.showChosen();
  }

  // How many fit, as far as it is known.
  fitting() {
    if (this.next) return this.total ? this.total.toLocaleString() : `more than ${this.letters.length.toLocaleString()}`;
    return this.letters.length ? this.letters.length.toLocaleString() : "";
  }

  card(letter) {
    const row = element("li");
    const head = element("div", "card-head");
    const choose = element("input");
    choose.type = "checkbox";
    choose.dataset.id = letter.id;
    choose.setAttribute("aria-label", `Choose ${letter.id}`);
    choose.addEventListener("change", () => {
      if (choose.checked) this.chosen.add(letter.id);
      else this.chosen.delete(letter.id), (this.everything = false);
      this.showChosen();
    });
    head.append(choose, element("span", "state-chip dead", letter.kind ?? "message"), ...sessionLink(`/messages/${encodeURIComponent(letter.id)}`, letter.session, this.titles[letter.session]));
    head.append(element("span", "muted ago", ago(letter.dead_at)));
    const acts = element("span", "card-acts");
    acts.append(button("Retry", () => this.one("retry", letter)), button("Purge", () => this.purgeOne(letter), "small danger"));
    head.append(acts);
    row.append(head, element("p", "quote", letter.text.slice(0, 400)), element("p", "muted", `${after(letter.attempts)}${letter.error}`));
    if (letter.stacks) {
      const more = element("details");
      more.append(element("summary", "", "Stacks at the kill"), element("pre", "stacks", letter.stacks));
      row.append(more);
    }
    return row;
  }

  showChosen() {
    for (const box of $("dead").querySelectorAll("input[data-id]")) box.checked = this.chosen.has(box.dataset.id);
    $("dead-retry").disabled = $("dead-purge").disabled = this.chosen.size === 0;
    $("dead-all").checked = this.chosen.size > 0 && this.chosen.size === this.letters.length && (this.everything || !this.next);
    $("dead-all-text").textContent = this.next ? `all that fit (${this.fitting()})` : "all shown";
  }

  one(act, letter) {
    const options = act === "retry" ? [`/v1/dead/${letter.id}/retry`, { method: "POST" }] : [`/v1/dead/${letter.id}`, { method: "DELETE" }];
    return askJson(...options).catch(this.app.report).finally(() => this.app.refreshSoon());
  }

  async purgeOne(letter) {
    if (await confirmed("Purge this message for good? Nothing of it is kept.", "Purge")) await this.one("purge", letter);
  }

  async bulk(act) {
    const letters = this.letters.filter((letter) => this.chosen.has(letter.id));
    const everything = this.everything && this.next;
    const count = everything ? this.fitting() : letters.length.toLocaleString();
    if (act === "purge" && !(await confirmed(`Purge ${count} messages for good?`, "Purge"))) return;
    if (everything) return this.allThatFit(act).catch(this.app.report).finally(() => this.app.refreshSoon());
    for (let at = 0; at < letters.length; at += SIDE_BY_SIDE)
      await Promise.all(letters.slice(at, at + SIDE_BY_SIDE).map((letter) => this.one(act, letter)));
  }

  // What dies again meanwhile is not meant.
  async allThatFit(act) {
    const filter = this.filter();
    const began = Date.now();
    this.everything = false;
    for (let count = BULK; count === BULK; )
      ({ count } = await post(`/v1/dead/${act}`, { ...filter, older: (Date.now() - began) / 1000 }));
  }

  happened(name) {
    if (name === "dead" || name === "turn") this.app.refreshSoon();
  }
}

const after = (attempts) => (attempts ? `after ${attempts} attempt${attempts === 1 ? "" : "s"}: ` : "");
