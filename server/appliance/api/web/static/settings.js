// The settings drawer: what is typed there is kept in this browser and sent with every question.
const KEY = "appliance.settings";
const DEFAULTS = { system: "", temperature: "0.7", max_tokens: "", seed: "" };

const form = document.getElementById("settings-form");
const shownTemperature = document.getElementById("temperature-value");

export function setUpSettings() {
  fill({ ...DEFAULTS, ...stored() });
  form.addEventListener("input", keep);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("reset-settings").addEventListener("click", () => {
    fill(DEFAULTS);
    keep();
  });
}

// The part of a request that the settings decide; what is empty is left to the server.
export function requestSettings() {
  const { temperature, max_tokens, seed } = form.elements;
  const request = { temperature: temperature.valueAsNumber };
  if (max_tokens.value && max_tokens.validity.valid) request.max_tokens = max_tokens.valueAsNumber;
  if (seed.value && seed.validity.valid) request.seed = seed.valueAsNumber;
  return request;
}

export function systemMessages() {
  const content = form.elements.system.value.trim();
  return content ? [{ role: "system", content }] : [];
}

function fill(values) {
  for (const [name, value] of Object.entries(values)) form.elements[name].value = value;
  showTemperature();
}

function keep() {
  showTemperature();
  const names = Object.keys(DEFAULTS);
  const values = Object.fromEntries(names.map((name) => [name, form.elements[name].value]));
  localStorage.setItem(KEY, JSON.stringify(values));
}

function showTemperature() {
  shownTemperature.value = form.elements.temperature.valueAsNumber.toFixed(2);
}

function stored() {
  try {
    const values = JSON.parse(localStorage.getItem(KEY)) ?? {};
    return Object.fromEntries(Object.entries(values).filter(([name]) => name in DEFAULTS));
  } catch {
    return {};
  }
}
