// One message's way: every stage as a bar on one scale of time, with its attempts, its calls and its replies.

import { askJson, post, sessionPath } from "./api.js";
import { $, button, clock, confirmed, duration, element, reconcile, sessionLink, tokens } from "./dom.js";

const TICK_MS = 1000;
//: the least that a bar is drawn of the whole, in percent
const THIN = 0.4;

export class Message {
  static template = "message";

  constructor(app) {
    this.app = app;
  }

  async open(path) {
    this.id = decodeURIComponent(path.replace("/messages/", ""));
    $("message-id").textContent = this.id;
    await this.refresh();
    this.ticking = setInterval(() => this.found?.running && this.draw(), TICK_MS);
  }

  close() {
    this.closed = true;
    clearInterval(this.ticking);
  }

  async refresh() {
    const found = await askJson(`/v1/messages/${encodeURIComponent(this.id)}`);
    if (this.closed) return;
    this.found = found;
    this.session = found.session;
    const state = found.running ? "running" : found.state;
    const facts = [["from", found.user], ["attempts", attempts(found)], ["used", tokens(found.usage)], ["took", took(found)]];
    $("message-facts").replaceChildren(
      element("span", `state-chip ${state}`, state),
      ...sessionLink(`/chat/${encodeURIComponent(found.session)}`, found.session, found.title),
      ...facts.filter(([, value]) => value).map(([name, value]) => fact(name, value)),
    );
    $("message-text").hidden = !found.text;
    if ($("message-text").textContent !== found.text) $("message-text").textContent = found.text;
    $("message-error").hidden = !found.error;
    $("message-error").textContent = found.error;
    this.showActs(found, state);
    $("message-stacks-card").hidden = !found.stacks;
    if ($("message-stacks").textContent !== found.stacks) $("message-stacks").textContent = found.stacks;
    this.draw();
  }

  draw() {
    const { rows, from, until } = stages(this.found, Date.now() / 1000);
    const drawn = rows.map((stage) => ({ ...stage, from, until: stage.until ?? null, end: until }));
    reconcile($("timeline"), drawn, (stage) => stage.key, stageRow);
    $("timeline-scale").textContent = `${clock(from)} to ${clock(until)}, ${duration(until - from)}`;
  }

  showActs(found, state) {
    const acts = [];
    if (state === "dead") acts.push(button("Retry", () => this.act(`/v1/dead/${this.id}/retry`)), button("Purge", () => this.purge(), "small danger"));
    if (state === "running") acts.push(button("Cancel", () => this.act(`${sessionPath(found.session)}/interrupt`), "small danger"));
    reconcile($("message-acts"), acts.map((act) => act.dataset.act), (label) => label, (label) => acts.find((act) => act.dataset.act === label));
  }

  async purge() {
    if (!(await confirmed("Purge this message for good? Nothing of it is kept.", "Purge"))) return;
    await askJson(`/v1/dead/${this.id}`, { method: "DELETE" }).catch(this.app.report);
    this.app.go("/dead");
  }

  async act(path) {
    await post(path).catch(this.app.report);
    this.app.refreshSoon();
  }

  happened(name, said) {
    if (said.session === this.session) this.app.refreshSoon();
  }
}

const attempts = ({ attempts: count }) => (count > 1 ? String(count) : "");
const took = ({ accepted_at: from, settled_at: until }) => (until ? duration(until - from) : "");

function fact(name, value) {
  const made = element("span", "fact");
  made.append(element("span", "muted", name), element("span", "", value));
  return made;
}

// What the running turn is at.
function doing(found) {
  const open = found.calls.find((call) => !call.ended_at);
  return found.said || (open ? `uses ${open.name}` : "asks the model");
}

// The stages in the order of their times; ``until`` is where a stage that lasts has its end.
function stages(found, now) {
  const end = found.settled_at ?? (found.running ? now : null);
  const made = [{ key: "accepted", at: found.accepted_at, what: "accepted", about: "durable from here on" }];
  made.push({ key: "waits", at: found.accepted_at, until: found.claimed_at ?? end ?? now, what: "waited", about: found.claimed_at ? "for its turn" : "waits for its turn", kind: "wait" });
  if (found.claimed_at)
    made.push({ key: "turn", at: found.claimed_at, until: end ?? now, what: "turn", about: [found.worker && `worker ${found.worker}`, found.suspect && "runs alone", found.steps && `${found.steps} finished steps`, found.running && doing(found)].filter(Boolean).join(", "), kind: "turn", open: !found.settled_at && found.running });
  const told = new Set(found.timeline.map((part) => part.call_id).filter(Boolean));
  found.timeline.forEach((part, at) =>
    made.push({ key: `part ${at}`, at: part.started_at, until: part.ended_at, what: part.name, about: part.problem ?? tokens(part), kind: part.problem && part.kind === "model" ? "failed" : part.kind }));
  for (const call of found.calls.filter((one) => !told.has(one.call_id)))
    made.push({ key: `call ${call.call_id}`, at: call.started_at, until: call.ended_at ?? end ?? now, what: call.name, about: `step ${call.step}`, kind: "tool", open: !call.ended_at && found.running });
  if (found.settled_at) made.push({ key: "settled", at: found.settled_at, what: found.state, about: "", kind: found.state });
  for (const reply of found.replies)
    made.push({ key: `reply ${reply.part}`, at: found.settled_at ?? now, until: reply.sent_at ?? now, what: `reply ${reply.part + 1}`, about: [reply.state, reply.sent_id?.startsWith(found.id) ? "" : reply.sent_id, reply.attempts > 1 && `${reply.attempts} attempts`, reply.error].filter(Boolean).join(", "), kind: reply.state === "failed" ? "failed" : "reply" });
  const rows = made.sort((one, other) => one.at - other.at);
  return { rows, from: found.accepted_at, until: Math.max(...rows.map((row) => row.until ?? row.at), found.accepted_at + 0.001) };
}

function stageRow(stage) {
  const { from, end } = stage;
  const row = element("li", stage.kind ?? "");
  const percent = (at) => Math.min(100, Math.max(0, ((at - from) / (end - from)) * 100));
  const name = element("div", "stage-name");
  name.append(element("b", "", stage.what), element("span", "muted", stage.about));
  const track = element("div", "track");
  track.setAttribute("aria-hidden", "true");
  const bar = element("i", stage.until ? (stage.open ? "bar open" : "bar") : "point");
  const left = Math.min(percent(stage.at), 100 - THIN);
  bar.style.left = `${left}%`;
  if (stage.until) bar.style.width = `${Math.max(THIN, percent(stage.until) - left)}%`;
  track.append(bar);
  const times = element("div", "stage-times");
  times.append(element("span", "", `+${duration(stage.at - from)}`));
  times.append(element("span", "muted", stage.until ? `${stage.open ? "runs for" : "took"} ${duration(stage.until - stage.at)}` : clock(stage.at)));
  row.append(name, track, times);
  return row;
}
