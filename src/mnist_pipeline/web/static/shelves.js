// The places where objects come to lie, and the newest on each.

import { arrange, make, rove, say } from "./elements.js";
import { load, pictureUrl } from "./pictures.js";
import { ask } from "./stream.js";
import { isFinal, moment, nameOf } from "./wording.js";

const MOST_SHOWN = 10;
const MOST_KEPT = 100;
const ASKED = 24;
/** More shelves than these are looked at only once they are scrolled to. */
const MANY = 24;

export class Shelves {
  /** `onOpen` is called with an object of a shelf, `onAll` with a shelf of which all is to be seen. */
  constructor({ site, main, aside, filter, onOpen, onAll }) {
    this.site = site;
    this.all = site.shelves.map((described, number) => new Shelf({ site, described, number, onOpen, onAll }));
    const labels = this.all.filter((shelf) => shelf.kind === "label");
    main.replaceChildren(...labels.map((shelf) => shelf.element));
    aside.replaceChildren(...this.all.filter((shelf) => shelf.kind !== "label").map((shelf) => shelf.element));
    this.isMany = labels.length > MANY;
    if (this.isMany) {
      main.classList.add("is-many");
      main.tabIndex = 0;
      main.setAttribute("role", "region");
      main.setAttribute("aria-label", `Shelves of ${labels.length} labels`);
      this.#filterBy(filter, labels);
      this.watcher = new IntersectionObserver((entries) => entries.filter((one) => one.isIntersecting).forEach(({ target }) => this.#look(target)), {
        rootMargin: "100px",
      });
    }
  }

  /** Look at all of them anew. */
  reload() {
    for (const shelf of this.all) {
      shelf.forget();
      if (this.isMany && shelf.kind === "label") {
        this.watcher.unobserve(shelf.element);
        this.watcher.observe(shelf.element);
      } else shelf.look();
    }
  }

  /** Journeys have come to their ends: put their objects where they lie. */
  take(journeys) {
    const changed = new Set();
    for (const journey of journeys) {
      if (!isFinal(journey) || journey.destination === null) continue;
      const shelf = this.#of(journey.destination);
      if (shelf?.put({ place: journey.destination, trace_id: journey.trace_id, reason: journey.reason || null, modified: journey.published ?? 0 })) changed.add(shelf);
    }
    for (const shelf of changed) shelf.draw();
  }

  /** The shelf of a place: the one that fits it most closely. */
  #of(place) {
    let found = null;
    for (const shelf of this.all) {
      if (place.startsWith(shelf.place) && (found === null || shelf.place.length > found.place.length)) found = shelf;
    }
    return found;
  }

  #look(element) {
    this.watcher.unobserve(element);
    this.all.find((shelf) => shelf.element === element).look();
  }

  #filterBy({ field, input, says }, labels) {
    field.hidden = false;
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      for (const shelf of labels) shelf.element.hidden = !shelf.title.toLowerCase().includes(wanted);
      const count = labels.filter((shelf) => !shelf.element.hidden).length;
      say(says, wanted === "" ? "" : `${count} of ${labels.length}`);
    });
  }
}

class Shelf {
  constructor({ site, described, number, onOpen, onAll }) {
    Object.assign(this, described);
    this.site = site;
    this.number = number;
    this.onOpen = onOpen;
    this.objects = new Map();
    this.hasMore = false;
    this.title = { label: String(this.label ?? this.place), review: "Review", rejected: "Rejected" }[this.kind];
    this.heading = make("h3", { class: this.title.length > 2 ? "is-word" : null }, make("bdi", {}, this.title));
    this.count = make("span", { class: "count" });
    this.list = make("ul", { class: "pictures", "aria-label": `Newest in ${this.place}` });
    this.says = make("p", { class: "says" });
    this.more = make("button", { type: "button", class: "more", hidden: true, "aria-label": `See all of ${this.title}`, click: () => onAll(this) }, "See all");
    const isPlaceTold = this.title !== this.place;
    this.element = make(
      "article",
      { class: `shelf is-${this.kind}`, title: this.place },
      make("header", {}, this.heading, isPlaceTold ? make("bdi", { class: "place" }, this.place) : null, this.count),
      this.list,
      this.says,
      this.more,
    );
    this.settleTabs = rove(this.list, "button");
    this.thumbs = new Map();
    this.draw();
  }

  forget() {
    this.objects.clear();
    this.thumbs.clear();
    this.hasMore = false;
    this.draw();
  }

  /** What lies on it. */
  async look() {
    try {
      const told = await ask(`/api/shelves/${this.number}?limit=${ASKED}`);
      this.hasMore = told.more;
      for (const object of told.objects) this.put(object);
      this.trouble = "";
    } catch (error) {
      this.trouble = error.message;
    }
    this.draw();
  }

  /** Put an object there; false where it is there already. */
  put(object) {
    const known = this.objects.get(object.place);
    if (known !== undefined && (known.reason !== null || object.reason === null)) return false;
    this.objects.set(object.place, object);
    if (this.objects.size > MOST_KEPT) {
      const oldest = this.#newestFirst().slice(MOST_KEPT);
      for (const one of oldest) this.objects.delete(one.place);
      this.hasMore = true;
    }
    return true;
  }

  draw() {
    const shown = this.#newestFirst().slice(0, MOST_SHOWN);
    const thumbs = new Map(shown.map((object) => [object.place, this.thumbs.get(object.place) ?? thumb(object, this)]));
    this.thumbs = thumbs;
    arrange(this.list, [...thumbs.values()]);
    this.settleTabs();
    const count = this.objects.size;
    this.count.textContent = count === 0 ? "" : `${count}${this.hasMore ? "+" : ""}`;
    this.count.title = this.count.textContent && `${this.count.textContent} objects`;
    this.element.classList.toggle("is-empty", count === 0);
    this.list.hidden = count === 0;
    this.says.textContent = this.trouble || (count === 0 ? EMPTY[this.kind] : "");
    this.more.hidden = count <= MOST_SHOWN && !this.hasMore;
  }

  #newestFirst() {
    return [...this.objects.values()].sort((one, other) => other.modified - one.modified);
  }
}

const EMPTY = {
  label: "Empty",
  review: "Nothing: what the network is not sure of comes here, for people to look at.",
  rejected: "Nothing: what can never be classified comes here, with its reason.",
};

/** A picture of an object, which opens its way. */
export function thumb(object, { kind, title, onOpen }) {
  const image = make("img", { alt: "", width: 40, height: 40 });
  const why = kind === "rejected" && object.reason ? make("span", { class: "reason" }, object.reason) : null;
  const when = object.modified ? `, ${moment(object.modified)}` : "";
  const name = `${nameOf(object.place)}, ${object.reason || title}${when}`;
  const button = make(
    "button",
    { type: "button", "aria-label": name, title: name, click: () => onOpen(object) },
    make("span", { class: "glass" }, image),
    why,
  );
  load(image, pictureUrl(object.place));
  return make("li", {}, button);
}
