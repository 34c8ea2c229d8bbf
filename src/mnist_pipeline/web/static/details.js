// A dialog with all that is known of one trace id: its journeys, and their records as they lie on Kafka.

import { find, make, rove, say } from "./elements.js";
import { load, pictureUrl } from "./pictures.js";
import { thumb } from "./shelves.js";
import { ask } from "./stream.js";
import { Way } from "./way.js";
import { bytes, moment, nameOf, titleOf } from "./wording.js";

const MOST_WAYS = 10;
// What is longer is shown as it is, without colours.
const MOST_COLOURED = 30_000;

export class Details {
  constructor(site) {
    this.site = site;
    this.dialog = find("details");
    this.ways = [];
    this.traceId = null;
    closable(this.dialog, find("details-close"));
    this.dialog.addEventListener("close", () => {
      this.traceId = null;
      this.ways = [];
      history.replaceState(null, "", location.pathname + location.search);
    });
  }

  /** Show a journey, and ask for its records; `atRecords` begins there. */
  open(journey, { atRecords = false } = {}) {
    this.#show(titleOf(journey), [journey]);
    if (journey.trace_id === null) say(find("raw-says"), "It has no trace id yet, by which its records could be found.");
    else this.#ask(journey.trace_id);
    this.isAtRecords = atRecords;
    if (atRecords) this.#goToRecords();
  }

  /** Show an object that lies on a shelf. */
  openObject(object) {
    if (object.trace_id !== null) {
      this.#show(nameOf(object.place), []);
      this.#ask(object.trace_id, object);
    } else {
      this.#show(nameOf(object.place), []);
      this.#showObject(object);
      say(find("raw-says"), "It has no trace id, by which its records could be found.");
    }
  }

  /** Look for a trace id, and show what there is; else the reason is thrown. */
  async search(traceId) {
    const told = await ask(`/api/journeys/${encodeURIComponent(traceId)}`);
    this.#show(traceId, []);
    this.traceId = traceId;
    this.#tell(told);
  }

  /** A journey that is looked at has got further. */
  update(journeys) {
    if (!this.dialog.open || this.traceId === null) return;
    for (const journey of journeys) {
      if (journey.trace_id !== this.traceId) continue;
      const way = this.ways.find((one) => one.journey.place === journey.place && one.journey.id === journey.id);
      way?.show(journey);
      this.#ask(journey.trace_id);
    }
  }

  #show(title, journeys) {
    say(find("details-title"), title);
    this.#showWays(journeys);
    this.isAtRecords = false;
    find("raw").replaceChildren();
    say(find("raw-says"), "");
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    find("details-title").focus();
  }

  #goToRecords() {
    find("raw-title").focus({ preventScroll: true });
    find("raw-title").scrollIntoView({ block: "start" });
  }

  #showWays(journeys) {
    this.ways = journeys.slice(0, MOST_WAYS).map((journey) => {
      const way = new Way(this.site);
      way.show(journey);
      return way;
    });
    find("details-ways").replaceChildren(...this.ways.map((way) => way.element));
  }

  #showObject(object) {
    const image = make("img", { alt: `The picture ${nameOf(object.place)}` });
    load(image, pictureUrl(object.place));
    const told = [object.place, object.size && bytes(object.size), object.modified && moment(object.modified), object.reason];
    find("details-ways").replaceChildren(
      make("figure", { class: "frame" }, make("span", { class: "glass" }, image), make("figcaption", {}, told.filter(Boolean).join(" · "))),
    );
  }

  async #ask(traceId, object = null) {
    this.traceId = traceId;
    if (find("raw").children.length === 0) say(find("raw-says"), "Looking on Kafka …");
    try {
      const told = await ask(`/api/journeys/${encodeURIComponent(traceId)}`);
      if (this.traceId === traceId) this.#tell(told);
    } catch (error) {
      if (this.traceId !== traceId) return;
      if (object !== null) this.#showObject(object);
      say(find("raw-says"), error.message);
    }
  }

  #tell({ journeys, notifications, results }) {
    history.replaceState(null, "", `#trace=${encodeURIComponent(this.traceId)}`);
    if (this.ways.length !== Math.min(journeys.length, MOST_WAYS)) this.#showWays(journeys);
    if (journeys.length > 0 && find("details-title").textContent === this.traceId) say(find("details-title"), titleOf(journeys[0]));
    const count = notifications.length + results.length;
    say(find("raw-says"), count === 0 ? "No record of it is there yet." : "");
    find("raw").replaceChildren(
      ...notifications.map((record) => shown("Notification", record)),
      ...results.map((record) => shown("Result", record)),
    );
    // Before them the dialog may have been too short.
    if (this.isAtRecords) this.#goToRecords();
    this.isAtRecords = false;
  }
}

/** A dialog that closes by its button, by Escape, and by a click beside it. */
export function closable(dialog, button) {
  button.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    // What has opened it may have left the page meanwhile.
    if (document.activeElement === document.body) find("main").focus({ preventScroll: true });
  });
}

/** All of a shelf in a dialog. */
export class ShelfDetails {
  constructor({ onOpen }) {
    this.dialog = find("shelf-details");
    this.onOpen = onOpen;
    this.settleTabs = rove(find("shelf-details-pictures"), "button");
    closable(this.dialog, find("shelf-details-close"));
  }

  async open(shelf) {
    say(find("shelf-details-title"), `${shelf.title} · ${shelf.place}`);
    say(find("shelf-details-says"), "Looking …");
    find("shelf-details-pictures").replaceChildren();
    this.dialog.showModal();
    find("shelf-details-title").focus();
    try {
      const { objects, more } = await ask(`/api/shelves/${shelf.number}?limit=100`);
      const { kind, title } = shelf;
      find("shelf-details-pictures").replaceChildren(...objects.map((object) => thumb(object, { kind, title, onOpen: this.onOpen })));
      this.settleTabs();
      say(find("shelf-details-says"), more ? `The newest ${objects.length}; there are more.` : `${objects.length} objects`);
    } catch (error) {
      say(find("shelf-details-says"), error.message);
    }
  }
}

function shown(kind, record) {
  const headers = Object.entries(record.headers);
  const value = typeof record.value === "string" ? record.value : JSON.stringify(record.value, null, 2);
  return make(
    "article",
    { class: "record" },
    make("h4", {}, kind, make("span", { class: "at" }, moment(record.timestamp))),
    make(
      "dl",
      {},
      ...pair("topic", record.topic),
      ...pair("partition, offset", `${record.partition}, ${record.offset}`),
      ...(record.key === null ? [] : pair("key", record.key)),
      ...headers.flatMap(([name, text]) => pair(name, text)),
    ),
    make("pre", { tabindex: 0, role: "region", "aria-label": `${kind}, value` }, value.length > MOST_COLOURED ? value : coloured(value)),
  );
}

const pair = (name, text) => [make("dt", {}, name), make("dd", {}, String(text))];

const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** JSON with its names, texts and numbers told apart. */
function coloured(json) {
  const line = document.createDocumentFragment();
  let end = 0;
  for (const found of json.matchAll(TOKEN)) {
    const [token, text, colon] = found;
    line.append(json.slice(end, found.index));
    line.append(make("span", { class: colon ? "json-name" : text ? "json-text" : "json-number" }, token));
    end = found.index + token.length;
  }
  line.append(json.slice(end));
  return line;
}
