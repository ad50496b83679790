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

export function link(href, text, className) {
  const made = element("a", className, text);
  made.href = href;
  return made;
}

// Makes the children of a list fit its items: a child whose key and text stay the same is not touched, so that
// focus, selection and scroll stay where their reader left them.
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
      if (child) {
        const focused = child.contains(document.activeElement) ? document.activeElement.dataset.act : null;
        if (child === at) at = made;
        child.replaceWith(made);
        if (focused) made.querySelector(`[data-act="${focused}"]`)?.focus();
      }
      child = made;
    }
    known.delete(key);
    if (child === at) at = at.nextElementSibling;
    else list.insertBefore(child, at);
  }
  for (const gone of known.values()) gone.remove();
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
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
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

export const megabytes = (bytes) => (bytes ? `${Math.round(bytes / 1048576)} MB` : "–");

// "telegram:123:42:7" → its platform and the rest a person reads.
export function sessionName(key) {
  const [platform, account, ...rest] = key.split(":");
  return { platform, name: rest.join(":") || account || key };
}

export function tokens({ input_tokens: read = 0, output_tokens: written = 0, cost } = {}) {
  const money = cost ? `, $${cost.toFixed(cost < 0.1 ? 4 : 2)}` : "";
  return read + written ? `${(read + written).toLocaleString()} tokens${money}` : "";
}
