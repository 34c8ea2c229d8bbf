// The live page: puts its parts together, and hands on to them what the site tells.

import { Arrivals } from "./arrivals.js";
import { Details, ShelfDetails } from "./details.js";
import { Drawing } from "./drawing.js";
import { find, make, say } from "./elements.js";
import { showFigures } from "./figures.js";
import { Shelves } from "./shelves.js";
import { ask, follow } from "./stream.js";
import { refuseDropped, takeDropped, Uploads } from "./uploads.js";
import { Way } from "./way.js";
import { begunAt, clock, isFinal, sentenceOf } from "./wording.js";

const MOST_JOURNEYS = 400;
// So many at once are a busy site: then the page is drawn less often, and always has time for whoever uses it.
const MANY = 20;
const BUSY_PAUSE_MS = 400;
const LATEST_MS = 5000;
const AGAIN_MS = 2000;
// At its start a server has not reached Kafka for a moment.
const PATIENCE_MS = 1500;

start();

async function start() {
  const site = await siteOnceThere();
  const page = new Page(site);
  describe(site);
  page.follow();
  find("main").dataset.ready = "";
}

async function siteOnceThere() {
  for (;;) {
    try {
      return await ask("/api/site");
    } catch (error) {
      showPulse("lost", "Not connected");
      showNotice("The page's server does not answer.", `${error.message} Trying again by itself.`);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      showNotice();
    }
  }
}

function describe(site) {
  const [one, many] = site.is_drawable ? ["digit", "digits"] : ["picture", "pictures"];
  say(find("site-name"), site.name === "mnist" ? "" : site.name);
  document.title = `${site.name}, live`;
  if (site.may_upload) {
    say(find("title"), site.is_drawable ? "Draw a digit, and watch where it goes" : "Send a picture, and watch where it goes");
    say(
      find("lead"),
      `It is uploaded as any user's file. MinIO tells Kafka, the transformer fetches it, asks the predictor, files it by its ${site.called}, and publishes the result.`,
    );
  } else {
    say(find("title"), `Watch where the ${many} go`);
    say(find("lead"), `Each ${one} is fetched when MinIO tells of it, shown to the predictor, filed by its ${site.called}, and its result published. ${site.why_read_only ?? ""}`);
  }
  find("sending").hidden = !site.may_upload;
  find("stage").classList.toggle("is-alone", !site.may_upload);
  find("drawing").hidden = !site.is_drawable;
  say(find("sending-title"), site.is_drawable ? "Draw a digit" : "Send a picture");
  find("files").accept = site.suffixes.join(",");
  find("sending").classList.toggle("is-zone", !site.is_drawable);
  find("files-label").classList.toggle("primary", !site.is_drawable);
}

class Page {
  constructor(site) {
    this.site = site;
    this.journeys = new Map();
    this.changed = new Map();
    this.isPaused = false;
    this.isDue = false;
    this.drawnAt = 0;
    this.latestAt = -LATEST_MS;
    this.upload = null;
    this.details = new Details(site);
    const onObject = (object) => this.details.openObject(object);
    this.shelfDetails = new ShelfDetails({ onOpen: onObject });
    this.way = new Way(site, { onRaw: (journey) => this.details.open(journey, { atRecords: true }) });
    find("way").append(this.way.element);
    this.arrivals = new Arrivals({
      body: find("arrivals"),
      empty: find("arrivals-empty"),
      onOpen: (journey) => this.details.open(journey),
    });
    this.shelves = new Shelves({
      site,
      main: find("shelves"),
      aside: find("shelves-aside"),
      filter: { field: find("shelves-filter"), input: find("shelf-name"), says: find("shelves-says") },
      onOpen: onObject,
      onAll: (shelf) => this.shelfDetails.open(shelf),
    });
    this.#followLatest();
    this.#takeUploads();
    this.#takeSearches();
    find("pause").addEventListener("click", () => this.#pause(!this.isPaused));
    this.arrivals.show([]);
  }

  /** Follow the site for as long as the page is open. */
  follow() {
    let wasLost = false;
    follow("/api/live", {
      listeners: {
        begin: ({ is_resumed }) => is_resumed || this.#begin(),
        journey: (journey) => this.#take(journey),
        status: (status) => this.#showStatus(status),
        figures: showFigures,
      },
      onOpen: () => {
        this.isLost = false;
        this.#showConnection();
        if (wasLost) this.#checkSite();
        wasLost = false;
      },
      onLost: () => {
        this.isLost = wasLost = true;
        this.#showConnection();
      },
    });
    this.#searchAddress();
    addEventListener("hashchange", () => this.#searchAddress());
  }

  /** All that was shown may be stale. */
  #begin() {
    this.journeys.clear();
    this.changed.clear();
    this.shelves.reload();
    this.#draw();
  }

  #take(journey) {
    // The last to change is the last to go.
    this.journeys.delete(journey.id);
    this.journeys.set(journey.id, journey);
    this.changed.delete(journey.id);
    this.changed.set(journey.id, journey);
    for (const map of [this.journeys, this.changed]) if (map.size > MOST_JOURNEYS) map.delete(map.keys().next().value);
    if (this.isDue) return;
    this.isDue = true;
    const pause = this.changed.size > MANY || this.isBusy ? BUSY_PAUSE_MS : 0;
    // A page that nobody sees draws nothing.
    setTimeout(() => requestAnimationFrame(() => this.#draw()), Math.max(this.drawnAt + pause - performance.now(), 0));
  }

  #draw() {
    const changed = [...this.changed.values()];
    this.isDue = false;
    this.isBusy = changed.length > MANY;
    this.drawnAt = performance.now();
    this.changed.clear();
    this.uploads?.update(changed);
    this.details.update(changed);
    if (this.isPaused) return;
    this.shelves.take(changed);
    this.arrivals.show(this.journeys.values());
    if (this.upload === null) this.#showLatest();
  }

  #pause(isPaused) {
    this.isPaused = isPaused;
    find("pause").setAttribute("aria-pressed", String(isPaused));
    say(find("pause"), isPaused ? "Go on" : "Pause");
    if (!isPaused) {
      this.shelves.take(this.journeys.values());
      this.#draw();
    }
  }

  /** Where nothing of one's own is to be seen, the newest of the others' is; not each of a busy site's. */
  #showLatest() {
    if (this.upload !== null || this.isPaused || performance.now() - this.latestAt < LATEST_MS) return;
    const latest = [...this.journeys.values()].filter(isFinal).sort((one, other) => begunAt(other) - begunAt(one))[0];
    if (latest === undefined || latest === this.way.journey) return;
    this.latestAt = performance.now();
    say(find("way-title"), "The latest arrival");
    this.way.show(latest);
  }

  #followLatest() {
    say(find("way-title"), "Its way");
    setInterval(() => document.hidden || this.#showLatest(), LATEST_MS);
  }

  #takeUploads() {
    const site = this.site;
    if (!site.may_upload) {
      refuseDropped();
      return;
    }
    this.uploads = new Uploads({
      site,
      list: find("sent"),
      journeyOf: (traceId) => [...this.journeys.values()].find((journey) => journey.trace_id === traceId),
      onChange: (upload, isNew) => this.#showUpload(upload, isNew),
      onChoose: (upload) => this.#choose(upload),
    });
    find("files").addEventListener("change", () => {
      this.#takeFiles(find("files").files);
      find("files").value = "";
    });
    takeDropped({
      veil: find("drop"),
      onFiles: (files) => this.#takeFiles(files),
      onPasted: (file) => this.uploads.take(file),
    });
    if (site.is_drawable) this.#takeDrawings();
  }

  #takeFiles(files) {
    const left = this.uploads.takeFiles(files);
    if (left > 0) say(find("sending-says"), `${left} files too many at a time were left out.`);
  }

  #takeDrawings() {
    const send = async () => {
      if (drawing.isEmpty || drawing.isSent) {
        say(find("sending-says"), drawing.isSent ? "This drawing was sent: draw another." : "Draw a digit first.");
        find("canvas").focus({ preventScroll: true });
        return;
      }
      drawing.markSent();
      this.uploads.take(await drawing.toBlob());
    };
    const drawing = new Drawing({
      canvas: find("canvas"),
      pen: find("pen"),
      invitation: find("invitation"),
      says: find("pen-says"),
      onSend: send,
      onBegin: () => say(find("sending-says"), ""),
    });
    find("send").addEventListener("click", send);
    find("clear").addEventListener("click", () => {
      drawing.clear();
      say(find("sending-says"), "");
    });
  }

  #showUpload(upload, isNew) {
    if (isNew || upload === this.upload) this.#choose(upload);
    // On a phone it is below the board.
    const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth";
    if (isNew) this.way.steps.scrollIntoView({ block: "nearest", behavior });
  }

  #choose(upload) {
    this.upload = upload;
    this.uploads.choose(upload);
    say(find("way-title"), "Its way");
    if (upload.error) {
      this.way.showError(upload.name, upload.error, upload.picture);
      say(find("way-says"), `Not taken: ${upload.error}`);
    } else if (upload.journey === null) {
      this.way.show(null, upload.picture);
      say(find("way-says"), "Sending …");
    } else {
      this.way.show(upload.journey, upload.picture);
      say(find("way-says"), sentenceOf(upload.journey, this.site.called));
    }
  }

  #takeSearches() {
    find("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#search(find("trace-id").value.trim());
    });
    find("trace-id").addEventListener("input", () => say(find("search-says"), ""));
  }

  /** A page's address may tell of one. */
  #searchAddress() {
    const traceId = new URLSearchParams(location.hash.slice(1)).get("trace");
    if (traceId) this.#search(traceId);
  }

  async #search(traceId) {
    if (traceId === "") return;
    say(find("search-says"), "Looking …");
    try {
      await this.details.search(traceId);
      say(find("search-says"), "");
    } catch (error) {
      say(find("search-says"), error.message);
    }
  }

  #showStatus(status) {
    this.status = status;
    clearTimeout(this.patience);
    this.isPatient = true;
    if (status.kafka !== "ok") {
      this.patience = setTimeout(() => {
        this.isPatient = false;
        this.#showConnection();
      }, PATIENCE_MS);
    }
    this.#showConnection();
  }

  #showConnection() {
    const isAway = this.status !== undefined && this.status.kafka !== "ok";
    if (this.isLost) {
      showPulse("lost", "Reconnecting");
      showNotice("The connection to the page's server is lost.", "It is tried again by itself; what is shown may be old.");
    } else if (isAway && !this.isPatient) {
      showPulse("away", "Kafka is away");
      showNotice(`Kafka is away since ${clock(this.status.since)}.`, `${this.status.says} The page goes on by itself once Kafka is back.`);
    } else {
      showPulse(isAway ? "connecting" : "live", isAway ? "Connecting" : "Live");
      showNotice();
    }
  }

  /** Another site may be at this address now. */
  async #checkSite() {
    const site = await ask("/api/site").catch(() => this.site);
    if (JSON.stringify(site) !== JSON.stringify(this.site)) location.reload();
  }
}

function showPulse(state, text) {
  find("pulse").dataset.state = state;
  say(find("pulse-says"), text);
}

function showNotice(title = "", text = "") {
  const notice = find("notice");
  if (notice.textContent === (title && `${title} ${text}`)) return;
  notice.replaceChildren(...(title ? [make("p", {}, make("strong", {}, title), ` ${text}`)] : []));
}
