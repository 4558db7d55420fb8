// Server-sent events, as far as streaming answers need them: bytes go in, the data of each event comes out.

/** Yields the data of each event of a response's body. Leaving the loop closes the connection. */
export async function* eventData(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const events = new EventBuffer();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      yield* events.push(decoder.decode(value, { stream: true }));
    }
    yield* events.push(`${decoder.decode()}\n\n`);
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Cuts a stream of text into events. Pieces may end anywhere, also inside a line ending. */
export class EventBuffer {
  #rest = "";
  #data = [];

  /** Takes a piece and gives the data of the events that are complete. */
  push(text) {
    const complete = [];
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line.endsWith("\r") ? line.slice(0, -1) : line, complete);
    return complete;
  }

  #line(line, complete) {
    if (line === "") {
      if (this.#data.length) complete.push(this.#data.join("\n"));
      this.#data = [];
    } else if (line.startsWith("data:")) {
      this.#data.push(line.slice(line[5] === " " ? 6 : 5));
    }
  }
}
