// The site's server-sent events, for as long as the page is open.

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 15_000;

/**
 * Follow a stream; each event's data go to the listener of its name.
 * A browser connects again by itself where the connection breaks, but not where the server refuses it: then this does.
 */
export function follow(url, { listeners, onOpen, onLost }) {
  let pause = FIRST_PAUSE_MS;

  function connect() {
    const source = new EventSource(url);
    source.onopen = () => {
      pause = FIRST_PAUSE_MS;
      onOpen();
    };
    source.onerror = () => {
      onLost();
      if (source.readyState !== EventSource.CLOSED) return;
      setTimeout(connect, pause);
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    };
    for (const [name, listener] of Object.entries(listeners)) {
      source.addEventListener(name, (event) => listener(JSON.parse(event.data)));
    }
  }

  connect();
}

/** JSON of the site; an error's message is the server's sentence. */
export async function ask(url, options = {}) {
  let answer;
  try {
    answer = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The page's server cannot be reached.");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, told.detail ?? `The page's server answers ${answer.status}.`);
  return told;
}

/** What was asked was not done; `status` is the answer's, 0 where there is none. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}
