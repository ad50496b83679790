// The console: pages with addresses, and one stream of events that keeps the open one live.

import { Access } from "./access.js";
import { askJson, events, Refused, signIn } from "./api.js";
import { Chat } from "./chat.js";
import { Dead } from "./dead.js";
import { $, showTemplate } from "./dom.js";
import { Message } from "./message.js";
import { Sessions } from "./sessions.js";
import { Workers } from "./workers.js";

const RECONNECT_MS = 1500;
const GATHER_MS = 150;
const WRONG_KEY = "That key does not open this gateway.";
const CHAT_KEY = "That key may only chat, over the API; the console needs one that may read.";

// The first that fits shows an address.
const PAGES = [
  ["chat", /^\/(chat\/.*)?$/, "Chat", async () => Chat],
  ["sessions", /^\/sessions$/, "Sessions", async () => Sessions],
  ["message", /^\/messages\/.+$/, "A message's way", async () => Message],
  ["workers", /^\/workers$/, "Workers", async () => Workers],
  ["dead", /^\/dead$/, "Dead letters", async () => Dead],
  ["spend", /^\/spend$/, "Queues and spend", async () => (await import("./spend.js")).Spend],
  ["access", /^\/access$/, "Access", async () => Access],
];

class Console {
  constructor() {
    this.page = null;
    this.streaming = null;
    this.refreshing = 0;
    this.report = this.report.bind(this);
  }

  async start() {
    const { key_needed: keyNeeded, signed_in: signedIn } = await askJson("/console.json");
    if (keyNeeded && !signedIn) await this.askForKey();
    else if (signedIn?.role === "chat") await this.askForKey(CHAT_KEY);
    document.addEventListener("click", (event) => this.followLink(event));
    window.addEventListener("popstate", () => this.show());
    await this.show();
    this.stayLive();
    this.refreshBadges().catch(this.report);
  }

  // ---- pages

  go(path) {
    history.pushState(null, "", path);
    return this.show();
  }

  followLink(event) {
    const door = event.target.closest("a[href]");
    const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.defaultPrevented;
    if (!door || !plain || door.target || door.origin !== location.origin || door.hash) return;
    event.preventDefault();
    this.go(door.pathname);
  }

  async show() {
    const [name, , title, load] = PAGES.find(([, address]) => address.test(location.pathname)) ?? PAGES[0];
    const Page = await load();
    this.page?.close();
    const page = (this.page = new Page(this));
    showTemplate(Page.template);
    document.title = name === "chat" ? "Gatehouse" : `${title} · Gatehouse`;
    document.body.dataset.page = name;
    for (const door of document.querySelectorAll("#pages a"))
      door.dataset.page === name ? door.setAttribute("aria-current", "page") : door.removeAttribute("aria-current");
    try {
      await page.open(location.pathname);
    } catch (problem) {
      this.report(problem);
    }
    if (page === this.page) this.streaming?.abort(); // the stream is opened anew for what this page shows
  }

  // ---- live

  // Many events in a moment are one refresh.
  refreshSoon() {
    this.refreshing ||= setTimeout(() => {
      this.refreshing = 0;
      Promise.all([this.page.refresh(), this.refreshBadges()]).catch(this.report);
    }, GATHER_MS);
  }

  async refreshBadges() {
    const [dead, pairings] = await Promise.all([askJson("/v1/dead?limit=1"), askJson("/v1/pairings")]);
    for (const [id, count] of [["dead-badge", dead.total ?? dead.dead.length], ["pairings-badge", pairings.pairings.length]]) {
      $(id).textContent = count > 99 ? "99+" : count;
      $(id).hidden = count === 0;
    }
  }

  happened({ name, data }) {
    const said = JSON.parse(data);
    this.page.happened(name, said);
    if (!["workers", "todo", "tool", "said", "text", "bye", "hello", "stats"].includes(name)) this.refreshSoon();
  }

  async stayLive() {
    for (;;) {
      this.streaming = new AbortController();
      try {
        const asked = this.page.session ? `?session=${encodeURIComponent(this.page.session)}` : "";
        for await (const event of events(`/v1/events${asked}`, { signal: this.streaming.signal })) {
          if (event.name === "hello" && !this.live) this.refreshSoon();
          this.showLive("on", "live");
          this.happened(event);
        }
        this.showLive("off", "reconnecting");
      } catch (problem) {
        if (problem.name === "AbortError") continue;
        this.showLive("off", problem instanceof Refused ? problem.message : "offline");
        if (problem instanceof Refused && problem.status === 401) await this.askForKey(WRONG_KEY);
      }
      await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
    }
  }

  showLive(state, text) {
    this.live = state === "on";
    $("live").className = `live ${state}`;
    if ($("live").textContent !== text) $("live").textContent = text;
  }

  report(problem) {
    if (problem.name === "AbortError") return;
    if (problem instanceof Refused && problem.status === 401) this.askForKey(WRONG_KEY).then(() => this.refreshSoon());
    else this.showLive("off", problem.message);
  }

  async unlock(key) {
    try {
      const { role } = await signIn(key);
      if (role === "chat") await this.askForKey(CHAT_KEY);
    } catch (wrong) {
      await this.askForKey(wrong.message);
    }
  }

  askForKey(problem = "") {
    this.unlocking ??= new Promise((resolve) => {
      $("key-problem").textContent = problem;
      const unlock = () => {
        const key = $("key").value.trim();
        $("key").value = "";
        this.unlocking = null;
        resolve(this.unlock(key));
      };
      $("key-form").addEventListener("submit", unlock, { once: true });
      $("key-dialog").showModal();
    });
    return this.unlocking;
  }
}

$("key-dialog").addEventListener("cancel", (event) => event.preventDefault());

new Console().start().catch((problem) => {
  $("live").className = "live off";
  $("live").textContent = problem.message;
});
