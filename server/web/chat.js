// Chat with the model of the server that this page came from, through its own API. Nothing is
// stored, and nothing is sent elsewhere (the server's Content-Security-Policy would not let it).
"use strict";

const element = (id) => document.getElementById(id);
const messages = []; // {role, content}: what the model is sent
let running = null; // AbortController of the answer that is being written

function headers() {
  const key = element("key").value;
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

function say(text, bad = false) {
  element("status").textContent = text;
  element("status").classList.toggle("bad", bad);
}

// The server's own sentence where there is one.
async function failure(response) {
  try {
    return new Error((await response.json()).error.message);
  } catch {
    return new Error(`the server answered with status ${response.status}`);
  }
}

async function showModel() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (!response.ok) throw await failure(response);
    element("model").textContent = (await response.json()).data[0].id;
    say("");
  } catch (error) {
    element("model").textContent = "quantnpu";
    say(error.message, true);
  }
}

function show(role, content) {
  element("hint").hidden = true;
  const bubble = document.createElement("div");
  bubble.className = `message ${role}`;
  bubble.textContent = content;
  element("chat").append(bubble);
  bubble.scrollIntoView({ block: "end" });
  return bubble;
}

function request() {
  const system = element("system").value;
  const seed = element("seed").value;
  return {
    messages: [...(system ? [{ role: "system", content: system }] : []), ...messages],
    temperature: Number(element("temperature").value),
    max_tokens: Number(element("max-tokens").value),
    ...(seed !== "" && { seed: Number(seed) }),
    stream: true,
    stream_options: { include_usage: true },
  };
}

// Calls `take` with the object of each event of a stream.
async function readEvents(body, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data !== "[DONE]") take(JSON.parse(data));
    }
  }
}

function setRunning(controller) {
  running = controller;
  element("send").hidden = controller !== null;
  element("stop").hidden = controller === null;
}

// Adds what comes to the message and the bubble; says at the end how fast it came.
async function readAnswer(answer, bubble, signal) {
  const start = performance.now();
  const options = { method: "POST", headers: headers(), body: JSON.stringify(request()), signal };
  const response = await fetch("v1/chat/completions", options);
  if (!response.ok) throw await failure(response);
  await readEvents(response.body, (event) => {
    if (event.error) throw new Error(event.error.message);
    const choice = event.choices[0];
    if (choice?.delta.content) {
      answer.content += choice.delta.content;
      bubble.textContent = answer.content;
      bubble.scrollIntoView({ block: "end" });
    }
    if (event.usage) {
      const seconds = (performance.now() - start) / 1000;
      const count = event.usage.completion_tokens;
      say(`${count} tokens, ${(count / seconds).toFixed(1)} tokens/s`);
    }
  });
}

async function ask(text) {
  const question = { role: "user", content: text };
  messages.push(question);
  show("user", text);
  const answer = { role: "assistant", content: "" };
  const bubble = show("assistant", "");
  bubble.classList.add("waiting");
  const controller = new AbortController();
  setRunning(controller);
  say("");
  try {
    await readAnswer(answer, bubble, controller.signal);
  } catch (error) {
    if (controller.signal.aborted) say("stopped");
    else say(error.message, true);
  }
  bubble.classList.remove("waiting");
  if (running === controller) setRunning(null);
  if (messages.at(-1) !== question) return; // a new chat has begun
  // An answer that was stopped is still part of the conversation; a question without one is not.
  if (answer.content) messages.push(answer);
  else {
    messages.pop();
    bubble.remove();
  }
}

function fitText() {
  const text = element("text");
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
}

function submit(event) {
  event.preventDefault();
  const text = element("text").value.trim();
  if (!text || running) return;
  element("text").value = "";
  fitText();
  ask(text);
}

function clear() {
  running?.abort();
  setRunning(null);
  messages.length = 0;
  for (const bubble of document.querySelectorAll(".message")) bubble.remove();
  element("hint").hidden = false;
  say("");
}

element("ask").addEventListener("submit", submit);
element("options").addEventListener("submit", (event) => event.preventDefault());
element("stop").addEventListener("click", () => running?.abort());
element("clear").addEventListener("click", clear);
element("key").addEventListener("change", showModel);
element("text").addEventListener("input", fitText);
element("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
});
showModel();
