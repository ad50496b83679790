// Asking the gateway: JSON answers, and server-sent events read through fetch, because EventSource tells no status.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Raised when the gateway cannot be reached at all: what was asked did not arrive, or its answer was lost.
export class Away extends Error {}

// Shows a key once; from then on the browser sends a cookie that no script can read.
export const signIn = (key) => askJson("/v1/login", { method: "POST", body: JSON.stringify({ key }) });

// A key of a message or a session as it stands in an address.
export const sessionPath = (key) => `/v1/sessions/${encodeURIComponent(key)}`;

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Away("the gateway cannot be reached");
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => null);
  throw new Refused(answer.status, body?.error?.message ?? `the gateway answered ${answer.status}`);
}

export async function askJson(path, options) {
  return (await ask(path, options)).json();
}

export const post = (path, body) =>
  askJson(path, {
    method: "POST",
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body && JSON.stringify(body),
  });

// Yields {name, data} for every event until the stream ends; ``opened`` is called when the gateway has taken the request.
export async function* events(path, options, opened = () => {}) {
  const answer = await ask(path, options);
  opened();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (waiting + value).split("\n\n");
      waiting = blocks.pop();
      for (const block of blocks) {
        const event = readEvent(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function readEvent(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  return data.length ? { name, data: data.join("\n") } : null;
}
