// The messages of one conversation on the page. It never moves under its reader: what stays the same is not touched,
// new messages are added at the end, and the view follows only a reader who is at the end.

import { clock, day, element, icon, shortClock } from "./dom.js";
import { markdown } from "./markdown.js";

//: pixels from the end within which a reader counts as being there
const AT_END = 48;

export class Conversation {
  constructor(box, toEnd, welcome) {
    this.box = box;
    this.toEnd = toEnd;
    this.welcome = welcome;
    this.settled = []; // what the server's history holds: {role, text, tools, node}
    this.pending = []; // what is on its way: {role, text, node, answer}
    this.follows = true;
    this.expected = null; // the answer that belongs to the user's message taken in last
    box.addEventListener("scroll", () => {
      this.follows = box.scrollHeight - box.scrollTop - box.clientHeight < AT_END;
      if (this.follows) toEnd.hidden = true;
    });
    toEnd.addEventListener("click", () => this.goToEnd());
  }

  goToEnd() {
    this.follows = true;
    this.toEnd.hidden = true;
    this.box.scrollTop = this.box.scrollHeight;
  }

  // Called after something was added below.
  grown() {
    if (this.follows) this.box.scrollTop = this.box.scrollHeight;
    else this.toEnd.hidden = false;
  }

  // Adds a message that is in no history yet; an answer belongs to the last words that have none.
  add(role, text, { aside = false, at = Date.now() / 1000 } = {}) {
    const entry = { role, text, aside, node: bubble(role, text, at) };
    if (role === "assistant") {
      const asked = this.pending.findLast((one) => one.role === "user" && !one.answer && one.aside === aside);
      if (asked) asked.answer = entry;
    }
    this.pending.push(entry);
    this.welcome.hidden = true;
    this.box.append(entry.node);
    this.grown();
    return entry;
  }

  // Drops what is in no history and over: failed answers, and commands with their answers.
  forgetOver() {
    for (const entry of this.pending.filter((one) => one.failed || one.aside)) this.drop(entry);
  }

  drop(entry) {
    entry.node.remove();
    this.pending = this.pending.filter((one) => one !== entry);
  }

  // Shows the server's history, keeping every node whose message is still there.
  show(messages, times = []) {
    const wanted = readHistory(messages, times);
    let same = 0;
    while (same < wanted.length && same < this.settled.length && alike(wanted[same], this.settled[same])) same++;
    for (const gone of this.settled.slice(same)) {
      gone.node.remove();
      gone.toolNode?.remove();
      gone.dayNode?.remove();
    }
    this.settled = this.settled.slice(0, same);
    const grew = wanted.length > same;
    for (const entry of wanted.slice(same)) this.settle(entry);
    this.dropTold();
    this.welcome.hidden = this.settled.length + this.pending.length > 0;
    if (grew) this.grown();
  }

  // What an /approve or /deny was answered with is the answer of the turn that it let go on: it is shown once.
  dropTold() {
    const last = this.settled.findLast((one) => one.role === "assistant")?.text.trim();
    const told = (one) => one.aside && one.finished && one.role === "assistant" && one.text.trim() === last;
    for (const entry of this.pending.filter(told)) this.drop(entry);
  }

  // Takes a message of the history in: the node that showed it while it was on its way stays where it is.
  settle(entry) {
    const found = this.onItsWay(entry);
    const before = found?.node ?? this.pending[0]?.node ?? null;
    const earlier = this.settled.findLast((one) => one.at)?.at;
    if (entry.at && day(entry.at) !== (earlier ? day(earlier) : "Today")) {
      entry.dayNode = element("div", "day", day(entry.at));
      this.box.insertBefore(entry.dayNode, before);
    }
    if (entry.tools.length) {
      entry.toolNode = element("div", "tool", [...new Set(entry.tools)].join(", "));
      this.box.insertBefore(entry.toolNode, before);
    }
    if (found) {
      this.pending = this.pending.filter((one) => one !== found);
      entry.node = found.node;
      stamp(entry.node, entry.at);
      if (found.typewriter?.text.trim() !== entry.text.trim() && (found.text !== entry.text || found.failed)) {
        found.typewriter?.stop();
        fill(entry.node, entry.role, entry.text);
      }
      entry.node.classList.remove("waiting", "failed", "unsent");
      entry.node.querySelector(".note")?.remove();
    } else {
      entry.node = bubble(entry.role, entry.text, entry.at);
      this.box.insertBefore(entry.node, before);
    }
    this.settled.push(entry);
  }

  // Returns what shows a message of the history already: a user's same words, and the answer that belongs to them.
  onItsWay(entry) {
    if (entry.role === "user") {
      const asked = this.pending.find((one) => one.role === "user" && !one.aside && one.text.trim() === entry.text.trim());
      this.expected = asked?.answer ?? null;
      return asked;
    }
    const answer = this.expected;
    this.expected = null;
    return answer && this.pending.includes(answer) ? answer : undefined;
  }
}

// Says something about a message below its words.
export function note(entry, text) {
  let shown = entry.node.querySelector(".note");
  if (!text) return void shown?.remove();
  if (!shown) entry.node.append((shown = element("p", "note")));
  shown.textContent = text;
}

const alike = (one, other) =>
  one.role === other.role && one.text === other.text && one.tools.join() === other.tools.join();

function readHistory(messages, times) {
  const found = [];
  let tools = [];
  for (const [place, message] of messages.entries()) {
    const text = words(message.content);
    if (message.role === "user" || (message.role === "assistant" && text)) {
      found.push({ role: message.role, text, tools, at: times[place] });
      tools = [];
    }
    for (const call of message.tool_calls ?? []) tools.push(call.function.name);
  }
  return found;
}

// Content is text, or a list of parts of which an image is named.
function words(content) {
  if (!Array.isArray(content)) return content ?? "";
  return content.map((part) => part.text ?? `[${String(part.type ?? "file").replace("_url", "")}]`).join("\n");
}

function bubble(role, text, at) {
  const made = element("div", `message ${role}`);
  stamp(made, at);
  fill(made, role, text);
  return made;
}

// Shows when it was said, below its words.
function stamp(node, at) {
  if (!at) return;
  node.title = `${day(at)}, ${clock(at)}`;
  node.dataset.time = shortClock(at);
}

function fill(node, role, text) {
  if (role === "user") node.textContent = text;
  else node.replaceChildren(markdown(text));
  addCopyButtons(node, role === "user" ? "" : text);
}

// An answer, and each block of code in it, gets a button that copies it.
export function addCopyButtons(node, text = "") {
  node.querySelector(".copy-message")?.remove();
  if (text) node.append(copyMessage(text));
  for (const code of node.querySelectorAll("pre > code")) {
    if (code.parentNode.querySelector(".copy")) continue;
    const copy = element("button", "copy", "Copy");
    copy.type = "button";
    copy.setAttribute("aria-label", "Copy this code");
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "Copied";
      setTimeout(() => (copy.textContent = "Copy"), 1500);
    });
    code.parentNode.append(copy);
  }
}

function copyMessage(text) {
  const copy = element("button", "copy-message");
  copy.type = "button";
  copy.append(icon("copy"));
  copy.setAttribute("aria-label", "Copy this message");
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    copy.classList.add("copied");
    setTimeout(() => copy.classList.remove("copied"), 1500);
  });
  return copy;
}
