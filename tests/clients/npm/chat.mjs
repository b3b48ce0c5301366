// What a program in JavaScript gets from the server, by the `openai` package. Prints one JSON object.
import { createRequire } from "node:module";

const [base, packages] = process.argv.slice(2);
const OpenAI = createRequire(packages)("openai").default;
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "unused", maxRetries: 0 });
const asked = { model: "demo", messages: [{ role: "user", content: "What is a KV cache?" }], max_tokens: 12, temperature: 0 };

const whole = await client.chat.completions.create(asked);
const stream = await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
let streamed = "";
let usage = null;
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
const tool = { type: "function", function: { name: "f", parameters: { type: "object", properties: { a: { type: "integer" } }, required: ["a"] } } };
const called = await client.chat.completions
  .stream({ ...asked, model: "tools", max_tokens: 200, tools: [tool], tool_choice: "required" })
  .finalChatCompletion();
const first = await client.responses.create({ model: "demo", input: "Hi", max_output_tokens: 300, temperature: 0 });
const second = await client.responses
  .stream({ model: "demo", input: "And?", previous_response_id: first.id, max_output_tokens: 300, temperature: 0 })
  .finalResponse();
const missing = await client.chat.completions.create({ ...asked, model: "nobody" }).catch((error) => error);
const models = [];
for await (const model of client.models.list()) models.push(model.id);

console.log(
  JSON.stringify({
    models,
    whole: whole.choices[0].message.content,
    streamed,
    tokens: usage.completion_tokens,
    call: called.choices[0].message.tool_calls[0].function,
    first: first.output_text,
    second: second.output_text,
    previous: second.previous_response_id === first.id,
    missing: [missing.constructor.name, missing.status, missing.code],
  }),
);
