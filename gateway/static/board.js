// The board beside the chat: the session's todo list, the workers, what went wrong, and who wants in.

import { $, element } from "./dom.js";

let knownTodos = new Set();

export function forgetTodos() {
  knownTodos = new Set();
  showTodos([]);
}

export function showTodos(todos) {
  const open = todos.filter((todo) => todo.status === "pending" || todo.status === "in_progress").length;
  $("todo-count").textContent = todos.length ? `${open} open` : "";
  $("no-todos").hidden = todos.length > 0;
  const rows = todos.map((todo) => {
    const row = element("li", todo.status);
    row.append(element("span", "", todo.content));
    if (!knownTodos.has(todo.id + todo.status)) row.classList.add("fresh");
    return row;
  });
  knownTodos = new Set(todos.map((todo) => todo.id + todo.status));
  $("todos").replaceChildren(...rows);
}

export function showWorkers(table) {
  const rows = table.workers.map((worker) => {
    const row = element("tr");
    const looked = worker.todo_cache.hits + worker.todo_cache.misses;
    const memory = worker.rss_bytes ? `${Math.round(worker.rss_bytes / 1048576)} MB` : "–";
    row.append(element("td", "", worker.n), element("td", `state ${worker.state}`, worker.state));
    for (const cell of [worker.turns, worker.sessions, memory, looked ? `${worker.todo_cache.hits}/${looked}` : "–"])
      row.append(element("td", "", cell));
    row.title = worker.pid ? `pid ${worker.pid}` : "";
    return row;
  });
  $("workers").replaceChildren(...rows);
  const spares = `${table.spares} warm spare${table.spares === 1 ? "" : "s"}`;
  $("workers-note").textContent = `${spares}, ${table.restarts} restart${table.restarts === 1 ? "" : "s"}`;
}

function acting(label, act) {
  const button = element("button", "small", label);
  button.addEventListener("click", () => {
    button.disabled = true;
    act();
  });
  return button;
}

export function showDead(letters, post) {
  $("dead-count").textContent = letters.length || "";
  $("no-dead").hidden = letters.length > 0;
  $("dead").replaceChildren(
    ...letters.map((letter) => {
      const row = element("li");
      row.append(element("span", "", letter.text.slice(0, 140)), acting("Retry", () => post(`/v1/dead/${letter.id}/retry`)));
      row.append(element("span", "muted", `${letter.session}, after ${letter.attempts} attempts: ${letter.error}`));
      return row;
    }),
  );
}

export function showPairings(pairings, post) {
  $("pairings-card").hidden = pairings.length === 0;
  $("pairings-count").textContent = pairings.length || "";
  $("pairings").replaceChildren(
    ...pairings.map(({ sender, code }) => {
      const row = element("li");
      const letIn = () => post(`/v1/pairings/${encodeURIComponent(code)}/approve`);
      row.append(element("span", "code", code), acting("Let in", letIn));
      row.append(element("span", "muted", sender));
      return row;
    }),
  );
}
