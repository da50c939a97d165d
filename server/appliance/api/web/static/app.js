// The chat page: keeps the conversation, asks the server, shows what comes.
import { copyText } from "./clipboard.js";
import { setUpIdentity, showHealth } from "./identity.js";
import { make, showAnswer } from "./rich_text.js";
import { health, streamAnswer } from "./server.js";
import { requestSettings, setUpSettings, systemMessages } from "./settings.js";

const EXAMPLES = [
  "Tell me a story about a brave little fox",
  "What is 3 + 4?",
  "What is the opposite of hot?",
  "Who are you?",
];
const KEY = "appliance.conversation"; // in the session storage: gone when the tab is closed
const HEALTH_INTERVAL_MS = 1000;
const NEAR_THE_END_PX = 80;

const byId = (id) => document.getElementById(id);
const [scroller, list, question] = ["scroller", "conversation", "question"].map(byId);

let messages = []; // { role, content, note? }
let model = null; // its name once the server is ready
let running = null; // the AbortController of the answer that is being written
let isWatching = false;

async function ask(text) {
  if (messages.at(-1)?.role === "user") messages.pop(); // it got no answer; roles must alternate
  messages.push({ role: "user", content: text });
  list.append(userItem(text));
  await answer();
}

async function answer() {
  const item = answerItem();
  list.append(item.element);
  const controller = (running = new AbortController());
  update();
  scrollToEnd();
  const message = { role: "assistant", content: "", note: "" };
  const meter = new Meter();
  let failure = null;
  try {
    const history = messages.map(({ role, content }) => ({ role, content }));
    const request = { model, messages: [...systemMessages(), ...history], ...requestSettings() };
    for await (const piece of streamAnswer(request, controller.signal)) {
      meter.count(piece);
      message.content += piece.text;
      if (piece.finishReason === "length") message.note = "cut at the length limit";
      item.show(message.content, meter.toString());
    }
  } catch (error) {
    if (error.name === "AbortError") message.note = "stopped";
    else failure = error;
  }
  if (running !== controller) return; // a new chat was begun meanwhile
  running = null;
  message.note = [meter.toString(), message.note].filter(Boolean).join(" · ");
  if (failure) showFailure(item, message, failure);
  else finish(item, message);
  update();
}

function finish(item, message) {
  if (message.content) messages.push(message);
  item.finish(message);
  item.offerActions(message);
  byId("announcer").textContent = message.content || message.note;
}

// The question stays, so that it can be asked again.
function showFailure(item, message, error) {
  const box = make("div", undefined, "failure");
  box.setAttribute("role", "alert");
  box.append(make("p", error.message), button("Try again", retry));
  item.finish(message);
  item.element.append(box);
  scrollToEnd();
  watchHealth();
}

async function retry() {
  if (running || model === null) return;
  if (messages.at(-1)?.role === "assistant") messages.pop();
  list.lastElementChild.remove();
  await answer();
}

function userItem(text) {
  const element = make("li", undefined, "user");
  element.append(make("span", "You: ", "unseen"), make("p", text));
  return element;
}

function answerItem() {
  const element = make("li", undefined, "answer");
  const body = make("div", undefined, "body");
  const note = make("p", "", "note");
  element.append(make("span", "Answer: ", "unseen"), body, note);
  element.classList.add("writing");
  element.setAttribute("aria-busy", "true");
  let frame = 0; // the text is laid out once a frame at most, however fast it comes
  return {
    element,
    show(text, rate) {
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(() => {
        const isFollowed = isNearTheEnd();
        showAnswer(body, text);
        note.textContent = rate;
        if (isFollowed) scrollToEnd();
      });
    },
    finish(message) {
      cancelAnimationFrame(frame);
      const isFollowed = isNearTheEnd();
      showAnswer(body, message.content);
      note.textContent = message.note;
      element.classList.remove("writing");
      element.removeAttribute("aria-busy");
      if (isFollowed) scrollToEnd();
    },
    offerActions(message) {
      if (message.content) note.append(copyButton(message.content));
      note.append(button("Regenerate", retry, "regenerate")); // shown below the last answer only
    },
  };
}

const copyButton = (text) => button("Copy", ({ currentTarget }) => copyText(text, currentTarget));

function button(label, onClick, className = "") {
  const element = make("button", label, `plain ${className}`);
  element.type = "button";
  element.addEventListener("click", onClick);
  return element;
}

// Counts tokens and how fast they came, the wait for the first one left out.
class Meter {
  tokens = 0;
  startedAt = null;
  endedAt = null;

  count({ text, tokens }) {
    if (text) {
      this.tokens += 1;
      this.endedAt = performance.now();
      this.startedAt ??= this.endedAt;
    }
    this.tokens = tokens ?? this.tokens;
  }

  toString() {
    if (!this.tokens) return "";
    const seconds = (this.endedAt - this.startedAt) / 1000;
    const words = `${this.tokens} token${this.tokens === 1 ? "" : "s"}`;
    return seconds > 0.01 ? `${words} · ${Math.round((this.tokens - 1) / seconds)} tokens/s` : words;
  }
}

function startAnew() {
  running?.abort();
  running = null;
  messages = [];
  list.replaceChildren();
  update();
  question.focus();
}

function update() {
  byId("welcome").hidden = list.childElementCount > 0;
  byId("send").hidden = running !== null;
  byId("stop").hidden = running === null;
  byId("send").disabled = model === null || !question.value.trim();
  for (const example of byId("examples").querySelectorAll("button")) example.disabled = !model;
  const kept = messages.at(-1)?.role === "user" ? messages.slice(0, -1) : messages;
  try {
    sessionStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // Full or forbidden: the conversation lives as long as the page.
  }
}

function restore() {
  try {
    messages = JSON.parse(sessionStorage.getItem(KEY)) ?? [];
  } catch {
    messages = [];
  }
  for (const message of messages) {
    if (message.role === "user") {
      list.append(userItem(message.content));
    } else {
      const item = answerItem();
      list.append(item.element);
      item.finish(message);
      item.offerActions(message);
    }
  }
  scrollToEnd();
}

async function watchHealth() {
  if (isWatching) return;
  isWatching = true;
  for (;;) {
    const state = await health().catch(() => null);
    showHealth(state);
    model = state?.isReady ? state.model : null;
    notify(state?.isReady ? "" : (state?.reason ?? "The server cannot be reached; trying again."));
    update();
    if (state?.isReady) break;
    await new Promise((resolve) => setTimeout(resolve, HEALTH_INTERVAL_MS));
  }
  isWatching = false;
}

function notify(text) {
  if (byId("notice").textContent === text) return; // said once, not every second
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

function submit() {
  const text = question.value.trim();
  if (!text || running || model === null) return;
  question.value = "";
  grow();
  ask(text);
}

function grow() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}

function isNearTheEnd() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_THE_END_PX;
}

function scrollToEnd() {
  scroller.scrollTop = scroller.scrollHeight;
}

function setUpDialogs() {
  byId("settings-button").addEventListener("click", () => byId("settings").showModal());
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }
}

function setUpComposer() {
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  question.addEventListener("input", () => {
    grow();
    update();
  });
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  byId("stop").addEventListener("click", () => running?.abort());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) running?.abort();
  });
}

function setUpExamples() {
  for (const text of EXAMPLES) {
    const item = make("li");
    item.append(button(text, () => !running && model !== null && ask(text), "example"));
    byId("examples").append(item);
  }
}

setUpSettings();
setUpIdentity();
setUpDialogs();
setUpComposer();
setUpExamples();
byId("new-chat").addEventListener("click", startAnew);
restore();
update();
watchHealth();
if (matchMedia("(hover: hover)").matches) question.focus(); // else a keyboard would cover the page
