// What is running: the light and name in the header, the plate on the empty page, the details.
import { copyText } from "./clipboard.js";
import { make } from "./rich_text.js";
import { version } from "./server.js";

const byId = (id) => document.getElementById(id);

export function setUpIdentity() {
  byId("identity-button").addEventListener("click", showDetails);
}

// `health` is what GET /health said, with isReady; null while the server cannot be reached.
export function showHealth(health) {
  byId("light").dataset.status = health?.isReady ? "ok" : (health?.status ?? "failed");
  if (!health?.isReady) return;
  byId("model-name").textContent = health.model;
  byId("plate-model").textContent = health.model;
  byId("weights-hash").textContent = (health.hashes.weights ?? "").slice(0, 8);
  byId("plate-hashes").replaceChildren(...rows(health.hashes));
  document.title = `${health.model} · Llama Appliance`;
}

async function showDetails() {
  const list = byId("identity-rows");
  list.replaceChildren(make("dt", "Asking the server…"));
  byId("identity").showModal();
  try {
    const facts = await version();
    list.replaceChildren(...rows(flat(facts), { isCopied: true }));
    byId("copy-identity").onclick = ({ currentTarget }) =>
      copyText(JSON.stringify(facts, null, 2), currentTarget);
  } catch (error) {
    list.replaceChildren(make("dt", error.message));
  }
}

function flat({ name, model, hashes, runtime, ...facts }) {
  const named = Object.entries(hashes ?? {}).map(([part, value]) => [`${part} hash`, value]);
  return { model, ...Object.fromEntries(named), ...facts, ...runtime };
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
