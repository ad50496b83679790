// One message's way: every stage with its time, its attempts, its calls, its replies.

import { askJson, post, sessionPath } from "./api.js";
import { $, button, clock, element, link, reconcile, tokens } from "./dom.js";

export class Message {
  static template = "message";

  constructor(app) {
    this.app = app;
  }

  async open(path) {
    this.id = decodeURIComponent(path.replace("/messages/", ""));
    $("message-id").textContent = this.id;
    await this.refresh();
  }

  close() {
    this.closed = true;
  }

  async refresh() {
    const found = await askJson(`/v1/messages/${encodeURIComponent(this.id)}`);
    if (this.closed) return;
    this.session = found.session;
    const state = found.running ? "running" : found.state;
    $("message-facts").replaceChildren(
      element("span", `state-chip ${state}`, state),
      link(`/chat/${encodeURIComponent(found.session)}`, found.session),
      element("span", "muted", [`from ${found.user}`, attempts(found.attempts), tokens(found.usage)].filter(Boolean).join(" · ")),
    );
    this.showActs(found, state);
    reconcile($("timeline"), stages(found), (stage) => stage.key, stageRow);
  }

  showActs(found, state) {
    const acts = [];
    if (state === "dead") acts.push(button("Retry", () => this.act(`/v1/dead/${this.id}/retry`)));
    if (state === "running") acts.push(button("Cancel", () => this.act(`${sessionPath(found.session)}/interrupt`)));
    reconcile($("message-acts"), acts.map((act) => act.dataset.act), (label) => label, (label) => acts.find((act) => act.dataset.act === label));
  }

  async act(path) {
    await post(path).catch(this.app.report);
    this.app.refreshSoon();
  }

  happened(name, said) {
    if (said.session === this.session) this.app.refreshSoon();
  }
}

const attempts = (count) => (count > 1 ? `${count} attempts` : "");

// The stages in the order of their times; ``until`` is where a stage that lasts has its end.
function stages(found) {
  const made = [{ key: "accepted", at: found.accepted_at, what: "accepted", about: "durable from here on" }];
  if (found.claimed_at)
    made.push({ key: "claimed", at: found.claimed_at, what: "claimed", about: [found.worker && `worker ${found.worker}`, found.suspect && "runs alone"].filter(Boolean).join(", ") });
  for (const call of [...(found.model_calls ?? []), ...found.calls])
    made.push({ key: `call ${call.step} ${call.call_id ?? call.name}`, at: call.started_at, until: call.ended_at, what: call.name, about: `step ${call.step}`, kind: "call" });
  if (found.steps) made.push({ key: "steps", at: found.claimed_at, what: `${found.steps} finished steps`, about: "checkpointed" });
  if (found.settled_at) made.push({ key: "settled", at: found.settled_at, what: found.state, about: found.error, kind: found.state });
  for (const reply of found.replies)
    made.push({ key: `reply ${reply.part}`, at: reply.sent_at ?? Infinity, what: `reply ${reply.part + 1}: ${reply.state}`, about: [reply.sent_id, reply.attempts > 1 && `${reply.attempts} attempts`, reply.error].filter(Boolean).join(", "), kind: reply.state });
  const first = found.accepted_at;
  return made.sort((one, other) => one.at - other.at).map((stage) => ({ ...stage, after: stage.at - first }));
}

function stageRow(stage) {
  const row = element("li", stage.kind ?? "");
  row.append(element("span", "when", Number.isFinite(stage.at) ? clock(stage.at) : "–"));
  row.append(element("span", "after", Number.isFinite(stage.after) ? `+${duration(stage.after)}` : ""));
  row.append(element("b", "", stage.what));
  const lasted = stage.until ? `took ${duration(stage.until - stage.at)}` : stage.kind === "call" && !stage.until ? "runs" : "";
  row.append(element("span", "muted", [stage.about, lasted].filter(Boolean).join(" · ")));
  return row;
}

const duration = (seconds) => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`);
