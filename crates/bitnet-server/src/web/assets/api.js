// What the page asks the server. Addresses are relative to the page, so that it works behind a proxy's path as well.

import { eventData } from "./sse.js";

const KEY = "bitnet.apiKey";

/** An answer that is an error, with its HTTP status (0: none came). */
export class ServerError extends Error {
  constructor(message, status = 0, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const apiKey = {
  get() {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";
  },
  set(key, remember) {
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
    if (key) (remember ? localStorage : sessionStorage).setItem(KEY, key);
  },
};

async function request(path, { body, signal } = {}) {
  const headers = {};
  const key = apiKey.get();
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "same-origin",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ServerError("The server cannot be reached. Is it still running?");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  const text = await response.text().catch(() => "");
  let error = null;
  try {
    error = JSON.parse(text).error;
  } catch {
    // Not JSON: a proxy's page, or nothing at all.
  }
  const message = typeof error === "string" ? error : error?.message;
  return new ServerError(message || `The server answered ${response.status} ${response.statusText}`.trim(), response.status, error?.code ?? null);
}

/** The models that can be chosen: [{ id, context, hasTemplate (null: not said), defaults (null: not said) }]. */
export async function listModels() {
  const list = await (await request("v1/models")).json();
  return (Array.isArray(list.data) ? list.data : [])
    .filter((model) => typeof model.id === "string")
    .map(({ id, meta }) => ({
      id,
      context: meta?.n_ctx ?? meta?.n_ctx_train ?? null,
      hasTemplate: typeof meta?.chat_template === "boolean" ? meta.chat_template : null,
      defaults: samplingDefaults(meta?.default_generation_settings),
    }));
}

/** Completes what the list of models did not say about one of them. */
export async function describeModel(model) {
  if (model.hasTemplate !== null && model.defaults !== null) return model;
  const props = await (await request(`props?model=${encodeURIComponent(model.id)}`)).json();
  const settings = props.default_generation_settings;
  return {
    id: model.id,
    context: model.context ?? settings?.n_ctx ?? null,
    hasTemplate: model.hasTemplate ?? ("chat_template" in props ? Boolean(props.chat_template) : null),
    defaults: model.defaults ?? samplingDefaults(settings?.params ?? settings),
  };
}

function samplingDefaults(settings) {
  if (!settings || typeof settings !== "object") return null;
  const names = ["temperature", "top_k", "top_p", "min_p", "repeat_penalty", "max_tokens"];
  return Object.fromEntries(names.filter((name) => Number.isFinite(settings[name])).map((name) => [name, settings[name]]));
}

/**
 * Streams an answer. `prompt` is { messages } for a chat or { prompt } for plain completion. Yields
 * { text }, { reasoning }, { progress: { done, total } }, { finish } and { usage, timings }.
 */
export async function* streamAnswer(prompt, options, signal) {
  const path = prompt.messages ? "v1/chat/completions" : "v1/completions";
  const body = { ...options, ...prompt, stream: true, stream_options: { include_usage: true }, return_progress: true };
  const response = await request(path, { body, signal });
  for await (const data of eventData(response.body)) {
    if (data === "[DONE]") return;
    yield* readChunk(JSON.parse(data));
  }
  throw new ServerError("The connection ended before the answer did.");
}

function* readChunk(chunk) {
  if (chunk.error) throw new ServerError(chunk.error.message ?? String(chunk.error), chunk.error.code ?? 0);
  if (chunk.prompt_progress) {
    yield { progress: { done: chunk.prompt_progress.processed, total: chunk.prompt_progress.total } };
  }
  const choice = chunk.choices?.[0];
  if (choice) {
    const text = choice.delta ? choice.delta.content : choice.text;
    if (choice.delta?.reasoning_content) yield { reasoning: choice.delta.reasoning_content };
    if (text) yield { text };
    if (choice.finish_reason) yield { finish: choice.finish_reason };
  }
  if (chunk.usage || chunk.timings) yield { usage: chunk.usage ?? null, timings: chunk.timings ?? null };
}
