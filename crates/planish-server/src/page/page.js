// The page of a planish server: conversations, kept in this browser.

import { make, number, of, show } from "/text.js";
import { watchServer } from "/state.js";

const tell = (text) => { of("told").textContent = text; };

// ---- What the browser keeps ----

function stored(storage, key, otherwise) {
  try { return JSON.parse(storage.getItem(key)) ?? otherwise; } catch { return otherwise; }
}
function store(storage, key, value) {
  try { storage.setItem(key, JSON.stringify(value)); } catch { tell("The browser has no room for this conversation."); }
}
let conversations = stored(localStorage, "planish.conversations", []);
if (!Array.isArray(conversations)) conversations = [];
const settings = stored(localStorage, "planish.settings", {});
let open = conversations[0] ?? fresh();
let running = null; // {controller, message, conversation} while an answer comes
let served = { id: "", context: 0, chats: true };
let attached = [];

function fresh() {
  return { id: crypto.randomUUID?.() ?? String(Math.random()), messages: [] };
}
function keep() {
  if (open.messages.length && !conversations.includes(open)) conversations.unshift(open);
  store(localStorage, "planish.conversations", conversations);
}
// Another window wrote.
window.addEventListener("storage", (event) => {
  if (event.key !== "planish.conversations") return;
  conversations = stored(localStorage, event.key, []).map((other) => (other.id === open.id && running ? open : other));
  open = conversations.find((other) => other.id === open.id) ?? open;
  if (!running) draw();
});

// ---- Messages ----

function tool(label, act, disabled = false) {
  return make("button", { type: "button", class: "quiet", onclick: act, disabled }, label);
}

function drawMessage(message, index) {
  const body = make("div", { class: "body" });
  const item = make("li", { class: `message ${message.role}`, "aria-label": message.role === "user" ? "You" : message.role === "error" ? "Error" : served.id });
  const tools = make("div", { class: "tools" });
  if (message.role === "user") {
    item.append(...(message.files ?? []).map((file) => make("span", { class: "chip" }, file.name)));
    body.textContent = message.text;
    tools.append(tool("Edit", () => edit(index)));
  } else {
    if (message.reasoning) item.append(make("details", { class: "reasoning" }, make("summary", {}, "Reasoning"), make("span", {}, message.reasoning)));
    show(body, message.text);
    if (message.role === "assistant") tools.append(tool("Copy", () => navigator.clipboard.writeText(message.text).then(() => tell("Copied."))));
    if (index === open.messages.length - 1) tools.append(tool(message.role === "error" ? "Try again" : "Regenerate", regenerate));
    if (message.note) tools.append(make("span", { class: "note" }, message.note));
  }
  item.append(body, tools);
  return item;
}

function draw() {
  of("log").replaceChildren(...open.messages.map(drawMessage));
  of("conversations").replaceChildren(...conversations.map((conversation) => {
    const name = title(conversation);
    const enter = make("button", { type: "button", "aria-current": conversation === open && "true", onclick: () => turnTo(conversation) }, name);
    const remove = make("button", { type: "button", class: "delete", "aria-label": `Delete ${name}`, onclick: () => forget(conversation) }, "✕");
    return make("li", { class: conversation === open ? "open" : "" }, enter, remove);
  }));
  showContext(open.context);
  of("rate").textContent = open.rate ?? "";
  buttons();
  of("log").scrollTop = of("log").scrollHeight;
}

function title(conversation) {
  const first = conversation.messages.find((message) => message.role === "user");
  return (first?.text || first?.files?.[0]?.name || "Empty").slice(0, 60);
}

function buttons() {
  of("stop").hidden = !running;
  of("send").hidden = !!running;
  of("send").disabled = !of("message").value.trim() && !attached.length;
}

function turnTo(conversation) {
  stop();
  open = conversation;
  of("side").classList.remove("shown");
  of("show-list").setAttribute("aria-expanded", "false");
  draw();
  of("message").focus();
}

function forget(conversation) {
  if (running?.conversation === conversation) stop();
  conversations = conversations.filter((other) => other !== conversation);
  store(localStorage, "planish.conversations", conversations);
  if (open === conversation) turnTo(conversations[0] ?? fresh()); else draw();
}

function edit(index) {
  stop();
  const message = open.messages[index];
  const box = make("textarea", { class: "edit", rows: 3, "aria-label": "Edit the message" });
  box.value = message.text;
  const close = () => { draw(); of("message").focus(); };
  const send = () => {
    open.messages.length = index + 1;
    open.messages[index] = { ...message, text: box.value };
    answer();
    of("message").focus();
  };
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { event.stopPropagation(); close(); }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
  });
  const tools = make("div", { class: "tools" }, tool("Cancel", close), tool("Send again", send));
  of("log").children[index].replaceChildren(box, tools);
  box.focus();
}

function regenerate() {
  stop();
  while (open.messages.length && open.messages.at(-1).role !== "user") open.messages.pop();
  if (open.messages.length) answer();
}

// Ends the answer that comes. What is there of it stays.
function stop() {
  if (!running) return;
  const { controller, message, conversation } = running;
  running = null;
  controller.abort();
  message.note = ["stopped", conversation.rate].filter(Boolean).join("; ");
  keep();
  if (open === conversation) draw();
  tell("Stopped.");
}

// ---- Asking ----

function contentOf(message) {
  const files = (message.files ?? []).map((file) => `${file.name}:\n\`\`\`\n${file.text}\n\`\`\`\n\n`);
  return files.join("") + message.text;
}

// The request that a conversation makes; throws where a setting says nothing that can be sent.
function request(messages) {
  const body = { model: served.id, stream: true, stream_options: { include_usage: true } };
  for (const name of ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "max_tokens"])
    if (settings[name] !== undefined && settings[name] !== "") body[name] = Number(settings[name]);
  if (settings.schema?.trim()) {
    const schema = JSON.parse(settings.schema);
    body.response_format = { type: "json_schema", json_schema: { name: "answer", strict: true, schema } };
  }
  const told = messages.filter((message) => message.role !== "error");
  if (!served.chats) {
    body.max_tokens ??= 256;
    return ["/v1/completions", { ...body, prompt: told.map(contentOf).join("") }];
  }
  body.messages = told.map((message) => ({ role: message.role, content: contentOf(message) }));
  if (settings.system?.trim()) body.messages.unshift({ role: "system", content: settings.system });
  return ["/v1/chat/completions", body];
}

function headers() {
  const key = sessionStorage.getItem("planish.key");
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function failure(response) {
  const body = await response.json().catch(() => null);
  const hint = response.status === 401 ? " Give it under Settings." : "";
  return new Error((body?.error?.message ?? `The server said ${response.status}.`) + hint);
}

// The events of a stream, as they come.
async function* events(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue;
      if (line === "data: [DONE]") return;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

async function answer() {
  const conversation = open;
  const message = { role: "assistant", text: "", reasoning: "" };
  const run = { controller: new AbortController(), message, conversation };
  let asked;
  try { asked = request(conversation.messages); } catch (error) {
    conversation.messages.push({ role: "error", text: `The JSON schema in the settings is no JSON: ${error.message}` });
    return draw();
  }
  conversation.messages.push(message);
  running = run;
  keep();
  draw();
  tell("An answer comes.");
  const item = of("log").lastElementChild;
  item.setAttribute("aria-busy", "true");
  let due = 0;
  const grow = () => {
    due = 0;
    if (running !== run) return;
    const log = of("log");
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    if (message.reasoning) {
      let box = item.querySelector(".reasoning");
      if (!box) { box = make("details", { class: "reasoning", open: true }, make("summary", {}, "Reasoning"), make("span")); item.prepend(box); }
      box.lastChild.textContent = message.reasoning;
    }
    show(item.querySelector(".body"), message.text);
    if (atEnd) log.scrollTop = log.scrollHeight;
  };
  const start = performance.now();
  let first = 0, last = 0, pieces = 0, usage = null, reason = "";
  try {
    const response = await fetch(asked[0], { method: "POST", headers: headers(), body: JSON.stringify(asked[1]), signal: run.controller.signal });
    if (!response.ok) throw await failure(response);
    for await (const event of events(response)) {
      if (event.usage) usage = event.usage;
      const choice = event.choices[0];
      const text = choice?.delta?.content ?? choice?.text;
      message.text += text ?? "";
      message.reasoning += choice?.delta?.reasoning_content ?? "";
      reason = choice?.finish_reason ?? reason;
      if (!text && !choice?.delta?.reasoning_content) continue;
      last = performance.now();
      first ||= last;
      pieces += 1;
      if (pieces > 1) conversation.rate = `about ${number((pieces - 1) / ((last - first) / 1000), 1)} tokens/s`;
      if (open === conversation) of("rate").textContent = conversation.rate ?? "";
      due ||= requestAnimationFrame(grow);
    }
  } catch (error) {
    if (running !== run) return;
    if (!message.text) conversation.messages.pop();
    conversation.messages.push({ role: "error", text: error.message });
    tell(`Error: ${error.message}`);
  }
  if (running !== run) return;
  running = null;
  const seconds = (last - first) / 1000;
  if (usage && seconds > 0) {
    conversation.rate = `${number((usage.completion_tokens - 1) / seconds, 1)} tokens/s`;
    conversation.context = usage.total_tokens;
    message.note = `${number(usage.completion_tokens)} tokens, ${conversation.rate}, first after ${number((first - start) / 1000, 2)} s`;
  }
  if (reason === "length") message.note = [message.note, "cut off by the limit of tokens"].filter(Boolean).join("; ");
  keep();
  if (open !== conversation) return;
  draw();
  if (usage) tell(message.text);
}

function showContext(used) {
  const known = used && served.context;
  of("context-text").textContent = known ? `${number(used)} / ${number(served.context)} tokens` : "";
  of("context").hidden = !known;
  if (known) of("context").value = used / served.context;
}

// ---- Writing ----

of("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = of("message").value;
  if (running || (!text.trim() && !attached.length)) return;
  while (open.messages.at(-1)?.role === "error") open.messages.pop();
  open.messages.push({ role: "user", text, ...(attached.length ? { files: attached } : {}) });
  attached = [];
  of("message").value = "";
  drawFiles();
  fit();
  answer();
});
function fit() {
  const box = of("message");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
  buttons();
}
of("message").addEventListener("input", fit);
of("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    of("composer").requestSubmit();
  }
  const last = open.messages.findLastIndex((message) => message.role === "user");
  if (event.key === "ArrowUp" && !of("message").value && last >= 0) { event.preventDefault(); edit(last); }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (running) stop();
  else if (!of("settings").hidden) toggleSettings(false);
});
of("stop").addEventListener("click", () => { stop(); of("message").focus(); });
of("new").addEventListener("click", () => turnTo(fresh()));
of("show-list").addEventListener("click", () => {
  of("show-list").setAttribute("aria-expanded", of("side").classList.toggle("shown"));
});

const MOST_BYTES = 1 << 20;
of("attach").addEventListener("click", () => of("file").click());
of("file").addEventListener("change", async () => {
  for (const file of of("file").files) {
    const text = file.size <= MOST_BYTES ? await file.text() : "";
    if (file.size > MOST_BYTES) tell(`${file.name} has more than 1 MiB.`);
    else if (text.includes("\0")) tell(`${file.name} is no text.`);
    else attached.push({ name: file.name, text });
  }
  of("file").value = "";
  drawFiles();
});
function drawFiles() {
  of("files").replaceChildren(...attached.map((file) => make("li", { class: "chip" }, file.name,
    make("button", { type: "button", class: "quiet", "aria-label": `Remove ${file.name}`,
      onclick: () => { attached = attached.filter((other) => other !== file); drawFiles(); } }, "✕"))));
  buttons();
}

// ---- Settings ----

function toggleSettings(shown) {
  of("settings").hidden = !shown;
  of("show-settings").setAttribute("aria-expanded", shown);
  (shown ? of("system") : of("show-settings")).focus();
}
of("show-settings").addEventListener("click", () => toggleSettings(of("settings").hidden));
of("hide-settings").addEventListener("click", () => toggleSettings(false));
for (const box of of("settings").querySelectorAll("input, textarea")) {
  if (box.id === "key") box.value = sessionStorage.getItem("planish.key") ?? "";
  else box.value = settings[box.id] ?? "";
  box.addEventListener("input", () => {
    if (box.id === "key") { sessionStorage.setItem("planish.key", box.value); return; }
    settings[box.id] = box.value;
    store(localStorage, "planish.settings", settings);
    if (box.id === "schema") checkSchema();
  });
}
of("key").addEventListener("change", learnModel);
function checkSchema() {
  let said = "";
  try { if (of("schema").value.trim()) JSON.parse(of("schema").value); } catch (error) { said = `No JSON yet: ${error.message}`; }
  of("schema-note").textContent = said;
}

async function learnModel() {
  try {
    const response = await fetch("/v1/models", { headers: headers() });
    if (!response.ok) throw await failure(response);
    const [card] = (await response.json()).data;
    served = { id: card.id, context: card.context_length, chats: card.chat_template };
    of("model").textContent = served.id;
    of("greeting").textContent = served.chats ? "What is on your mind?" : "How does the story begin?";
    of("greeting-note").textContent = served.chats ? "" : "This model goes on with a text. It has no chat template, so there is no system message.";
    of("system").disabled = !served.chats;
    of("message").placeholder = served.chats ? "Message" : "Once upon a time";
  } catch (error) {
    of("greeting").textContent = "The server does not answer.";
    of("greeting-note").textContent = error.message;
  }
  draw();
}

// ---- Tabs ----

const tabs = [of("tab-chat"), of("tab-server")];
function choose(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    of(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  watchServer(tab.id === "tab-server", headers);
}
for (const [index, tab] of tabs.entries()) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    choose(tabs[1 - index]);
    tabs[1 - index].focus();
  });
}

checkSchema();
learnModel();
of("message").focus();
