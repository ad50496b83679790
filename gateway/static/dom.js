// What the page's scripts share to build it. Everything that comes from outside reaches it as textContent.

export const $ = (id) => document.getElementById(id);

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Puts the content of <template id="NAME-template"> into the page.
export function showTemplate(name) {
  $("page").replaceChildren($(`${name}-template`).content.cloneNode(true));
}

// One of the pictures that the page holds.
export function icon(name) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  made.setAttribute("aria-hidden", "true");
  made.append(use);
  return made;
}

export function link(href, text, className) {
  const made = element("a", className, text);
  made.href = href;
  return made;
}

// Makes the children of a list fit its items: a child whose key and text stay the same is not touched, and of one that
// changed only the parts that did, so that focus, selection and scroll stay where their reader left them and a button
// is not exchanged under the pointer that presses it.
export function reconcile(list, items, keyOf, make) {
  const known = new Map([...list.children].map((child) => [child.dataset.key, child]));
  let at = list.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    const print = JSON.stringify(item);
    let child = known.get(key);
    if (!child || child.dataset.print !== print) {
      const made = make(item);
      made.dataset.key = key;
      made.dataset.print = print;
      if (child) patch(child, made);
      else child = made;
    }
    known.delete(key);
    if (child === at) at = at.nextElementSibling;
    else list.insertBefore(child, at);
  }
  for (const gone of known.values()) gone.remove();
}

// Makes an element what another one is, keeping the children that are the same.
function patch(child, made) {
  const focused = child.contains(document.activeElement) ? document.activeElement.dataset.act : null;
  for (const { name } of [...child.attributes]) if (!made.hasAttribute(name)) child.removeAttribute(name);
  for (const { name, value } of made.attributes) if (child.getAttribute(name) !== value) child.setAttribute(name, value);
  const old = [...child.childNodes];
  const fresh = [...made.childNodes];
  fresh.forEach((node, place) => {
    if (!old[place]) child.append(node);
    else if (!old[place].isEqualNode(node)) old[place].replaceWith(node);
  });
  for (const gone of old.slice(fresh.length)) gone.remove();
  if (focused && !child.contains(document.activeElement)) child.querySelector(`[data-act="${focused}"]`)?.focus();
}

export function button(label, act, className = "small") {
  const made = element("button", className, label);
  made.type = "button";
  made.dataset.act = label;
  made.addEventListener("click", async () => {
    made.disabled = true;
    try {
      await act();
    } finally {
      made.disabled = false;
    }
  });
  return made;
}

// Asks before something that cannot be taken back.
export function confirmed(text, act) {
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = act;
  const dialog = $("confirm-dialog");
  dialog.showModal();
  return new Promise((resolve) => {
    // not at its close event: that comes later, and may find the answer to the next question
    const asking = new AbortController();
    const answer = (yes) => {
      asking.abort();
      resolve(yes);
    };
    dialog.addEventListener("cancel", () => answer(false), { signal: asking.signal });
    dialog.addEventListener("submit", (event) => answer(event.submitter?.value === "yes"), { signal: asking.signal });
  });
}

export function ago(unixSeconds) {
  const seconds = Math.max(0, Date.now() / 1000 - unixSeconds);
  if (seconds < 60) return "now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export const clock = (unixSeconds) => new Date(unixSeconds * 1000).toLocaleTimeString([], { hour12: false });

// The day, for people: today, yesterday, or its date.
export function day(unixSeconds) {
  const then = new Date(unixSeconds * 1000);
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(then).setHours(0, 0, 0, 0)) / 86400000);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  return then.toLocaleDateString([], { day: "numeric", month: "long", year: "numeric" });
}

export const shortClock = (unixSeconds) => new Date(unixSeconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });

export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

export const megabytes = (bytes) => (bytes ? `${Math.round(bytes / 1048576)} MB` : "–");

// "telegram:123:42:7" → its platform and the rest a person reads.
export function sessionName(key) {
  const [platform, account, ...rest] = key.split(":");
  return { platform, name: rest.join(":") || account || key };
}

// Put the focus where a page that opens is begun with, before it waits for anything: later that would take the focus from
// where its reader has moved it. On a phone it would open the keyboard.
export function beginWith(field) {
  if (matchMedia("(pointer: fine)").matches) field.focus();
}

// A link that reads as people call a session; its platform, and its key for whoever points at it.
export function sessionLink(href, key, title) {
  const { platform, name } = sessionName(key);
  const door = link(href, title || name);
  door.title = key;
  return [door, element("span", "muted", platform)];
}

export function tokens({ input_tokens: read = 0, output_tokens: written = 0, cost } = {}) {
  const money = cost ? `, $${cost.toFixed(cost < 0.1 ? 4 : 2)}` : "";
  return read + written ? `${(read + written).toLocaleString()} tokens${money}` : "";
}
