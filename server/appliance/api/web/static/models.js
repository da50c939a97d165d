// The server's models, and the one that is asked: the picker in the header, if there are several.
import { make } from "./rich_text.js";

const KEY = "appliance.model";
const MARKS = { unloaded: "loads at first use", loading: "loading" };
const picker = document.getElementById("model-picker");

let models = []; // { name, status, reason, hashes }, the default one first
let wanted = stored();

export function setUpPicker(onChoice, onOpen) {
  picker.addEventListener("focus", onOpen);
  picker.addEventListener("change", () => {
    wanted = picker.value;
    onChoice();
    localStorage.setItem(KEY, wanted);
  });
}

export function take(found) {
  const isChanged = JSON.stringify(found) !== JSON.stringify(models);
  models = found;
  picker.hidden = !areSeveral();
  if (isChanged) picker.replaceChildren(...models.map(option));
  picker.value = chosen()?.name;
}

export const areSeveral = () => models.length > 1;
export const isAnyLoading = () => models.some(({ status }) => status === "loading");
export const find = (name) => models.find((model) => model.name === name);

// The choice, if the server has that model; else the first that has not failed.
export function chosen() {
  return find(wanted) ?? models.find(({ status }) => status !== "failed") ?? models[0];
}

// What there is to say of a model that is not ready.
export const mark = ({ status, reason }) => MARKS[status] ?? reason;

function option(model) {
  const element = make("option", [model.name, mark(model)].filter(Boolean).join(" · "));
  element.value = model.name;
  element.disabled = model.status === "failed";
  return element;
}

function stored() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}
