// The todo list beside the chat.

import { $, element, reconcile } from "./dom.js";

export function showTodos(todos) {
  const open = todos.filter((todo) => todo.status === "pending" || todo.status === "in_progress").length;
  $("todo-count").textContent = $("todo-short").textContent = todos.length ? `${open} open` : "";
  $("no-todos").hidden = todos.length > 0;
  reconcile($("todos"), todos, (todo) => todo.id, (todo) => {
    const row = element("li", `${todo.status} fresh`);
    row.append(element("span", "", todo.content));
    return row;
  });
}
