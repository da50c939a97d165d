// What is running: the light and name in the header, the plate on the empty page, the details.
import { copyText } from "./clipboard.js";
import * as models from "./models.js";
import { make } from "./rich_text.js";
import { version } from "./server.js";

const byId = (id) => document.getElementById(id);

export function setUpIdentity() {
  byId("identity-button").addEventListener("click", showDetails);
}

// `health` is what GET /health said, with isReady; null while the server cannot be reached.
export function showHealth(health) {
  const model = models.chosen();
  const isShown = health?.isReady && model;
  const status = isShown && model.status !== "ready" ? model.status : health?.status;
  byId("light").dataset.status = status ?? "failed";
  if (!isShown) return;
  byId("model-name").textContent = model.name;
  byId("model-name").hidden = models.areSeveral(); // the picker shows it
  byId("plate-model").textContent = model.name;
  byId("weights-hash").textContent = (model.hashes?.weights ?? "").slice(0, 8);
  byId("plate-hashes").replaceChildren(...rows(model.hashes ?? { state: models.mark(model) }));
  document.title = `${model.name} · Llama Appliance`;
}

async function showDetails() {
  const list = byId("identity-rows");
  list.replaceChildren(make("dt", "Asking the server…"));
  byId("identity").showModal();
  try {
    const facts = await version();
    list.replaceChildren(...rows(flat(ofChosen(facts)), { isCopied: true }));
    byId("copy-identity").onclick = ({ currentTarget }) =>
      copyText(JSON.stringify(facts, null, 2), currentTarget);
  } catch (error) {
    list.replaceChildren(make("dt", error.message));
  }
}

// What the server says of itself and of the chosen model.
function ofChosen({ models: all, ...facts }) {
  return { ...facts, ...all.find(({ model }) => model === models.chosen()?.name) };
}

function flat({ name, model, hashes, runtime, fingerprint, ...facts }) {
  if (!hashes) return { model, state: models.mark(models.chosen()) || "not loaded", ...facts };
  const named = Object.entries(hashes).map(([part, value]) => [`${part} hash`, value]);
  return { model, ...Object.fromEntries(named), ...facts, fingerprint, ...runtime };
}

function rows(facts, { isCopied = false } = {}) {
  return Object.entries(facts).map(([name, value]) => {
    const row = make("div");
    const shown = make("dd", value === null ? "none" : String(value));
    row.append(make("dt", name), shown);
    if (isCopied && name.endsWith(" hash") && value) {
      row.className = "hash";
      const button = make("button", "Copy", "plain");
      button.type = "button";
      button.setAttribute("aria-label", `Copy the ${name}`);
      button.addEventListener("click", () => copyText(value, button));
      row.append(button);
    }
    return row;
  });
}
