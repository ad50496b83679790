// Dead letters: what no turn answered, what no model answered, and replies that a platform will not take.

import { askJson } from "./api.js";
import { $, ago, button, confirmed, element, link, reconcile } from "./dom.js";

//: requests of one bulk act that are under way at once
const SIDE_BY_SIDE = 8;

export class Dead {
  static template = "dead";

  constructor(app) {
    this.app = app;
    this.letters = [];
    this.chosen = new Set();
  }

  async open() {
    $("dead-filter").addEventListener("submit", (event) => event.preventDefault());
    $("dead-query").addEventListener("input", () => this.show());
    $("dead-kind").addEventListener("change", () => this.show());
    $("dead-all").addEventListener("change", () => {
      this.chosen = new Set($("dead-all").checked ? this.shown().map((letter) => letter.id) : []);
      this.showChosen();
    });
    $("dead-retry").addEventListener("click", () => this.bulk("retry"));
    $("dead-purge").addEventListener("click", () => this.bulk("purge"));
    await this.refresh();
  }

  close() {
    this.closed = true;
  }

  async refresh() {
    const found = await askJson("/v1/dead");
    if (this.closed) return;
    this.letters = found.dead;
    const kinds = new Set([...$("dead-kind").options].map((option) => option.value));
    for (const { kind } of this.letters)
      if (kind && !kinds.has(kind)) kinds.add(kind), $("dead-kind").append(new Option(kind, kind));
    this.show();
  }

  shown() {
    const words = $("dead-query").value.trim().toLowerCase();
    const kind = $("dead-kind").value;
    return this.letters.filter(
      (letter) =>
        (!kind || letter.kind === kind) &&
        (!words || [letter.text, letter.session, letter.error, letter.user].some((text) => (text ?? "").toLowerCase().includes(words))),
    );
  }

  show() {
    const shown = this.shown();
    const there = new Set(shown.map((letter) => letter.id));
    this.chosen = new Set([...this.chosen].filter((id) => there.has(id)));
    $("dead-count").textContent = this.letters.length || "";
    $("no-dead").hidden = this.letters.length > 0;
    reconcile($("dead"), shown, (letter) => letter.id, (letter) => this.card(letter));
    this.showChosen();
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
      else this.chosen.delete(letter.id);
      this.showChosen();
    });
    head.append(choose, element("span", "state-chip dead", letter.kind ?? "message"), link(`/messages/${encodeURIComponent(letter.id)}`, letter.session));
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
    $("dead-all").checked = this.chosen.size > 0 && this.chosen.size === this.shown().length;
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
    if (act === "purge" && !(await confirmed(`Purge ${letters.length} messages for good?`, "Purge"))) return;
    for (let at = 0; at < letters.length; at += SIDE_BY_SIDE)
      await Promise.all(letters.slice(at, at + SIDE_BY_SIDE).map((letter) => this.one(act, letter)));
  }

  happened(name) {
    if (name === "dead" || name === "turn") this.app.refreshSoon();
  }
}

const after = (attempts) => (attempts ? `after ${attempts} attempt${attempts === 1 ? "" : "s"}: ` : "");
