// Continue's own adapter: text, streams, tools, models.
import assert from "node:assert/strict";
import { constructLlmApi } from "@continuedev/openai-adapters";

const api = constructLlmApi({ provider: "openai", apiKey: "none", apiBase: `${process.env.GATEHOUSE_URL}/v1/` });
const signal = new AbortController().signal;
const asked = (content) => ({ model: "gatehouse", messages: [{ role: "user", content }] });
const parameters = { type: "object", properties: { sides: { type: "integer" } } };
const tools = [{ type: "function", function: { name: "roll", description: "Roll a die.", parameters } }];

const whole = await api.chatCompletionNonStream({ ...asked("hello"), stream: false }, signal);
assert.equal(whole.choices[0].message.content, "echo: hello");

let text = "";
for await (const chunk of api.chatCompletionStream({ ...asked("hello there"), stream: true }, signal)) {
  text += chunk.choices[0]?.delta?.content ?? "";
}
assert.equal(text, "echo: hello there");

const calls = [];
for await (const chunk of api.chatCompletionStream({ ...asked('[[tool roll {"sides": 6}]]'), stream: true, tools }, signal)) {
  calls.push(...(chunk.choices[0]?.delta?.tool_calls ?? []));
}
assert.deepEqual(calls.map((call) => call.function), [{ name: "roll", arguments: '{"sides": 6}' }]);
assert.ok((await api.list()).some((model) => model.id === "gatehouse"));
