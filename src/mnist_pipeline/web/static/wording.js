// How times, shares, labels and places are written.

/** A duration in milliseconds. */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 0.05) return ms > 0 ? "< 0.1 ms" : "0 ms";
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(ms < 9950 ? 2 : 1)} s`;
  if (ms < 3_570_000) return `${(ms / 60_000).toFixed(1)} min`;
  return `${(ms / 3_600_000).toFixed(1)} h`;
}

/** A share of one; only what is all of it is 100 %. */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  if (share > 0.999 && share < 1) return "> 99.9 %";
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(share * 100).toFixed(share === 0 || share === 1 ? 0 : 1)} %`;
}

const two = (number) => String(number).padStart(2, "0");

/** The local time of day of milliseconds since 1970. */
export function clock(ms, { withMilliseconds = false } = {}) {
  if (ms === null || ms === undefined) return "–";
  const at = new Date(ms);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return withMilliseconds ? `${time}.${String(at.getMilliseconds()).padStart(3, "0")}` : time;
}

/** The time of day, with its day where that is another. */
export function moment(ms) {
  const at = new Date(ms);
  const isToday = at.toDateString() === new Date().toDateString();
  return isToday ? clock(ms) : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(ms)}`;
}

export const bytes = (size) =>
  size < 1024 ? `${size} bytes` : size < 1024 ** 2 ? `${(size / 1024).toFixed(1)} KiB` : `${(size / 1024 ** 2).toFixed(1)} MiB`;

/** What an object is called: the last part of its key. */
export const nameOf = (place) => place.split("/").at(-1) || place;

/** The folder or bucket where an object lies. */
export const folderOf = (place) => place.slice(0, place.lastIndexOf("/") + 1);

export const isFinal = (journey) => !["uploaded", "notified"].includes(journey.state);

/** When a journey has begun, as far as that is known. */
export const begunAt = (journey) => journey.uploaded ?? journey.notified ?? journey.published ?? 0;

/** Milliseconds from the upload to the result; the clocks of two machines may differ. */
export const tookOf = (journey) =>
  journey.uploaded === null || journey.published === null ? null : Math.max(journey.published - journey.uploaded, 0);

/** What a journey is called where it is listed. */
export const titleOf = (journey) => (journey.place === null ? "inline request" : nameOf(journey.place));

/** Its outcome in a word or two. */
export function outcomeOf(journey) {
  if (!isFinal(journey)) return journey.state === "uploaded" ? "uploaded" : "on its way";
  if (journey.state === "rejected") return journey.reason || "rejected";
  if (journey.label !== null) return String(journey.label);
  return journey.labels.length > 0 ? journey.labels.join(", ") : "–";
}

/** Its outcome in a sentence, for people who do not see the page. */
export function sentenceOf(journey, called) {
  const score = journey.score === null ? "" : ` (${percent(journey.score)})`;
  const where = journey.destination === null ? "" : folderOf(journey.destination);
  switch (journey.state) {
    case "uploaded":
      return "Uploaded. Waiting for the store's notification.";
    case "notified":
      return "Kafka has its notification. Waiting for the result.";
    case "rejected":
      return `Rejected: ${journey.message || journey.reason || "no reason is told"}${where ? `. It lies in ${where}` : ""}`;
    case "review":
      return `Taken for ${outcomeOf(journey)}${score}, which is not sure enough: it lies in ${where}, for people to look at.`;
    case "filed":
      return `Its ${called} is ${outcomeOf(journey)}${score}. It is filed in ${where}`;
    default:
      return `Its ${called} is ${outcomeOf(journey)}${score}.`;
  }
}
