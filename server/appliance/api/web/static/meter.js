// Counts tokens and how fast they came, the wait for the first one left out.
export class Meter {
  tokens = 0;
  startedAt = null;
  endedAt = null;

  constructor(model) {
    this.model = model; // its name, where one may ask what answered
  }

  count({ text, tokens }) {
    if (text) {
      this.tokens += 1;
      this.endedAt = performance.now();
      this.startedAt ??= this.endedAt;
    }
    this.tokens = tokens ?? this.tokens;
  }

  toString() {
    return [this.model, this.#rate()].filter(Boolean).join(" · ");
  }

  #rate() {
    if (!this.tokens) return "";
    const seconds = (this.endedAt - this.startedAt) / 1000;
    const words = `${this.tokens} token${this.tokens === 1 ? "" : "s"}`;
    return seconds > 0.01 ? `${words} · ${Math.round((this.tokens - 1) / seconds)} tokens/s` : words;
  }
}
