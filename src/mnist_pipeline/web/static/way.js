// The way of one object: its six steps with their times, what the network saw, how sure it was, where it lies now.

import { make } from "./elements.js";
import { inputUrl, load, pictureUrl } from "./pictures.js";
import { Scores } from "./scores.js";
import { clock, duration, folderOf, isFinal, nameOf, outcomeOf, percent, sentenceOf, titleOf, tookOf } from "./wording.js";

const STEPS = ["Uploaded", "Notified", "Fetched", "Predicted", "Filed", "Published"];
// What is done at once where nothing is uploaded and nothing filed.
const INLINE_STEPS = ["Predicted", "Published"];
const REACHED = { uploaded: 1, notified: 2 };
const COPIED_MS = 1500;

export class Way {
  /** `onRaw` is called for the button that shows the records; without it there is none. */
  constructor(site, { onRaw = null } = {}) {
    this.site = site;
    this.scores = new Scores(site);
    this.journey = null;
    this.verdict = make("p", { class: "verdict" });
    this.where = make("p", { class: "where" });
    this.steps = make("ol", { class: "steps", "aria-label": "Steps" });
    this.spent = make("ul", { class: "spent", "aria-label": "Where the time went" });
    this.spentBar = make("div", { class: "spent-bar", "aria-hidden": "true" });
    this.timing = make("div", { class: "timing", hidden: true }, this.spentBar, this.spent);
    this.picture = frame("As it was uploaded");
    this.input = frame("What the network saw");
    this.input.hidden = !site.shows_input;
    this.input.classList.add("pixels");
    this.traceId = make("code", { class: "trace-id" });
    this.copy = make("button", { type: "button", class: "button small", click: () => this.#copy() }, "Copy");
    this.trace = make("p", { class: "trace" }, make("span", { class: "label" }, "Trace id"), this.traceId, this.copy);
    this.raw = onRaw && make("button", { type: "button", class: "button small", click: () => onRaw(this.journey) }, "Raw event");
    this.foot = make("div", { class: "foot" }, this.trace, this.raw);
    this.element = make(
      "div",
      { class: "way" },
      make("div", { class: "headline" }, this.verdict, this.where),
      this.steps,
      make("div", { class: "evidence" }, make("div", { class: "frames" }, this.picture, this.input), this.scores.element),
      this.timing,
      this.foot,
    );
    this.show(null);
  }

  /** Show a journey as it is now; null: there is none yet. `picture` is an URL of the bytes, where the browser has them. */
  show(journey, picture = null) {
    const isOther = journey === null || journey.trace_id === null || journey.trace_id !== this.journey?.trace_id;
    this.journey = journey;
    this.element.dataset.state = journey?.state ?? "none";
    this.#showVerdict(journey, picture);
    this.#showSteps(journey, isOther);
    this.#showTiming(journey);
    this.#showPictures(journey, picture);
    this.scores.show(journey);
    this.foot.hidden = journey === null;
    this.trace.hidden = !journey?.trace_id;
    this.traceId.textContent = journey?.trace_id ?? "";
    this.copy.setAttribute("aria-label", "Copy the trace id");
    if (this.raw) this.raw.disabled = !journey?.trace_id;
  }

  /** An upload that did not come to be. */
  showError(name, message, picture) {
    this.show(null, picture);
    this.element.dataset.state = "failed";
    this.verdict.replaceChildren(make("strong", {}, "Not taken"));
    this.where.textContent = `${name}: ${message}`;
  }

  #showVerdict(journey, picture) {
    if (journey === null) {
      this.verdict.classList.remove("is-short");
      this.verdict.replaceChildren(make("strong", {}, picture === null ? "Nothing yet" : "On its way"));
      const how = this.site.may_upload ? "Send one, and its steps light up here." : "The steps of what arrives light up here.";
      this.where.textContent = picture === null ? how : "";
      return;
    }
    const done = isFinal(journey);
    const word = journey.state === "rejected" ? "Rejected" : done ? outcomeOf(journey) : "On its way";
    const isShort = done && word.length <= 2;
    this.verdict.classList.toggle("is-short", isShort);
    this.verdict.replaceChildren(make("strong", {}, word));
    if (journey.score !== null) this.verdict.append(make("span", { class: "score" }, percent(journey.score)));
    if (journey.state === "review") this.verdict.append(make("span", { class: "tag" }, "review"));
    const name = make("bdi", { class: "name" }, titleOf(journey));
    const lies = journey.destination && make("bdi", { class: "name" }, folderOf(journey.destination));
    if (journey.state === "rejected") {
      const why = journey.message || journey.reason || "no reason is told";
      this.where.replaceChildren(name, `: ${why}`, ...(lies ? [". It lies in ", lies] : []));
    } else if (done && lies) {
      const isRenamed = nameOf(journey.destination) !== nameOf(journey.place ?? journey.destination);
      const as = isRenamed ? [" as ", make("bdi", { class: "name" }, nameOf(journey.destination))] : [];
      const why = journey.state === "review" ? ": not sure enough, for people to look at" : "";
      this.where.replaceChildren(name, " is filed in ", lies, ...as, why);
    } else if (done) {
      this.where.replaceChildren(name);
    } else {
      this.where.replaceChildren(name, ": ", sentenceOf(journey, this.site.called));
    }
  }

  #showSteps(journey, isOther) {
    const names = journey !== null && journey.place === null ? INLINE_STEPS : STEPS;
    const reached = journey === null ? 0 : REACHED[journey.state] ?? names.length;
    const times = timesOf(journey);
    if (isOther || this.steps.children.length !== names.length) {
      this.steps.replaceChildren(...names.map(() => make("li", {}, make("span", { class: "dot" }), make("b"), make("span", { class: "time" }), make("span", { class: "unseen" }))));
    }
    this.steps.style.setProperty("--steps", names.length);
    names.forEach((name, at) => {
      const step = this.steps.children[at];
      const isRefused = journey?.state === "rejected" && name === "Predicted";
      const state = at < reached ? (isRefused ? "refused" : "done") : at === reached && journey !== null ? "next" : "ahead";
      step.dataset.state = state;
      step.style.setProperty("--at", Math.max(at - 2, 0));
      const [, title, time, said] = step.children;
      title.textContent = isRefused ? "Rejected" : name;
      time.textContent = isRefused ? journey.reason : times[name] ?? "";
      said.textContent = { done: "", refused: "", next: "(waiting)", ahead: "(not yet)" }[state];
    });
  }

  #showTiming(journey) {
    const parts = journey === null ? [] : partsOf(journey);
    this.timing.hidden = parts.length === 0;
    const sum = parts.reduce((all, [, ms]) => all + ms, 0);
    this.spentBar.replaceChildren(
      ...parts.map(([name, ms]) => {
        const piece = make("span", { "data-part": name, title: `${name} ${duration(ms)}` });
        piece.style.flexGrow = sum > 0 ? Math.max(ms / sum, 0.004) : 1;
        return piece;
      }),
    );
    this.spent.replaceChildren(
      ...parts.map(([name, ms]) => make("li", { "data-part": name }, make("span", { class: "label" }, name), make("span", { class: "time" }, duration(ms)))),
    );
  }

  #showPictures(journey, picture) {
    const isFiled = journey !== null && isFinal(journey) && journey.destination !== null;
    showIn(this.picture, picture ?? (isFiled ? pictureUrl(journey.destination) : null), journey === null ? "Your picture" : `The picture ${titleOf(journey)}`);
    const isSeen = isFiled && journey.state !== "rejected" && this.site.shows_input;
    const shape = this.site.input_shape.filter((side) => side > 4).join(" by ");
    showIn(this.input, isSeen ? inputUrl(journey.destination) : null, `The ${shape} picture that the network saw`);
    this.input.querySelector("figcaption").textContent =
      journey?.state === "rejected" ? "The network saw nothing" : "What the network saw";
    this.element.classList.toggle("is-inline", journey !== null && journey.place === null);
  }

  async #copy() {
    const text = this.traceId.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Only pages by https or from this machine have a clipboard.
      getSelection().selectAllChildren(this.traceId);
      if (!document.execCommand("copy")) return;
    }
    this.copy.textContent = "Copied";
    setTimeout(() => (this.copy.textContent = "Copy"), COPIED_MS);
  }
}

function frame(caption) {
  return make("figure", { class: "frame" }, make("span", { class: "glass" }), make("figcaption", {}, caption));
}

/** Show a picture in a frame; one that is there already stays. */
function showIn(figure, url, alt) {
  const glass = figure.querySelector(".glass");
  if (glass.dataset.url === (url ?? "")) {
    if (url !== null) glass.firstElementChild.alt = alt;
    return;
  }
  glass.dataset.url = url ?? "";
  delete glass.dataset.missing;
  if (url === null) {
    glass.replaceChildren();
    return;
  }
  const image = make("img", { alt });
  glass.replaceChildren(image);
  load(image, url);
}

/** The time beside each step: of a moment how long after the upload, of work how long it took. */
function timesOf(journey) {
  if (journey === null) return {};
  const { uploaded, notified, published, stages } = journey;
  const after = (at) => {
    if (at === null) return "";
    return uploaded === null ? clock(at, { withMilliseconds: true }) : `after ${duration(Math.max(at - uploaded, 0))}`;
  };
  const took = (name) => (stages[name] === undefined ? "" : `took ${duration(stages[name])}`);
  return {
    Uploaded: uploaded === null ? "" : clock(uploaded, { withMilliseconds: true }),
    Notified: after(notified),
    Fetched: took("fetch"),
    Predicted: took("predict"),
    Filed: took("file"),
    Published: after(published),
  };
}

const STAGES = [
  ["wait", "wait"],
  ["fetch", "fetch"],
  ["decode", "decode"],
  ["predict", "predict"],
  ["file", "file"],
];

/** What the time from the upload to the result was spent on; what no stage tells is the delivery, and the publishing. */
function partsOf(journey) {
  const stages = STAGES.filter(([name]) => journey.stages[name] !== undefined).map(([name, title]) => [title, journey.stages[name]]);
  const took = tookOf(journey);
  if (stages.length === 0 || !isFinal(journey)) return [];
  if (took === null || journey.notified === null) return stages;
  const notify = Math.min(Math.max(journey.notified - journey.uploaded, 0), took);
  const inside = stages.reduce((sum, [, ms]) => sum + ms, 0);
  return [["notify", notify], ["deliver, publish", Math.max(took - notify - inside, 0)], ...stages];
}
