// Microphone or file to text, over FunASR's WebSocket. Live text is pending until its sentence has been heard as a whole.
const WORDS = {
  zh: { record: "开始录音", stop: "停止", file: "选择文件", clear: "清空", settings: "设置", hotwords: "热词（空格分隔）",
    chunk: "分块", "chunk-default": "服务器默认", key: "密钥（服务器要求时）", level: "音量", empty: "按下“开始录音”说话，或选择一个音频文件。",
    note: "浅色与下划线表示把握较小；虚线部分还可能更正。声音只送到这台服务器；为断线续传最多保留一分钟，此外不保存。", ready: "就绪", listening: "正在听…", waiting: "正在识别…",
    lost: "连接中断，正在恢复…", busy: "服务器已满，请稍后再试。", denied: "无法使用麦克风。", failed: "识别失败：", other: "English",
    nomic: "浏览器只在 https 或 localhost 上允许使用麦克风。", delay: "延迟" },
  en: { record: "Record", stop: "Stop", file: "Choose a file", clear: "Clear", settings: "Settings", hotwords: "Hotwords, between spaces",
    chunk: "Chunk", "chunk-default": "the server's own", key: "Key, if the server asks for one", level: "Level",
    empty: "Press Record and speak, or choose an audio file.",
    note: "Paler and underlined is less certain; dotted may still be corrected. Sound goes to this server only, which keeps a minute at most, to go on after a lost connection.",
    ready: "Ready", listening: "Listening…", waiting: "Recognising…", lost: "Connection lost, taking it up again…",
    busy: "The server is full; try again in a moment.", denied: "The microphone cannot be used.", failed: "Recognition failed: ", other: "中文",
    nomic: "Browsers allow the microphone on https and localhost only.", delay: "delay" },
};
const $ = (id) => document.getElementById(id);
let language = (localStorage.getItem("language") || navigator.language || "zh").startsWith("zh") ? "zh" : "en";
let say = WORDS[language], lines = [], pending = [], socket = null, source = null, state = "ready", ending = false;
let talk = null; // what has been said into the microphone and is not acknowledged, so that nothing is lost with a connection

function speakLanguage(which) {
  language = which; say = WORDS[which]; localStorage.setItem("language", which);
  document.documentElement.lang = which;
  document.querySelectorAll("[data-say]").forEach((one) => { one.textContent = say[one.dataset.say]; });
  $("text").dataset.empty = say.empty; $("level").title = say.level; $("level").setAttribute("aria-label", say.level);
  $("language").textContent = say.other; $("language").lang = which === "zh" ? "en" : "zh";
  show(state); recording(Boolean(source));
}
function show(now, more = "") { state = now; $("status").textContent = (say[now] || "") + more; }
function recording(on) {
  $("record").setAttribute("aria-pressed", String(on));
  $("record").firstElementChild.textContent = on ? say.stop : say.record;
}
function clock(ms, mark) {
  const two = (n, l = 2) => String(Math.floor(n)).padStart(l, "0");
  return `${two(ms / 3600000)}:${two(ms / 60000 % 60)}:${two(ms / 1000 % 60)}${mark}${two(ms % 1000, 3)}`;
}
function shade(confidence) { return confidence === undefined || confidence > 0.9 ? "" : confidence > 0.7 ? "s1" : confidence > 0.45 ? "s2" : "s3"; }
function sentence(line) {
  const p = document.createElement("p"), time = document.createElement("time");
  time.textContent = clock(line.start, ".").slice(3, 8); p.append(time);
  for (const token of line.tokens.length ? line.tokens : [{ text: line.text }]) {
    const span = document.createElement("span");
    span.textContent = token.text; span.className = shade(token.confidence);
    if (token.confidence !== undefined) span.title = `${Math.round(100 * token.confidence)} %`;
    p.append(span);
  }
  return p;
}
function draw(added) {
  const box = $("text"), last = box.querySelector(".live");
  const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 60; // who reads what was said earlier is left there
  if (last) last.remove();
  if (added) box.append(sentence(added));
  if (pending.length) {
    const p = document.createElement("p"), span = document.createElement("span");
    p.className = "live"; span.className = "pending"; span.textContent = pending.map((one) => one.text).join(""); p.append(span); box.append(p);
  }
  if (follows) box.scrollTop = box.scrollHeight;
  for (const id of ["save-txt", "save-srt", "save-vtt"]) $(id).disabled = !lines.length;
}
function hear(message) {
  if (message.kept !== undefined) { talk?.acknowledge(message); return; }
  if (message.resumed !== undefined) { talk?.resume(message); return; }
  if (message.number) talk?.messages.push(message);
  take(message);
}
function take(message) {
  if (message.error) { show("failed", message.error.message); stop(); return; }
  if (message.mode === "2pass-online") {
    const fresh = message.tokens ?? [];
    pending.push(...fresh.filter(unheard)); draw(); delay(fresh.at(-1)?.end); return;
  }
  if (message.text) {
    for (const line of message.segments ?? [{ text: message.text, start: 0, end: 0, tokens: [] }]) {
      lines.push(line); pending = pending.filter(unheard); draw(line);
    }
  }
  if (message.is_final) { pending = []; draw(); ending = true; talk = null; socket.close(1000); socket = null; show("ready"); $("times").value = ""; }
}
// Of live tokens those of no sentence yet: by their end, since behind a pause the start may be that of the pause.
function unheard(token) { return token.end > (lines.at(-1)?.end ?? -Infinity) + 150; }
function delay(heard) {
  if (source && heard !== undefined) $("times").value = `${say.delay} ${Math.max(0, Math.round(source.sent - heard))} ms`;
}
function settings(more) {
  const values = { mode: "2pass", wav_name: "page", is_speaking: true, confidences: true, ...more };
  if ($("hotwords").value.trim()) values.hotwords = $("hotwords").value.trim();
  if ($("chunk").value) values.chunk_size = $("chunk").value.split(",").map(Number);
  return JSON.stringify(values);
}
function connect(first, opened) {
  const key = $("key").value.trim(), protocols = ["binary", ...(key ? ["openai-insecure-api-key." + key] : [])];
  const ws = new WebSocket(location.href.replace(/^http/, "ws").split(/[?#]/)[0], protocols);
  ws.binaryType = "arraybuffer"; socket = ws; ending = false;
  if (talk) talk.waiting = true;
  ws.onopen = () => { ws.send(first); opened(ws); };
  ws.onmessage = (event) => hear(JSON.parse(event.data));
  ws.onclose = (event) => {
    if (socket !== ws || ending) return;
    socket = null;
    if (talk?.tries < 20) { show(talk.messages.length ? "lost" : "busy"); setTimeout(() => talk?.connect(), 300 * ++talk.tries); return; }
    talk = null; stop();
    show(event.code === 1006 ? "busy" : "lost", event.reason ? " " + event.reason : "");
  };
}
function finish() {
  if (talk) talk.over = true;
  if (socket?.readyState === 1 && !(talk && talk.waiting)) { socket.send(JSON.stringify({ is_speaking: false })); show("waiting"); }
}
function clear() { lines = []; pending = []; $("text").replaceChildren(); draw(); }
class Talk {
  constructor(rate) { Object.assign(this, { rate, packets: [], from: 0, token: "", messages: [], earlier: [], over: false, waiting: true, tries: 0 }); }
  connect() {
    const go = this.token ? { resume: this.token, heard: this.messages.at(-1)?.number ?? 0 } : {};
    connect(settings({ wav_format: "pcm", audio_fs: this.rate, resumable: true, ...go }), () => {
      if (!this.token) { this.again([]); this.flow(); }
    });
  }
  add(packet) {
    this.packets.push(packet);
    if (!this.waiting && socket?.readyState === 1) socket.send(packet);
  }
  // All that is not acknowledged, and the end if it has come.
  flow() {
    this.waiting = false; this.tries = 0;
    for (const packet of this.packets) socket.send(packet);
    show("listening");
    if (this.over) finish();
  }
  acknowledge(message) { this.token = message.resume; this.drop(message.kept); }
  drop(samples) {
    while (this.packets.length && this.from + this.packets[0].length <= samples) this.from += this.packets.shift().length;
    if (this.packets.length && samples > this.from) { this.packets[0] = this.packets[0].slice(samples - this.from); this.from = samples; }
  }
  resume(message) {
    if (message.resumed) {
      this.token = message.resume; this.drop(message.samples);
      this.again(this.messages.filter((one) => one.number <= message.after));
      this.flow();
    } else { // too late: what there is stays, and what is not acknowledged is said anew
      this.earlier = lines; this.token = ""; this.messages = []; socket.close(1000);
    }
  }
  again(messages) {
    this.messages = messages; lines = [...this.earlier]; pending = [];
    $("text").replaceChildren(); lines.forEach((line) => draw(line)); messages.forEach(take); draw();
  }
}
function stop() {
  if (!source) return;
  const old = source; source = null; old.stop(); recording(false); $("level").value = 0;
}
async function record() {
  if (source) { stop(); finish(); return; }
  if (!navigator.mediaDevices?.getUserMedia) { show("nomic"); return; }
  let stream;
  try { stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: true } }); }
  catch { show("denied"); return; }
  const context = new AudioContext(), rate = Math.round(context.sampleRate);
  await context.audioWorklet.addModule("/worklet.js");
  const node = new AudioWorkletNode(context, "packets");
  context.createMediaStreamSource(stream).connect(node);
  clear();
  let parts = [], count = 0;
  source = { sent: 0, stop() { stream.getTracks().forEach((one) => one.stop()); context.close(); } };
  recording(true);
  talk = new Talk(rate); talk.connect();
  node.port.onmessage = ({ data }) => {
    parts.push(data); count += data.length;
    if (count < rate * 0.06) return;
    const packet = new Int16Array(count); let place = 0, loudest = 0;
    for (const part of parts) for (const value of part) {
      const clipped = Math.max(-1, Math.min(1, value)); loudest = Math.max(loudest, Math.abs(clipped));
      packet[place++] = Math.round(clipped * 32767);
    }
    if (source) source.sent += 1000 * count / rate;
    parts = []; count = 0; $("level").value = source ? Math.sqrt(loudest) : 0;
    talk?.add(packet);
  };
}
function send(file) {
  stop(); clear(); talk = null;
  connect(settings({ mode: "offline", wav_format: "others", wav_name: file.name.slice(0, 200) }), async (ws) => {
    show("waiting");
    for (let place = 0; place < file.size && ws.readyState === 1; place += 1 << 18) {
      ws.send(await file.slice(place, place + (1 << 18)).arrayBuffer());
      while (ws.bufferedAmount > 1 << 20) await new Promise((done) => setTimeout(done, 20));
    }
    finish();
  });
}
function save(kind) {
  const name = { txt: "text/plain", srt: "application/x-subrip", vtt: "text/vtt" }[kind], mark = kind === "srt" ? "," : ".";
  const all = lines.flatMap((line) => line.cues ?? [line]), written = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  const cues = all.map((cue, n) => {
    const end = Math.min(cue.end, all[n + 1]?.start ?? cue.end);
    const text = kind === "vtt" ? cue.text.replace(/[&<>]/g, (one) => written[one]) : cue.text;
    return `${kind === "srt" ? n + 1 + "\n" : ""}${clock(cue.start, mark)} --> ${clock(end, mark)}\n${text}`;
  });
  const text = kind === "txt" ? lines.map((line) => line.text).join("\n") : (kind === "vtt" ? "WEBVTT\n\n" : "") + cues.join("\n\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text + "\n"], { type: name })); link.download = "paraformer." + kind; link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
$("record").onclick = record;
$("file").onchange = (event) => { if (event.target.files[0]) send(event.target.files[0]); event.target.value = ""; };
$("clear").onclick = clear;
$("language").onclick = () => speakLanguage(language === "zh" ? "en" : "zh");
for (const kind of ["txt", "srt", "vtt"]) $("save-" + kind).onclick = () => save(kind);
speakLanguage(language);
