// The server's HTTP API, as far as this page uses it.
import { readEvents } from "./sse.js";

export class ServerError extends Error {
  constructor(message, { status = null } = {}) {
    super(message);
    this.status = status;
  }
}

// Yields { text, finishReason, tokens } until the answer is complete; throws a ServerError, or an
// AbortError after `signal` was used. Leaving the loop closes the connection, which cancels the
// work on the server.
export async function* streamAnswer(request, signal) {
  const response = await reach("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!response.ok) throw await refusal(response);
  let isFinished = false;
  try {
    for await (const data of readEvents(response.body)) {
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ServerError(event.error.message);
      const choice = event.choices?.[0];
      isFinished ||= Boolean(choice?.finish_reason);
      yield {
        text: choice?.delta?.content ?? "",
        finishReason: choice?.finish_reason ?? null,
        tokens: event.usage?.completion_tokens ?? null,
      };
    }
  } catch (error) {
    if (error instanceof ServerError || error.name === "AbortError") throw error;
    throw new ServerError("The connection broke off before the answer was complete.");
  }
  if (!isFinished) throw new ServerError("The connection broke off before the answer was complete.");
}

// { isReady, models: [{ name, status, reason, hashes }], ...what /health says }
export async function health() {
  const response = await reach("health", { cache: "no-store" });
  const state = await response.json();
  return { ...state, isReady: response.ok, models: response.ok ? await usableModels(state) : [] };
}

// /health names all models; /v1/models those that this client may use, with their hashes.
async function usableModels({ models, hashes }) {
  const found = models.map(({ model, ...facts }) => ({ name: model, ...facts, hashes: null }));
  found[0].hashes = hashes;
  if (found.length === 1) return found;
  const response = await reach("v1/models", { cache: "no-store" });
  if (!response.ok) return found;
  const listed = new Map((await response.json()).data.map(({ id, hashes }) => [id, hashes]));
  const usable = found.filter(({ name }) => listed.has(name));
  return usable.map((model) => ({ ...model, hashes: listed.get(model.name) }));
}

export async function version() {
  const response = await reach("version", { cache: "no-store" });
  if (!response.ok) throw await refusal(response);
  return response.json();
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server cannot be reached.");
  }
}

async function refusal(response) {
  let message = `The server answered with HTTP status ${response.status}.`;
  try {
    message = (await response.json()).error.message ?? message;
  } catch {
    // Not ours: a proxy's page, perhaps. The status says enough.
  }
  return new ServerError(message, { status: response.status });
}
