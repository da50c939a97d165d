// The chat page: keeps the conversation, asks the server, shows what comes.
import { copyText } from "./clipboard.js";
import { setUpIdentity, showHealth } from "./identity.js";
import { Meter } from "./meter.js";
import * as models from "./models.js";
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
let state = null; // what /health said last; null while the server cannot be reached
let running = null; // the AbortController of the answer that is being written
let asked = null; // the name of the model whose answer has not begun
let isWatching = false;
let isDue = false;
let hurry = () => {}; // ends the pause between two looks at the server

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
  const model = (asked = models.chosen().name);
  update();
  scrollToEnd();
  watchHealth();
  const message = { role: "assistant", content: "", note: "" };
  const meter = new Meter(models.areSeveral() ? model : "");
  let failure = null;
  try {
    const history = messages.map(({ role, content }) => ({ role, content }));
    const request = { model, messages: [...systemMessages(), ...history], ...requestSettings() };
    for await (const piece of streamAnswer(request, controller.signal)) {
      if (running === controller) noteBeginning();
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
  running = asked = null;
  message.note = [meter.toString(), message.note].filter(Boolean).join(" · ");
  if (failure) showFailure(item, message, failure);
  else finish(item, message);
  update();
}

function noteBeginning() {
  const wasLoaded = asked && models.find(asked)?.status !== "ready";
  asked = null;
  if (wasLoaded) watchHealth();
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
  if (running || !canAsk()) return;
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

function startAnew() {
  running?.abort();
  running = asked = null;
  messages = [];
  list.replaceChildren();
  update();
  question.focus();
}

function update() {
  byId("welcome").hidden = list.childElementCount > 0;
  byId("send").hidden = running !== null;
  byId("stop").hidden = running === null;
  byId("send").disabled = !canAsk() || !question.value.trim();
  for (const example of byId("examples").querySelectorAll("button")) example.disabled = !canAsk();
  const kept = messages.at(-1)?.role === "user" ? messages.slice(0, -1) : messages;
  try {
    sessionStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // Full or forbidden: it lives as long as the page.
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
  if (messages.length) scrollToEnd();
}

// A model that failed may be asked: the server says why, or tries again.
function canAsk() {
  const model = state?.isReady && models.chosen();
  return Boolean(model) && model.status !== "loading";
}

async function watchHealth() {
  isDue = true;
  if (isWatching) return hurry();
  isWatching = true;
  while (isDue) {
    isDue = false;
    state = await health().catch(() => null);
    if (state?.isReady) models.take(state.models);
    showState();
    if (isSettled()) continue;
    await pause();
    isDue = true;
  }
  isWatching = false;
}

function isSettled() {
  const isAwaited = asked && models.find(asked)?.status !== "ready";
  return state?.isReady && !isAwaited && !models.isAnyLoading();
}

function pause() {
  return new Promise((resolve) => {
    hurry = resolve;
    setTimeout(resolve, HEALTH_INTERVAL_MS);
  });
}

function showState() {
  showHealth(state);
  notify(whatIsAwaited());
  update();
}

function whatIsAwaited() {
  if (!state?.isReady) return state?.reason ?? "The server cannot be reached; trying again.";
  const model = models.find(asked) ?? models.chosen();
  if (asked && ["unloaded", "loading"].includes(model?.status)) {
    return `${model.name} is being loaded; its answer begins then.`;
  }
  return model?.status === "loading" ? `${model.name} is being loaded.` : "";
}

function notify(text) {
  if (byId("notice").textContent === text) return; // said once
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

function submit() {
  const text = question.value.trim();
  if (!text || running || !canAsk()) return;
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
    item.append(button(text, () => !running && canAsk() && ask(text), "example"));
    byId("examples").append(item);
  }
}

setUpSettings();
setUpIdentity();
models.setUpPicker(showState, watchHealth);
setUpDialogs();
setUpComposer();
setUpExamples();
byId("new-chat").addEventListener("click", startAnew);
restore();
update();
watchHealth();
if (matchMedia("(hover: hover)").matches) question.focus(); // else a keyboard would cover the page
