// OpenAI's Agents SDK for Node: tools, streamed too, structured output, a second question; over both APIs.
import assert from "node:assert/strict";
import { Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, run, setTracingDisabled, tool } from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";

setTracingDisabled(true);
const client = new OpenAI({ baseURL: `${process.env.GATEHOUSE_URL}/v1`, apiKey: "none" });
const ROLL = '[[tool roll {"sides": 6}]] [[then]] [[say six it is]]';
const roll = tool({
  name: "roll",
  description: "Roll a die.",
  parameters: z.object({ sides: z.number() }),
  execute: async ({ sides }) => String(sides),
});

for (const Model of [OpenAIChatCompletionsModel, OpenAIResponsesModel]) {
  const model = new Model(client, "gatehouse");
  const agent = new Agent({ name: "player", instructions: "Be brief.", model, tools: [roll] });
  const streamed = await run(agent, ROLL, { stream: true });
  for await (const _ of streamed);
  await streamed.completed;
  assert.equal(streamed.finalOutput, "six it is");
  const again = streamed.history.concat({ role: "user", content: "and again" });
  assert.equal((await run(agent, again)).finalOutput, "echo: and again");
  const outputType = z.object({ name: z.string(), age: z.number() });
  const structured = await run(new Agent({ name: "clerk", model, outputType }), '[[say {"name": "Ann", "age": 4}]]');
  assert.deepEqual(structured.finalOutput, { name: "Ann", age: 4 });
}
