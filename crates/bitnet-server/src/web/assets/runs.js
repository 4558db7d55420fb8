// Answers in progress. A run belongs to one message of one conversation and goes on when another conversation is shown.

import { ServerError, streamAnswer } from "./api.js";
import { promptFor } from "./conversation.js";

export class Run {
  /** `node` is the message that is being written, a child of the message it answers. */
  constructor(conversation, node) {
    this.conversation = conversation;
    this.node = node;
    this.progress = null;
    this.controller = new AbortController();
    this.started = performance.now();
    this.first = null;
    this.last = null;
    this.pieces = 0;
    this.reported = null;
  }

  stop() {
    this.controller.abort();
  }

  /**
   * Streams the answer into the message; `changed` is called after every event. Resolves when the message is final: its
   * `state` says how it ended. Rejects only for a missing API key (status 401), with the message unchanged.
   */
  async stream(model, changed) {
    const { conversation, node } = this;
    const prompt = promptFor(conversation, conversation.nodes[node.parent]);
    try {
      for await (const event of streamAnswer(prompt, { model, ...conversation.settings }, this.controller.signal)) {
        this.take(event);
        changed();
      }
    } catch (error) {
      if (error instanceof ServerError && error.status === 401) throw error;
      if (this.controller.signal.aborted) node.state = "stopped";
      else {
        node.state = "error";
        node.note = error.message;
      }
    }
    node.stats = this.stats();
  }

  take(event) {
    const { node } = this;
    if (event.progress) this.progress = event.progress;
    if (event.text || event.reasoning) {
      this.last = performance.now();
      this.first ??= this.last;
      this.pieces += 1;
      node.text += event.text ?? "";
      if (event.reasoning) node.reasoning = (node.reasoning ?? "") + event.reasoning;
    }
    if (event.finish === "length") node.state = "length";
    if (event.usage || event.timings) this.reported = { ...this.reported, ...event };
  }

  /** Counts and speed: the server's where it reported them, else as seen from here (one piece of text is one token). */
  stats() {
    const { usage, timings } = this.reported ?? {};
    const seconds = this.first === null ? 0 : (this.last - this.first) / 1000;
    const generated = usage?.completion_tokens ?? timings?.predicted_n ?? this.pieces;
    const stats = { generated };
    const perSecond = timings?.predicted_per_second ?? (seconds > 0.2 ? (this.pieces - 1) / seconds : null);
    if (perSecond) stats.perSecond = perSecond;
    const prompt = usage?.prompt_tokens ?? timings?.prompt_n;
    if (prompt) stats.prompt = prompt;
    const cached = usage?.prompt_tokens_details?.cached_tokens ?? timings?.cache_n;
    if (cached) stats.cached = cached;
    if (this.first !== null) stats.first = (this.first - this.started) / 1000;
    return stats;
  }
}
