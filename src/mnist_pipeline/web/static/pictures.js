// Pictures from the site. However many come by, only a few are asked for at once, the newest first; and none that is no
// longer on the page.

// A browser has six connections to a site: some are for what people do.
const AT_ONCE = 3;
const MOST_WAITING = 200;
// A page that begins has many to show; afterwards a busy site's are too many to be looked at.
const BURST = 150;
const A_SECOND = 20;
const AGAIN_MS = 100;

const waiting = [];
let loading = 0;
let isDue = false;
let allowed = BURST;
let countedAt = performance.now();

/** Where an object's bytes are. */
export const pictureUrl = (place) => `/api/pictures?place=${encodeURIComponent(place)}`;

/** Where the picture is that the network saw of an object. */
export const inputUrl = (place) => `/api/input?place=${encodeURIComponent(place)}`;

/** Show a picture in an `img` once it is its turn; where it is none, its parent gets `data-missing`, and says what it is. */
export function load(image, url) {
  waiting.push([image, url]);
  if (waiting.length > MOST_WAITING) waiting.shift();
  // By then it is on the page.
  comeBack(0);
}

function comeBack(ms) {
  if (isDue) return;
  isDue = true;
  setTimeout(next, ms);
}

const suffixOf = (url) => /\.(\w{1,5})$/.exec(url)?.[1].toLowerCase() ?? "file";

function next() {
  isDue = false;
  const now = performance.now();
  allowed = Math.min(allowed + ((now - countedAt) / 1000) * A_SECOND, BURST);
  countedAt = now;
  while (loading < AT_ONCE && waiting.length > 0) {
    if (allowed < 1) {
      comeBack(AGAIN_MS);
      return;
    }
    const [image, url] = waiting.pop();
    if (!image.isConnected) continue;
    allowed -= 1;
    loading += 1;
    const end = (isThere) => () => {
      loading -= 1;
      if (isThere) delete image.parentElement?.dataset.missing;
      else if (image.parentElement) image.parentElement.dataset.missing = suffixOf(url);
      comeBack(0);
    };
    image.onload = end(true);
    image.onerror = end(false);
    image.src = url;
  }
}
