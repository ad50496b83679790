// Vercel's ai: text, streamed text, tools, objects; over chat completions and over responses.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const openai = createOpenAI({ baseURL: `${process.env.GATEHOUSE_URL}/v1`, apiKey: "none" });

for (const model of [openai.chat("gatehouse"), openai.responses("gatehouse")]) {
  assert.equal((await generateText({ model, prompt: "hello" })).text, "echo: hello");
  let text = "";
  for await (const piece of streamText({ model, prompt: "hello" }).textStream) text += piece;
  assert.equal(text, "echo: hello");

  const object = await generateObject({
    model,
    schema: z.object({ name: z.string(), age: z.number() }),
    prompt: '[[say {"name": "Ann", "age": 4}]]',
  });
  assert.deepEqual(object.object, { name: "Ann", age: 4 });
}

const tools = { roll: tool({ inputSchema: z.object({ sides: z.number() }), execute: async ({ sides }) => String(sides) }) };
const prompt = '[[say let me]] [[tool roll {"sides": 6}]] [[then]] [[say six it is]]';
for (const model of [openai.chat("gatehouse"), openai.responses("gatehouse")]) {
  const rolled = await generateText({ model, prompt, stopWhen: stepCountIs(3), tools });
  assert.equal(rolled.text, "six it is");
  // over responses, what was said before is named by the ids of its items
  const messages = [{ role: "user", content: prompt }, ...rolled.response.messages, { role: "user", content: "again" }];
  assert.equal((await generateText({ model, messages, tools })).text, "echo: again");
}
