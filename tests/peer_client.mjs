// Recognition by a server as OpenAI's package for Node asks for it: `node peer_client.mjs MODULES URL FILE.wav` prints JSON.
import { createReadStream, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, url, file] = process.argv.slice(2);
const from = createRequire(pathToFileURL(modules + "/"));
const load = async (name) => import(pathToFileURL(from.resolve(name)));
const { default: OpenAI } = await load("openai");
const { OpenAIRealtimeWS } = await load("openai/realtime/ws");
const client = new OpenAI({ baseURL: url + "/v1", apiKey: "sesame", maxRetries: 0 });
const transcribe = (more) => client.audio.transcriptions.create({ file: createReadStream(file), model: "whisper-1", ...more });
const refused = async (asked) => {
  try { await asked(); return null; } catch (error) { return [error.constructor.name, error.status, error.code, error.param]; }
};
const found = {};
for (const form of ["json", "text", "srt", "vtt", "verbose_json"]) found[form] = await transcribe({ response_format: form });
found.events = [];
for await (const event of await transcribe({ stream: true })) found.events.push(event);
found.models = (await client.models.list()).data.map((one) => one.id);
const stranger = new OpenAI({ baseURL: url + "/v1", apiKey: "guess", maxRetries: 0 });
found.errors = {
  stranger: await refused(() => stranger.models.list()),
  format: await refused(() => transcribe({ response_format: "diarized_json" })),
  model: await refused(() => transcribe({ model: "nobody" })),
  audio: await refused(async () => client.audio.transcriptions.create({ file: await OpenAI.toFile(Buffer.from("no audio"), "a.wav"), model: "whisper-1" })),
};
// Node's Realtime class refuses anything but wss, so that the server has a certificate.
const realtime = await OpenAIRealtimeWS.create(client, { model: "gpt-4o-transcribe" });
found.realtime = await new Promise((done, fail) => {
  setTimeout(() => fail(new Error("no transcript")), 60000).unref();
  realtime.on("error", fail);
  realtime.on("session.created", () => {
    realtime.send({ type: "session.update", session: { type: "transcription", audio: { input: { turn_detection: null, format: { type: "audio/pcm", rate: 16000 } } } } });
    const data = readFileSync(file).subarray(44);
    for (let place = 0; place < data.length; place += 4800)
      realtime.send({ type: "input_audio_buffer.append", audio: data.subarray(place, place + 4800).toString("base64") });
    realtime.send({ type: "input_audio_buffer.commit" });
  });
  realtime.on("conversation.item.input_audio_transcription.completed", (event) => done(event.transcript));
});
realtime.close();
console.log("\n" + JSON.stringify(found));
