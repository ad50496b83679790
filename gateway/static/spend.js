// Queues and spend: what waits and runs, as it was in the last hour and is now, and what the budgets hold.

import { askJson } from "./api.js";
import { $, clock, element, megabytes, reconcile, shortClock } from "./dom.js";
import uPlot from "./vendor/uplot/uPlot.esm.js";

const MIB = 1048576;
//: for how long a budget is, as people say it
const SPANS = { hour: "an hour", day: "a day" };
//: a plot: its lines (label, field, scale) and how its figures read
const PLOTS = {
  "plot-queue": { series: [["waiting", "waiting"], ["running", "running"], ["undelivered", "undelivered"]], read: (value) => value },
  "plot-lag": { series: [["loop lag ms", "lag_ms"], ["oldest wait s", "oldest_s"]], read: (value) => value.toFixed(1) },
  "plot-tokens": { series: [["tokens a minute", "tokens_per_min"]], read: (value) => Math.round(value).toLocaleString() },
  "plot-memory": { series: [["gateway MB", "gateway_mb"], ["workers MB", "workers_mb"]], read: (value) => Math.round(value) },
};

export class Spend {
  static template = "spend";

  constructor(app) {
    this.app = app;
    this.plots = {};
  }

  async open() {
    const style = element("link");
    style.rel = "stylesheet";
    style.href = "/vendor/uplot/uPlot.css";
    $("page").firstElementChild.prepend(style);
    this.resizing = new ResizeObserver(() => this.resize());
    this.resizing.observe($("page"));
    await this.refresh();
    this.ticking = setInterval(() => this.refresh().catch(this.app.report), 5000);
  }

  close() {
    this.closed = true;
    clearInterval(this.ticking);
    this.resizing?.disconnect();
    for (const plot of Object.values(this.plots)) plot.destroy();
  }

  async refresh() {
    const [stats, budgets] = await Promise.all([askJson("/v1/stats"), askJson("/v1/budgets")]);
    if (this.closed) return;
    this.showPlots(stats.samples.map(readSample));
    $("no-budgets").hidden = budgets.budgets.length > 0;
    reconcile($("budgets"), budgets.budgets, (budget) => budget.budget, budgetCard);
  }

  showPlots(samples) {
    $("spend-note").textContent = samples.length ? "the last hour" : "";
    for (const [id, { series, read }] of Object.entries(PLOTS)) {
      const data = [samples.map((sample) => sample.at), ...series.map(([, field]) => samples.map((sample) => sample[field]))];
      if (this.plots[id]) this.plots[id].setData(data);
      else this.plots[id] = drawPlot($(id), series, data, read);
    }
    const now = samples.at(-1);
    if (!now) return;
    $("now-waiting").textContent = `${now.waiting} waiting, ${now.running} running`;
    $("now-lag").textContent = `${now.lag_ms.toFixed(1)} ms, ${now.oldest_s.toFixed(0)} s`;
    $("now-tokens").textContent = Math.round(now.tokens_per_min).toLocaleString();
    $("now-memory").textContent = `${megabytes(now.gateway_mb * MIB)} gateway, ${megabytes(now.workers_mb * MIB)} workers`;
  }

  resize() {
    for (const [id, plot] of Object.entries(this.plots)) plot.setSize({ width: $(id).clientWidth, height: 180 });
  }

  happened() {}
}

const readSample = (sample) => ({ ...sample, gateway_mb: sample.gateway_rss_bytes / MIB, workers_mb: sample.workers_rss_bytes / MIB });

function drawPlot(box, series, data, read) {
  const colours = ["--line-1", "--line-2", "--line-3"].map((name) => colour(box, name));
  const ink = colour(box, "--soft");
  const grid = { stroke: colour(box, "--line"), width: 1 };
  const options = {
    width: box.clientWidth,
    height: 180,
    cursor: { y: false },
    axes: [{ stroke: ink, grid, ticks: grid, space: 70, size: 32, values: (plot, times) => times.map(shortClock) }, { stroke: ink, grid, ticks: grid, size: 56, space: 36 }],
    scales: { y: { range: (plot, low, high) => [0, Math.max(1, high * 1.1)] } },
    legend: { markers: { width: 0, fill: (plot, at) => colours[at - 1], stroke: () => "" } },
    series: [{ label: "at", value: (plot, at) => (at == null ? "" : clock(at)) }, ...series.map(([label], at) => ({ label, stroke: colours[at], width: 2, points: { show: false }, value: (plot, value) => (value == null ? "" : read(value)) }))],
  };
  return new uPlot(options, data, box);
}

// A canvas takes no variables: the colour as it is in the scheme of now.
function colour(box, name) {
  box.style.color = `var(${name})`;
  const found = getComputedStyle(box).color;
  box.style.color = "";
  return found;
}

function budgetCard(budget) {
  const row = element("li");
  const spent = Math.max(0, ...budget.spent.map((one) => one.amount));
  const shown = (amount) => (budget.unit === "money" ? `$${amount.toLocaleString()}` : amount.toLocaleString());
  const limit = `${shown(budget.limit)}${budget.unit === "money" ? "" : ` ${budget.unit}`}`;
  row.append(element("b", "", `${budget.budget} budget`), element("span", "muted", `${limit} ${SPANS[budget.window] ?? `a ${budget.window}`}; the most used is at ${Math.round((spent / budget.limit) * 100)} %`));
  const bar = element("progress");
  bar.max = budget.limit;
  bar.value = spent;
  bar.setAttribute("aria-label", `most used of the ${budget.budget} budget`);
  row.append(bar);
  const spenders = element("ul", "spenders");
  for (const { by, amount } of budget.spent.slice(0, 5)) {
    const line = element("li");
    line.append(element("span", "", by || "everybody"), element("span", "number", shown(amount)));
    spenders.append(line);
  }
  row.append(spenders);
  return row;
}
