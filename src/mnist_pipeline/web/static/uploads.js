// What this browser uploads, as any user's file: drawn, chosen, dropped or pasted.

import { arrange, make, rove } from "./elements.js";
import { ask, Refused } from "./stream.js";
import { bytes, isFinal, nameOf, outcomeOf } from "./wording.js";

const MOST_SHOWN = 8;
const MOST_AT_A_TIME = 100;
const AT_ONCE = 4;

export class Uploads {
  /** `onChange` is called with an upload that has got further, and with whether it is a new one. */
  constructor({ site, list, journeyOf, onChange, onChoose }) {
    this.site = site;
    this.list = list;
    this.journeyOf = journeyOf;
    this.onChange = onChange;
    this.onChoose = onChoose;
    this.all = [];
    this.waiting = [];
    this.running = 0;
    this.count = 0;
    this.settleTabs = rove(list, "button");
  }

  /** Upload files under their names; those too many are left out. */
  takeFiles(files) {
    for (const file of [...files].slice(0, MOST_AT_A_TIME)) this.take(file, file.name);
    return Math.max(files.length - MOST_AT_A_TIME, 0);
  }

  /** Upload bytes; without a name the server makes one that no other has. */
  take(blob, name = null) {
    this.count += 1;
    const upload = {
      id: this.count,
      name: name ?? `drawing ${this.count}`,
      picture: URL.createObjectURL(blob),
      journey: null,
      error: "",
    };
    this.all.unshift(upload);
    for (const old of this.all.splice(MOST_SHOWN)) URL.revokeObjectURL(old.picture);
    this.waiting.push(() => this.#send(upload, blob, name));
    this.onChange(upload, true);
    this.#show();
    this.#next();
    return upload;
  }

  /** Journeys have got further: some of them may be ours. */
  update(journeys) {
    for (const journey of journeys) {
      const upload = this.all.find((one) => one.journey !== null && one.journey.trace_id === journey.trace_id);
      if (upload === undefined || journey.trace_id === null) continue;
      upload.journey = journey;
      this.onChange(upload, false);
      this.#show();
    }
  }

  /** Show which of them is looked at. */
  choose(upload) {
    this.chosen = upload;
    this.#show();
  }

  async #next() {
    if (this.running >= AT_ONCE || this.waiting.length === 0) return;
    this.running += 1;
    await this.waiting.shift()();
    this.running -= 1;
    this.#next();
  }

  async #send(upload, blob, name) {
    try {
      if (blob.size > this.site.max_object_bytes) {
        throw new Refused(413, `It has ${bytes(blob.size)}; at most ${bytes(this.site.max_object_bytes)} are taken.`);
      }
      const sent = await this.#post(blob, name);
      // The stream may have been faster.
      upload.journey = this.journeyOf(sent.trace_id) ?? {
        ...{ id: null, notified: null, published: null, stages: {}, label: null, labels: [], score: null },
        ...{ destination: null, reason: "", message: "", state: "uploaded", uploaded: Date.now(), ...sent },
      };
    } catch (error) {
      upload.error = error.message;
    }
    this.onChange(upload, false);
    this.#show();
  }

  async #post(blob, name) {
    const post = (query) => ask(`/api/uploads${query}`, { method: "POST", body: blob });
    if (name === null) return post("");
    try {
      return await post(`?name=${encodeURIComponent(name)}`);
    } catch (error) {
      if (error.status !== 409) throw error;
      // The name is taken: beside it.
      const dot = name.lastIndexOf(".") < 0 ? name.length : name.lastIndexOf(".");
      const own = crypto.getRandomValues(new Uint32Array(1))[0].toString(16);
      return post(`?name=${encodeURIComponent(`${name.slice(0, dot)}-${own}${name.slice(dot)}`)}`);
    }
  }

  #show() {
    this.list.hidden = this.all.length === 0;
    arrange(this.list, this.all.map((upload) => this.#shown(upload)));
    this.settleTabs();
  }

  #shown(upload) {
    const { journey, error } = upload;
    const state = error ? "failed" : journey === null ? "sending" : journey.state;
    const word = error ? "refused" : journey === null ? "sending" : journey.state === "rejected" ? "rejected" : outcomeOf(journey);
    upload.badge ??= make("span", { class: "badge" });
    upload.button ??= make(
      "button",
      { type: "button", click: () => this.onChoose(upload) },
      make("img", { src: upload.picture, alt: "", width: 40, height: 40 }),
      upload.badge,
    );
    upload.item ??= make("li", {}, upload.button);
    const name = journey === null ? upload.name : nameOf(journey.place);
    upload.badge.textContent = word;
    upload.button.dataset.state = state;
    upload.button.setAttribute("aria-label", `${name}: ${word}`);
    upload.button.setAttribute("aria-pressed", String(upload === this.chosen));
    upload.button.classList.toggle("is-waiting", !error && (journey === null || !isFinal(journey)));
    return upload.item;
  }
}

/** Take files that are dropped or pasted anywhere; `veil` is shown while they hover. */
export function takeDropped({ veil, onFiles, onPasted }) {
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let depth = 0;
  const hover = (change) => (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = Math.max(depth + change, 0);
    veil.hidden = depth === 0;
  };
  addEventListener("dragenter", hover(1));
  addEventListener("dragleave", hover(-1));
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    veil.hidden = true;
    onFiles(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) return;
    event.preventDefault();
    files.forEach(onPasted);
  });
}

/** Where nothing is taken, a file that is dropped must not replace the page. */
export function refuseDropped() {
  addEventListener("dragover", (event) => {
    event.preventDefault();
    event.dataTransfer.dropEffect = "none";
  });
  addEventListener("drop", (event) => event.preventDefault());
}
