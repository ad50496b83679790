// openai from npm: plain, streamed, tools, responses, errors.
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.env.GATEHOUSE_URL}/v1`, apiKey: "none" });
const user = (content) => [{ role: "user", content }];
const tools = [{ type: "function", function: { name: "roll", parameters: { type: "object", properties: { sides: { type: "integer" } } } } }];

const answer = await client.chat.completions.create({ model: "gatehouse", messages: user("hello") });
assert.equal(answer.choices[0].message.content, "echo: hello");
assert.ok(answer._request_id.startsWith("req_"));

let text = "";
for await (const chunk of await client.chat.completions.create({ model: "gatehouse", messages: user("hello"), stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? "";
}
assert.equal(text, "echo: hello");

const messages = user('[[tool roll {"sides": 6}]] [[then]] [[say six it is]]');
const asked = await client.chat.completions.create({ model: "gatehouse", messages, tools });
const [call] = asked.choices[0].message.tool_calls;
assert.equal(asked.choices[0].finish_reason, "tool_calls");
messages.push(asked.choices[0].message, { role: "tool", tool_call_id: call.id, content: "6" });
const done = await client.chat.completions.create({ model: "gatehouse", messages, tools });
assert.equal(done.choices[0].message.content, "six it is");

const response = await client.responses.create({ model: "gatehouse", input: "hello" });
assert.equal(response.output_text, "echo: hello");
const stream = client.responses.stream({ model: "gatehouse", input: "hello", previous_response_id: response.id });
assert.equal((await stream.finalResponse()).output_text, "echo: hello");

await assert.rejects(client.models.retrieve("gpt-9"), OpenAI.NotFoundError);
