// Conversations in the browser's storage: one entry each, so that saving one does not write them all. They never leave the
// browser except in the requests for answers and in the files that the user exports.

import { newId, readConversation } from "./conversation.js";

const PREFIX = "bitnet.conversation.";
const CURRENT = "bitnet.current";
const FORMAT = "bitnet-conversations";

/** The browser refused to store something; the message says what to do. */
export class StorageError extends Error {}

export class Store {
  constructor(storage) {
    this.storage = storage;
  }

  /** All conversations, the latest first. */
  list() {
    const conversations = [];
    for (let index = 0; index < this.storage.length; index += 1) {
      const key = this.storage.key(index);
      const conversation = key.startsWith(PREFIX) ? this.#read(key) : null;
      if (conversation) conversations.push(conversation);
    }
    return conversations.sort((a, b) => b.updated - a.updated);
  }

  get(id) {
    return this.#read(PREFIX + id);
  }

  save(conversation) {
    try {
      this.storage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
    } catch {
      throw new StorageError("The browser's storage is full: export and delete old conversations.");
    }
  }

  remove(id) {
    this.storage.removeItem(PREFIX + id);
  }

  get current() {
    return this.storage.getItem(CURRENT);
  }

  set current(id) {
    try {
      this.storage.setItem(CURRENT, id);
    } catch {
      // Which conversation was open is not worth a message.
    }
  }

  /** Whether a change of this key concerns conversations. */
  static concerns(key) {
    return key === null || key.startsWith(PREFIX);
  }

  #read(key) {
    const text = this.storage.getItem(key);
    if (text === null) return null;
    try {
      return readConversation(JSON.parse(text));
    } catch {
      return null;
    }
  }
}

/** Conversations as the text of a file. */
export function exportText(conversations) {
  return `${JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 2)}\n`;
}

/**
 * The conversations of a file. Those whose id is `taken` get a new one, so that importing never overwrites.
 * Throws an Error that says what is wrong with the file.
 */
export function importText(text, taken) {
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON.");
  }
  if (data?.format !== FORMAT || !Array.isArray(data.conversations)) {
    throw new Error("This file does not hold conversations that were exported here.");
  }
  if (data.version !== 1) throw new Error(`This file has version ${data.version}; this page reads version 1.`);
  return data.conversations.map((entry, index) => {
    const conversation = readConversation(entry);
    if (!conversation) throw new Error(`Conversation ${index + 1} of the file is damaged.`);
    if (taken.has(conversation.id)) conversation.id = newId();
    taken.add(conversation.id);
    return conversation;
  });
}
