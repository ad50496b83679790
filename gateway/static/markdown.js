// Markdown as models write it, made into elements. Text reaches the page as text nodes alone: nothing in it is markup.

import { element } from "./dom.js";

// No two parts that follow each other may match the same letters, or a hostile line makes them try again and again.
const FENCE = /^\s{0,3}(`{3,}|~{3,})\s*(?:[\w+#.-]+\s*)?$/;
const HEADING = /^(#{1,6})\s+(.*)$/s;
const ITEM = /^(\s*)([-*+•]|\d{1,9}[.)])\s+(.*)$/s;
const QUOTE = /^\s{0,3}>\s?(.*)$/;
const RULE = /^\s{0,3}([-*_])(\s*\1){2,}\s*$/;
const ROW = /^\s*\|.*\|\s*$/;
const DIVIDER = /^\s*\|(\s*:?-+:?\s*\|)+\s*$/;
const TASK = /^\[([ xX])\]\s+(.*)$/s;

const INLINE = new RegExp(
  [
    "(?<ticks>`+)(?<code>[^`]|[^`].*?[^`])\\k<ticks>(?!`)",
    "\\*\\*(?<strong>\\S(?:.*?\\S)?)\\*\\*",
    "~~(?<gone>\\S(?:.*?\\S)?)~~",
    "\\*(?<em>[^*\\s](?:[^*]*[^*\\s])?)\\*",
    "(?<![\\w])_(?<low>[^_\\s](?:[^_]*[^_\\s])?)_(?!\\w)",
    "\\[(?<label>[^\\]\\[]+)\\]\\((?<target>[^()\\s]+(?:\\([^()\\s]*\\)[^()\\s]*)*)\\)",
    "(?<bare>https?://[^\\s<>\"'`|]+[^\\s<>\"'`|.,;:!?)\\]}*_])",
  ].join("|"),
  "s",
);
const TAGS = { strong: "strong", gone: "del", em: "em", low: "em" };

// What is nested deeper, and a paragraph that is longer, is shown as it was written.
const DEEPEST = 16;
const LONGEST = 20_000;

export function markdown(text, depth = 0) {
  const made = document.createDocumentFragment();
  const lines = text.replaceAll("\r\n", "\n").split("\n");
  if (depth > DEEPEST) made.append(element("p", "", text));
  else for (let at = 0; at < lines.length; ) at = block(made, lines, at, depth);
  return made;
}

// Appends the block that begins at this line; returns the line after it.
function block(into, lines, at, depth) {
  const line = lines[at];
  if (!line.trim()) return at + 1;
  if (FENCE.test(line)) return fence(into, lines, at);
  if (HEADING.test(line)) return heading(into, line, at);
  if (RULE.test(line)) return into.append(element("hr")), at + 1;
  if (QUOTE.test(line)) return quote(into, lines, at, depth);
  if (ITEM.test(line)) return list(into, lines, at, depth);
  if (ROW.test(line) && DIVIDER.test(lines[at + 1] ?? "")) return table(into, lines, at);
  return paragraph(into, lines, at);
}

// A fence that is still open holds all that has come so far.
function fence(into, lines, at) {
  const mark = FENCE.exec(lines[at])[1];
  let end = at + 1;
  while (end < lines.length && !(lines[end].trim().startsWith(mark) && !lines[end].trim().slice(mark.length).trim())) end++;
  const shown = element("pre");
  shown.append(element("code", "", lines.slice(at + 1, end).join("\n")));
  into.append(shown);
  return end + 1;
}

function heading(into, text, at) {
  const [, marks, words] = HEADING.exec(text);
  const shown = element("p", `heading level-${Math.min(marks.length, 3)}`);
  inline(shown, withoutMarks(words.trimEnd()));
  into.append(shown);
  return at + 1;
}

// A heading may end with the marks it begins with.
function withoutMarks(words) {
  let end = words.length;
  while (words[end - 1] === "#") end--;
  return words.slice(0, end).trimEnd();
}

function quote(into, lines, at, depth) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end++;
  const shown = element("blockquote");
  shown.append(markdown(lines.slice(at, end).map((one) => QUOTE.exec(one)[1]).join("\n"), depth + 1));
  into.append(shown);
  return end;
}

// What is indented below an item belongs to it.
function list(into, lines, at, depth) {
  const [, indent, first] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(first);
  const shown = element(ordered ? "ol" : "ul");
  if (ordered && parseInt(first, 10) !== 1) shown.start = parseInt(first, 10);
  while (at < lines.length) {
    const found = ITEM.exec(lines[at]);
    if (!found || found[1].length > indent.length + 1 || /\d/.test(found[2]) !== ordered) break;
    let end = at + 1;
    while (end < lines.length && belongs(lines, end, found[1].length)) end++;
    shown.append(item(found[3], lines.slice(at + 1, end), depth + 1));
    at = end;
    while (at < lines.length && !lines[at].trim() && ITEM.test(lines[at + 1] ?? "")) at++;
  }
  into.append(shown);
  return at;
}

function belongs(lines, at, indent) {
  const deep = (one) => one.trim() && one.search(/\S/) > indent + 1;
  return deep(lines[at]) || (!lines[at].trim() && deep(lines[at + 1] ?? ""));
}

function item(words, below, depth) {
  const task = TASK.exec(words);
  const made = element("li", task ? `task ${task[1] === " " ? "open" : "done"}` : "");
  const said = element("span");
  inline(said, task ? task[2] : words);
  made.append(said);
  const least = Math.min(...below.filter((one) => one.trim()).map((one) => one.search(/\S/)));
  if (below.length) made.append(markdown(below.map((one) => one.slice(least)).join("\n"), depth));
  return made;
}

function table(into, lines, at) {
  const shown = element("table");
  const cells = (one) => one.trim().slice(1, -1).split("|").map((cell) => cell.trim());
  const row = (one, tag) => {
    const made = element("tr");
    for (const cell of cells(one)) inline(made.appendChild(element(tag)), cell);
    return made;
  };
  shown.append(row(lines[at], "th"));
  for (at += 2; at < lines.length && ROW.test(lines[at]); at++) shown.append(row(lines[at], "td"));
  const frame = element("div", "wide-table");
  frame.append(shown);
  into.append(frame);
  return at;
}

function paragraph(into, lines, at) {
  const begins = (one) => !one.trim() || [FENCE, HEADING, RULE, QUOTE, ITEM].some((form) => form.test(one));
  let end = at + 1;
  while (end < lines.length && !begins(lines[end])) end++;
  const shown = element("p");
  inline(shown, lines.slice(at, end).join("\n"));
  into.append(shown);
  return end;
}

function inline(into, text) {
  if (text.length > LONGEST) return into.append(text);
  for (let left = text; left; ) {
    const found = INLINE.exec(left);
    if (!found) return into.append(left);
    into.append(left.slice(0, found.index), span(found.groups));
    left = left.slice(found.index + found[0].length);
  }
}

function span(groups) {
  if (groups.code !== undefined) return element("code", "", groups.code);
  if (groups.bare !== undefined) return link(groups.bare, groups.bare);
  if (groups.label !== undefined) return link(groups.target, groups.label);
  const [name, words] = Object.entries(groups).find(([key, value]) => TAGS[key] && value !== undefined);
  const made = element(TAGS[name]);
  inline(made, words);
  return made;
}

// A link of another kind than these is shown as it was written.
function link(target, label) {
  if (!/^(https?:\/\/|mailto:)/i.test(target)) return document.createTextNode(`[${label}](${target})`);
  const made = element("a", "", label);
  made.href = target;
  made.target = "_blank";
  made.rel = "noopener noreferrer";
  return made;
}
