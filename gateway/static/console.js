// The console: a chat whose history and todo list the server keeps, beside what the gateway does right now.

import { forgetTodos, showDead, showPairings, showTodos, showWorkers } from "./board.js";
import { $, element } from "./dom.js";
import { markdown } from "./markdown.js";
import { Reveal } from "./reveal.js";
import { askJson, events, Refused, signIn } from "./stream.js";

const SESSION = "gatehouse-session";
const OWN = "api:default:";
const RECONNECT_MS = 1500;
const GATHER_MS = 150;

const keyed = (key) => `/v1/sessions/${encodeURIComponent(key)}`;

const COMMANDS = new Set(["/new", "/stop", "/undo", "/todo", "/status", "/trace", "/help", "/start"]);

const page = { current: "", sessions: [], asking: new Set(), asides: [], failed: false };

function newName() {
  return `web-${Array.from(crypto.getRandomValues(new Uint8Array(3)), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

// ---- chat

function bubble(role, text) {
  $("welcome").hidden = true;
  const made = element("div", `message ${role}`, role === "user" ? text : undefined);
  if (role === "assistant") made.append(markdown(text));
  $("messages").append(made);
  scrollDown();
  return made;
}

function scrollDown() {
  $("messages").scrollTop = $("messages").scrollHeight;
}

function showHistory(messages) {
  for (const old of $("messages").querySelectorAll(".message, .tool")) old.remove();
  $("welcome").hidden = messages.length > 0;
  let used = [];
  for (const message of messages) {
    if (message.role === "user" || (message.role === "assistant" && message.content)) {
      if (used.length) $("messages").append(element("div", "tool", [...new Set(used)].join(", ")));
      used = [];
      bubble(message.role, message.content);
    }
    for (const call of message.tool_calls ?? []) used.push(call.function.name);
  }
  for (const [role, text] of page.asides) bubble(role, text);
  scrollDown();
}

// Chat commands and their answers are in no history: they stay on the page until something else is said.
function isCommand(text) {
  return COMMANDS.has(text.split(/\s/)[0].toLowerCase());
}

async function say(text) {
  const session = page.current;
  const asking = new AbortController();
  page.failed = false;
  if (!isCommand(text)) page.asides = [];
  bubble("user", text);
  const reply = bubble("assistant", "");
  reply.classList.add("waiting");
  const shown = new Reveal(reply, scrollDown);
  page.asking.add(asking);
  showSending();
  try {
    const body = { model: "gatehouse", stream: true, messages: [{ role: "user", content: text }] };
    const options = {
      method: "POST",
      signal: asking.signal,
      headers: { "Content-Type": "application/json", "X-Gatehouse-Session": encodeSession(session) },
      body: JSON.stringify(body),
    };
    for await (const { data } of events("/v1/chat/completions", options)) {
      if (data === "[DONE]") break;
      shown.add(textOf(JSON.parse(data)));
    }
    await shown.running;
    if (!reply.textContent) reply.textContent = "(no text)";
    if (isCommand(text) && page.current === session) page.asides.push(["user", text], ["assistant", shown.shown]);
  } catch (problem) {
    await shown.running;
    if (problem.name !== "AbortError") fail(reply, problem);
  } finally {
    reply.classList.remove("waiting");
    page.asking.delete(asking);
    showSending();
    refreshSoon();
  }
}

// Header values are bytes: names are sent as UTF-8.
function encodeSession(key) {
  return String.fromCharCode(...new TextEncoder().encode(key.slice(OWN.length)));
}

function textOf(chunk) {
  if (chunk.error) throw new Error(chunk.error.message);
  return chunk.choices?.[0]?.delta?.content ?? "";
}

// What failed is in no history: it stays on the page until something else is said.
function fail(reply, problem) {
  page.failed = true;
  reply.classList.add("failed");
  reply.append(element("p", "", problem.message));
  if (problem instanceof Refused && problem.status === 401) askForKey("That key does not open this gateway.");
}

function showSending() {
  const own = page.current.startsWith(OWN);
  $("send").textContent = stops() ? "Stop" : "Send";
  $("send").classList.toggle("stop", stops());
  $("text").disabled = !own;
  $("send").disabled = !own;
  $("text").placeholder = own ? "Message, or /help" : "This conversation is held on its own platform";
}

// While a turn runs the button ends it, unless there is something to say.
function stops() {
  return page.asking.size > 0 && !$("text").value.trim();
}

// ---- sessions

async function openSession(key) {
  for (const asking of page.asking) asking.abort();
  page.asking.clear();
  page.asides = [];
  page.failed = false;
  page.current = key;
  if (key.startsWith(OWN)) localStorage.setItem(SESSION, key.slice(OWN.length));
  $("session-name").textContent = key.startsWith(OWN) ? key.slice(OWN.length) : key;
  showSending();
  showHistory([]);
  $("session-used").textContent = "";
  forgetTodos();
  await loadSession();
  showSessions();
  $("text").focus();
}

async function loadSession() {
  const key = page.current;
  if (!page.sessions.some((session) => session.key === key)) return;
  const session = await askJson(`${keyed(key)}?last=200`);
  if (page.current !== key) return;
  showTodos(session.todos);
  $("session-state").textContent = session.turn ? "working" : "";
  $("session-used").textContent = usedText(session.usage);
  if (!page.asking.size && !page.failed) showHistory(session.messages);
}

function usedText({ input_tokens: read, output_tokens: written, cost }) {
  const money = cost ? `, $${cost.toFixed(cost < 0.1 ? 4 : 2)}` : "";
  return read + written ? `${(read + written).toLocaleString()} tokens${money}` : "";
}

function showSessions() {
  const rows = page.sessions.map((session) => {
    const button = element("button");
    button.setAttribute("aria-current", String(session.key === page.current));
    const [platform, , ...rest] = session.key.split(":");
    button.append(element("span", "name", rest.join(":") || session.key));
    if (session.running) button.append(element("span", "badge running", "running"));
    else if (session.waiting) button.append(element("span", "badge", `${session.waiting} waiting`));
    else button.append(element("span", "badge", ago(session.updated_at)));
    button.append(element("span", "where", platform));
    button.title = session.key;
    button.addEventListener("click", () => openSession(session.key).catch(report));
    const row = element("li");
    row.append(button);
    return row;
  });
  $("sessions").replaceChildren(...rows);
}

function ago(unixSeconds) {
  const seconds = Math.max(0, Date.now() / 1000 - unixSeconds);
  if (seconds < 60) return "now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

// ---- live

let refreshing = 0;

// Many events in a moment are one refresh.
function refreshSoon() {
  refreshing ||= setTimeout(() => {
    refreshing = 0;
    refresh().catch(report);
  }, GATHER_MS);
}

function post(path) {
  askJson(path, { method: "POST" }).catch(report).finally(refreshSoon);
}

async function refresh() {
  const [sessions, dead, pairings] = await Promise.all([askJson("/v1/sessions"), askJson("/v1/dead"), askJson("/v1/pairings")]);
  page.sessions = sessions.sessions;
  showSessions();
  showDead(dead.dead, post);
  showPairings(pairings.pairings, post);
  await loadSession();
}

function happened({ name, data }) {
  const said = JSON.parse(data);
  if (name === "workers") showWorkers(said);
  else if (name === "todo") {
    if (said.session === page.current) showTodos(said.todos);
  } else if (name === "tool") {
    if (said.session === page.current) $("session-state").textContent = `using ${said.name}`;
  } else if (name !== "bye") {
    if (name === "turn" && said.session === page.current && said.state === "replied") page.failed = false;
    refreshSoon();
  }
}

function showLive(state, text) {
  $("live").className = `live ${state}`;
  $("live").textContent = text;
}

async function stayLive() {
  for (;;) {
    try {
      for await (const event of events("/v1/events")) {
        showLive("on", "live");
        happened(event);
      }
      showLive("off", "reconnecting");
    } catch (problem) {
      showLive("off", "offline");
      if (problem instanceof Refused && problem.status === 401) await askForKey("That key does not open this gateway.");
    }
    await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
  }
}

function report(problem) {
  if (problem instanceof Refused && problem.status === 401) askForKey("That key does not open this gateway.");
  else showLive("off", problem.message);
}

// ---- start

let unlocking = null;

function askForKey(problem = "") {
  unlocking ??= new Promise((resolve) => {
    $("key-problem").textContent = problem;
    $("key-form").addEventListener(
      "submit",
      () => {
        const key = $("key").value.trim();
        $("key").value = "";
        unlocking = null;
        resolve(signIn(key).catch((wrong) => askForKey(wrong.message)));
      },
      { once: true },
    );
    $("key-dialog").showModal();
  });
  return unlocking;
}

$("key-dialog").addEventListener("cancel", (event) => event.preventDefault());

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (stops()) {
    askJson(`${keyed(page.current)}/interrupt`, { method: "POST" }).catch(report);
    return;
  }
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  say(text);
});

$("text").addEventListener("input", showSending);

$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!stops()) $("composer").requestSubmit();
  }
});

for (const button of document.querySelectorAll(".try")) button.addEventListener("click", () => page.asking.size || say(button.textContent));

$("new-session").addEventListener("click", () => openSession(OWN + newName()).catch(report));

async function start() {
  const { key_needed: keyNeeded, signed_in: signedIn } = await askJson("/console.json");
  if (keyNeeded && !signedIn) await askForKey();
  stayLive();
  page.current = OWN + (localStorage.getItem(SESSION) ?? newName());
  await refresh().catch(report);
  await openSession(page.current);
}

start().catch(report);
