// The chat: a conversation whose history and todo list the server keeps.

import { askJson, Away, events, post, Refused, sessionPath } from "./api.js";
import { addCopyButtons, Conversation, note } from "./conversation.js";
import { $, ago, beginWith, element, reconcile, sessionName, tokens } from "./dom.js";
import { showTodos } from "./panels.js";
import { Typewriter } from "./typewriter.js";
import { forgetUnsent, keepUnsent, unsent } from "./unsent.js";

const SESSION = "gatehouse-session";
const OWN = "api:default:";
const RECENT = 30;
const HISTORY = 200;
const COMMANDS = new Set(["/new", "/stop", "/undo", "/todo", "/status", "/trace", "/help", "/start", "/approve", "/deny"]);

const newId = (bytes) => Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const isCommand = (text) => COMMANDS.has(text.split(/\s/)[0].toLowerCase());
// Header values are bytes: names are sent as UTF-8.
const headerOf = (key) => String.fromCharCode(...new TextEncoder().encode(key.slice(OWN.length)));

export class Chat {
  static template = "chat";

  constructor(app) {
    this.app = app;
    this.asking = new Set();
    this.streamed = null; // the answer of a turn that this page did not ask for, as its text comes
  }

  get session() {
    return this.key;
  }

  async open(path) {
    const named = decodeURIComponent(path.replace(/^\/(chat\/)?/, ""));
    this.key = named || OWN + (localStorage.getItem(SESSION) ?? `web-${newId(3)}`);
    this.own = this.key.startsWith(OWN);
    if (this.own) localStorage.setItem(SESSION, this.key.slice(OWN.length));
    $("session-name").textContent = sessionName(this.key).name;
    $("session-where").textContent = this.own ? "" : this.key;
    this.talk = new Conversation($("messages"), $("to-end"), $("welcome"));
    this.listen();
    for (const message of this.own ? unsent(this.key) : []) this.showUnsent(message);
    this.showComposer();
    showTodos([]);
    if (this.own) beginWith($("text"));
    await this.refresh();
    if (!this.closed) this.talk.goToEnd();
  }

  close() {
    for (const asking of this.asking) asking.abort();
    this.closed = true;
  }

  listen() {
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.stops()) return void post(`${sessionPath(this.key)}/interrupt`).catch(this.app.report);
      const text = $("text").value.trim();
      if (!text || !this.own) return;
      $("text").value = "";
      this.say(text);
    });
    $("text").addEventListener("input", () => this.showComposer());
    $("text").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        if (!this.stops()) $("composer").requestSubmit();
      }
    });
    for (const suggestion of document.querySelectorAll(".try"))
      suggestion.addEventListener("click", () => this.own && !this.working() && this.say(suggestion.textContent));
    for (const [id, word] of [["approve", "/approve"], ["deny", "/deny"]])
      $(id).addEventListener("click", () => this.question && this.say(`${word} ${this.question.id}`));
    $("new-session").addEventListener("click", () => this.app.go(`/chat/${encodeURIComponent(`${OWN}web-${newId(3)}`)}`));
    $("todo-toggle").addEventListener("click", () => {
      const open = $("todo-panel").classList.toggle("open");
      $("todo-toggle").setAttribute("aria-expanded", String(open));
    });
  }

  // ---- saying something

  async say(text, id = newId(16)) {
    this.talk.forgetOver();
    const aside = isCommand(text);
    const asked = this.talk.add("user", text, { aside });
    const answer = this.talk.add("assistant", "", { aside });
    this.talk.goToEnd();
    await this.send({ id, text }, asked, answer);
  }

  // Sends a message and shows its answer as it comes; what could not be sent is kept until the gateway is back.
  async send(message, asked, answer) {
    const asking = new AbortController();
    this.asking.add(asking);
    answer.node.classList.add("waiting");
    const shown = new Typewriter(answer.node, () => this.talk.grown());
    answer.typewriter = shown;
    this.showComposer();
    keepUnsent(this.key, message);
    try {
      const taken = () => {
        asked.taken = true; // it is kept by the gateway now, whatever becomes of this page
        forgetUnsent(this.key, message.id);
      };
      for await (const { data } of events("/v1/chat/completions", this.request(message, asking.signal), taken)) {
        if (data === "[DONE]") break;
        shown.add(textOf(JSON.parse(data)));
      }
      await shown.running;
      answer.text = shown.shown;
      answer.finished = asked.finished = true;
      if (!answer.node.textContent) answer.node.textContent = "(no text)";
      addCopyButtons(answer.node, answer.text);
    } catch (problem) {
      await shown.running;
      if (problem.name !== "AbortError") this.failed(message, asked, answer, problem);
    } finally {
      answer.node.classList.remove("waiting");
      this.asking.delete(asking);
      if (!this.closed) this.showComposer();
      this.app.refreshSoon();
    }
  }

  request(message, signal) {
    return {
      method: "POST",
      signal,
      headers: {
        "Content-Type": "application/json",
        "X-Gatehouse-Session": headerOf(this.key),
        "Idempotency-Key": message.id,
      },
      body: JSON.stringify({ model: "gatehouse", stream: true, messages: [{ role: "user", content: message.text }] }),
    };
  }

  failed(message, asked, answer, problem) {
    const away = problem instanceof Away || problem instanceof TypeError || problem.status === 503;
    if (away && asked.taken) {
      this.talk.drop(answer); // its turn goes on, and is shown when the gateway can be reached
      asked.answer = null;
      return;
    }
    if (away) {
      this.talk.drop(answer);
      asked.answer = null;
      asked.unsent = message;
      asked.node.classList.add("unsent");
      note(asked, "The gateway is away. This is sent when it is back.");
      return;
    }
    forgetUnsent(this.key, message.id);
    answer.failed = true;
    answer.node.classList.add("failed");
    answer.node.append(element("p", "", problem.message));
    if (problem instanceof Refused && problem.status === 401) this.app.report(problem);
  }

  showUnsent(message) {
    const asked = this.talk.add("user", message.text, { aside: isCommand(message.text) });
    asked.unsent = message;
    asked.node.classList.add("unsent");
    note(asked, "This was not sent yet.");
  }

  // The gateway is back: what waited is sent, in order, each under its own key.
  async resend() {
    if (this.resending) return;
    this.resending = true;
    try {
      for (const asked of this.talk.pending.filter((one) => one.unsent)) {
        const message = asked.unsent;
        asked.unsent = null;
        asked.node.classList.remove("unsent");
        note(asked, "");
        const answer = this.talk.add("assistant", "", { aside: asked.aside });
        await this.send(message, asked, answer);
        if (asked.unsent || this.closed) break;
      }
    } finally {
      this.resending = false;
    }
  }

  working() {
    return this.asking.size > 0 || this.turn !== null;
  }

  // While a turn runs the button ends it, unless there is something to say.
  stops() {
    return this.working() && !$("text").value.trim();
  }

  showComposer() {
    $("send").textContent = this.stops() ? "Stop" : "Send";
    $("send").classList.toggle("stop", this.stops());
    $("text").disabled = !this.own;
    $("send").disabled = !this.own && !this.stops();
    $("composer-note").hidden = this.own;
    $("composer-note").textContent = "This conversation is held on its own platform; here it can be read.";
    $("composer").hidden = false;
  }

  turn = null;
  question = null;

  // ---- what the server holds

  async refresh() {
    const over = this.talk.pending.filter((one) => one.finished && !one.aside);
    const rows = await askJson(`/v1/sessions?limit=${RECENT}`);
    if (this.closed) return;
    this.showRecent(rows.sessions.slice(0, RECENT));
    if (!(await this.isKnown(rows.sessions))) return void (this.closed || this.showEmpty());
    const session = await askJson(`${sessionPath(this.key)}?last=${HISTORY}&times=1`);
    if (this.closed) return;
    this.showSession(session);
    // what was answered before this was asked, and is in no history now, was taken back
    for (const entry of over) if (this.talk.pending.includes(entry)) this.talk.drop(entry);
  }

  // A session begins with its first message; until then the server has none to show.
  async isKnown(sessions) {
    const listed = (rows) => rows.some((session) => session.key === this.key);
    if (listed(sessions)) return true;
    const found = await askJson(`/v1/sessions?q=${encodeURIComponent(this.key)}&limit=10`);
    return listed(found.sessions);
  }

  showEmpty() {
    this.turn = null;
    this.showQuestion(null);
    $("session-way").hidden = true;
    this.talk.show([]);
    showTodos([]);
    $("session-used").textContent = "";
    $("session-profile").textContent = "";
    $("session-state").textContent = this.asking.size ? "working" : "";
    this.showComposer();
  }

  showSession(session) {
    showTodos(session.todos);
    this.turn = session.turn ?? null;
    $("session-state").textContent = session.turn ? "working" : session.waiting ? "waiting" : "";
    $("session-way").hidden = !this.turn;
    if (this.turn) $("session-way").href = `/messages/${encodeURIComponent(this.turn.message_id)}`;
    $("session-used").textContent = tokens(session.usage);
    $("session-profile").textContent = session.profile ? `profile ${session.profile}` : "";
    if (session.title) $("session-name").textContent = session.title;
    this.talk.show(session.messages, session.times);
    if (!this.turn && this.streamed) {
      if (this.talk.pending.includes(this.streamed)) this.talk.drop(this.streamed); // its words are in the history now
      this.streamed = null;
    }
    this.showPending(session.pending ?? []);
    this.showQuestion(session.question ?? null);
    this.showComposer();
  }

  // Messages of others, or of this page before it was loaded anew, that are not answered yet.
  showPending(pending) {
    for (const message of pending) {
      const known = this.talk.pending.some((one) => one.role === "user" && one.text.trim() === message.text.trim());
      if (!known) this.talk.add("user", message.text, { at: message.accepted_at });
    }
    if (this.turn && !this.asking.size) this.answerInProgress();
  }

  answerInProgress() {
    if (this.streamed && this.talk.pending.includes(this.streamed)) return this.streamed;
    this.streamed = this.talk.add("assistant", "");
    this.streamed.node.classList.add("waiting");
    this.streamed.typewriter = new Typewriter(this.streamed.node, () => this.talk.grown());
    return this.streamed;
  }

  // What somebody has to allow before the turn goes on; where its answer streams here, that says it.
  showQuestion(question) {
    this.question = question;
    $("question").hidden = !question;
    $("question-text").textContent = question && !this.asking.size ? question.text : "";
    $("approve").hidden = $("deny").hidden = !this.own;
  }

  showRecent(sessions) {
    reconcile($("sessions"), sessions, (session) => session.key, (session) => this.recentRow(session));
    for (const row of $("sessions").querySelectorAll("a"))
      row.setAttribute("aria-current", String(row.dataset.session === this.key));
  }

  recentRow(session) {
    const { platform, name } = sessionName(session.key);
    const row = element("li");
    const door = element("a");
    door.href = `/chat/${encodeURIComponent(session.key)}`;
    door.dataset.session = session.key;
    door.title = session.key;
    door.append(element("span", "name", session.title || name));
    if (session.running) door.append(element("span", "badge running", "running"));
    else if (session.waiting) door.append(element("span", "badge", `${session.waiting} waiting`));
    else door.append(element("span", "badge", ago(session.updated_at)));
    door.append(element("span", "where", platform));
    row.append(door);
    return row;
  }

  // ---- what happens

  happened(name, said) {
    if (name === "hello") this.resend().catch(this.app.report);
    if (said.session !== this.key) return;
    if (name === "todo") showTodos(said.todos);
    else if (name === "tool") $("session-state").textContent = `using ${said.name}`;
    else if (name === "waiting") $("session-state").textContent = `waiting for ${said.model}`;
    else if (name === "said") $("session-state").textContent = said.text;
    else if (name === "question") this.showQuestion(said);
    else if (name === "text" && !this.asking.size) this.streamText(said);
    else if (name === "turn") this.turnChanged(said);
  }

  turnChanged(said) {
    if (said.state === "running" || said.state === "started") return;
    for (const entry of this.talk.pending) if (entry.failed) entry.failed = said.state !== "replied";
  }

  // A turn that was not asked for here: ``whole`` replaces what came before, when its step begins anew.
  streamText(said) {
    const answer = this.answerInProgress();
    if (said.whole || answer.step > said.step) {
      answer.node.replaceChildren();
      answer.typewriter = new Typewriter(answer.node, () => this.talk.grown());
    } else if (answer.step !== undefined && answer.step !== said.step && answer.typewriter.text) {
      answer.typewriter.add("\n\n");
    }
    answer.step = said.step;
    answer.typewriter.add(said.text);
  }
}

function textOf(chunk) {
  if (chunk.error) throw new Error(chunk.error.message);
  return chunk.choices?.[0]?.delta?.content ?? "";
}
