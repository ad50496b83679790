// Who may talk: pairing codes, approvals, API keys, and what was done about them.

import { askJson, post } from "./api.js";
import { $, ago, button, clock, confirmed, day, element, reconcile } from "./dom.js";

export class Access {
  static template = "access";

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
    const [pairings, keys, audit] = await Promise.all(["/v1/pairings", "/v1/keys", "/v1/audit"].map((path) => askJson(path)));
    if (this.closed) return;
    this.showPairings(pairings);
    $("no-keys").hidden = keys.keys.length > 0;
    reconcile($("keys"), keys.keys, (key) => key.name, keyRow);
    $("no-audit").hidden = audit.audit.length > 0;
    reconcile($("audit"), audit.audit, (entry) => `${entry.at} ${entry.action} ${entry.target}`, auditRow);
  }

  showPairings({ pairings, approved = [] }) {
    $("pairings-count").textContent = pairings.length || "";
    $("no-pairings").hidden = pairings.length > 0;
    reconcile($("pairings"), pairings, (one) => one.sender, (one) => this.pairingRow(one));
    $("approved-card").hidden = approved.length === 0;
    reconcile($("approved"), approved, (sender) => sender, (sender) => this.approvedRow(sender));
  }

  pairingRow({ sender, code }) {
    const row = element("li");
    row.append(element("span", "code", code));
    row.append(button("Let in", () => this.act(`/v1/pairings/${encodeURIComponent(code)}/approve`)));
    row.append(element("span", "muted", sender));
    return row;
  }

  approvedRow(sender) {
    const row = element("li");
    row.append(element("span", "", sender), button("Revoke", () => this.revoke(sender), "small danger"));
    return row;
  }

  async revoke(sender) {
    if (await confirmed(`Shut ${sender} out again?`, "Revoke"))
      await this.act(`/v1/pairings/${encodeURIComponent(sender)}/revoke`);
  }

  async act(path) {
    await post(path).catch(this.app.report);
    this.app.refreshSoon();
  }

  happened(name) {
    if (name === "pairing" || name === "audit") this.app.refreshSoon();
  }
}

function keyRow({ name, role, created_at: made }) {
  const row = element("li");
  row.append(element("b", "", name), element("span", "state-chip", role));
  row.append(element("span", "muted", made ? `made ${ago(made)} ago` : "from the environment"));
  return row;
}

function auditRow(entry) {
  const row = element("tr");
  row.append(element("td", "when", `${day(entry.at)}, ${clock(entry.at)}`));
  row.append(element("td", "what", entry.action.replaceAll("_", " ")), element("td", "", entry.actor || "–"), element("td", "wide", entry.target));
  return row;
}
