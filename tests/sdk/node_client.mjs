// OpenAI's client for Node against a worker: chat, stream, tools and responses.
// usage: node node_client.mjs URL MODEL; prints one JSON object of what came.
import OpenAI from 'openai';

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 });
const messages = [{ role: 'user', content: 'Count from 57 to 68.' }];

const whole = await client.chat.completions.create({ model, messages, temperature: 0 });
let streamed = '';
let usage = null;
const options = { include_usage: true };
for await (const chunk of await client.chat.completions.create({
  model, messages, temperature: 0, stream: true, stream_options: options,
})) {
  streamed += chunk.choices[0]?.delta?.content ?? '';
  usage = chunk.usage ?? usage;
}
const response = await client.responses.create({ model, input: messages[0].content, temperature: 0 });
const events = [];
for await (const event of await client.responses.create({
  model, input: messages[0].content, temperature: 0, stream: true,
})) {
  events.push(event.type);
}
let refused = null;
try {
  await client.chat.completions.create({ model, messages, temperature: 9 });
} catch (error) {
  refused = { status: error.status, param: error.param };
}
console.log(JSON.stringify({
  whole: whole.choices[0].message.content,
  streamed,
  usage,
  response: response.output_text,
  lastEvent: events.at(-1),
  refused,
}));
