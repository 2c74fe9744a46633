// Sends requests to the API and shows which replica responds.

// Relative, so that the page works below a prefix.
const API = "api/hello";
// A browser opens at most this many connections per host. More requests would wait in the browser, which would
// look like latency.
const CONNECTIONS = 6;
// The proxy responds within about a second, whatever happens behind it.
const PATIENCE_MS = 5000;
// A replica that has not responded for this long, while others have, is gone. It must have missed two rounds, too:
// with many replicas and few requests, a round takes longer.
const GONE_MS = 5000;
const MISSED_TURNS = 2;
// A replica is removed from the board after being gone for this long.
const FORGOTTEN_MS = 60000;
// Shares are those of the last rounds, so that a new replica soon has an equal share.
const TURNS = 10;
// Number of latencies kept per replica.
const HISTORY = 30;
// Backoff when nothing responds: the first pause, doubled each time, and the longest.
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8000;
// Interval between updates of the figures, slow enough to read, and the time window of the rate.
const SHOW_MS = 200;
const RATE_MS = 2000;
// Minimum scale of the histories, so that noise does not look like peaks.
const FULL_SCALE_MS = 10;

// Positions around the proxy, clockwise: columns and rows of the wide board, and of the narrow one.
const WIDE = [[0, 1], [0, 0], [1, 0], [2, 0], [3, 0], [4, 0], [4, 1], [4, 2], [3, 2], [2, 2], [1, 2], [0, 2]];
const NARROW = [[1, 0], [2, 0], [2, 1], [2, 2], [2, 3], [2, 4], [1, 4], [0, 4], [0, 3], [0, 2], [0, 1], [0, 0]];
const wide = matchMedia("(min-width: 48rem)");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const element = (id) => document.getElementById(id);

// ---- State

let running = true;
let rate = 5; // requests per second
let pause = 0; // until the next request, in ms, while nothing responds
let trouble = ""; // why
let timer;
let waiting = 0; // requests waiting for a free connection
let asking = 0; // requests in flight
let requests = 0; // completed requests
let errors = 0; // failed requests
let turns = []; // replicas of the last responses
let samples = []; // number of requests over time
const replicas = new Map(); // by name, in order of their first response

const present = () => [...replicas.values()].filter((replica) => !replica.gone);

// ---- Requests

function schedule() {
  // Clears an interval, too: both kinds of timer share one list.
  clearTimeout(timer);
  if (!running || document.hidden) return;
  timer = pause ? setTimeout(retry, pause) : setInterval(send, 1000 / rate, 1);
}

function retry() {
  pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
  send(1);
  schedule();
}

function send(count) {
  waiting += count;
  // A hidden tab sends nothing.
  while (waiting > 0 && asking < CONNECTIONS && !document.hidden) {
    waiting--;
    ask();
  }
}

async function ask() {
  asking++;
  const begin = performance.now();
  try {
    const response = await fetch(API, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    const text = await response.text();
    const name = response.headers.get("X-Served-By");
    if (name) answered(name, performance.now() - begin);
    else silence("No replica answers.");
    if (response.ok) element("dynamic-content").textContent = text;
    else errors++;
  } catch {
    silence("The proxy does not answer.");
    errors++;
  }
  requests++;
  asking--;
  send(0);
}

function silence(what) {
  trouble = what;
  waiting = 0;
  if (pause) return;
  pause = FIRST_PAUSE_MS;
  schedule();
}

function answered(name, latency) {
  const now = performance.now();
  if (!replicas.has(name)) replicas.set(name, newReplica(name));
  const replica = replicas.get(name);
  replica.requests++;
  replica.latencies = [...replica.latencies, latency].slice(-HISTORY);
  replica.answered = now;
  replica.missed = 0;
  replica.gone = false;
  const others = present().filter((other) => other !== replica);
  for (const other of others) {
    other.missed++;
    other.gone = now - other.answered > GONE_MS && other.missed > MISSED_TURNS * (others.length + 1);
  }
  turns = [...turns, replica].slice(-TURNS * present().length);
  if (pause) {
    pause = 0;
    schedule();
  }
  arrange();
  light(replica);
}

function reset() {
  requests = errors = 0;
  turns = [];
  samples = [];
  replicas.clear();
  arrange();
  show();
}

// ---- Display

function newReplica(name) {
  const card = element("replica").content.firstElementChild.cloneNode(true);
  card.querySelector("h2").textContent = name;
  const way = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const lit = way.cloneNode();
  lit.classList.add("lit");
  return { requests: 0, latencies: [], card, way, lit };
}

// Positions the replicas around the proxy, as far apart as possible.
function arrange() {
  const now = performance.now();
  for (const [name, { gone, answered }] of replicas) {
    if (gone && (now - answered > FORGOTTEN_MS || replicas.size > WIDE.length)) replicas.delete(name);
  }
  const board = [...replicas.values()].slice(0, WIDE.length);
  const places = wide.matches ? WIDE : NARROW;
  const [columns, rows] = wide.matches ? [5, 3] : [3, 5];
  const ways = element("ways");
  ways.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
  for (const [i, { card, way, lit }] of board.entries()) {
    const place = (i * places.length) / board.length;
    // Half a position is rounded towards the third and the ninth; otherwise eight replicas would not be symmetric.
    const [column, row] = places[Math.round(place + (3 - (place % 6)) / 100)];
    card.style.setProperty("--column", column);
    card.style.setProperty("--row", row);
    const ends = { x1: columns / 2, y1: rows / 2, x2: column + 0.5, y2: row + 0.5 };
    for (const [end, value] of Object.entries(ends)) {
      way.setAttribute(end, value);
      lit.setAttribute(end, value);
    }
  }
  keep(ways, board.flatMap(({ way, lit }) => [way, lit]));
  keep(element("replicas"), board.map(({ card }) => card));
}

// Sets the children of `parent`. Existing ones are not touched, so that they move to a new position.
function keep(parent, children) {
  for (const child of [...parent.children]) if (!children.includes(child)) child.remove();
  for (const child of children) if (!child.isConnected) parent.append(child);
}

function light({ card, way, lit }) {
  for (const last of document.querySelectorAll(".last")) last.classList.remove("last");
  card.classList.add("last");
  way.classList.add("last");
  if (!calm.matches) lit.animate([{ opacity: 1 }, { opacity: 0 }], { duration: 600 });
}

function show() {
  // Short enough for the smallest card.
  const whole = (number) => number.toLocaleString("en", { notation: number < 10000 ? "standard" : "compact" });
  const ms = (number) => `${number.toFixed(number < 10 ? 1 : 0)} ms`;
  const count = present().length;
  const counted = turns.slice(turns.length % Math.max(count, 1));
  const shares = new Map([...replicas.values()].map((replica) => [replica, 0]));
  for (const replica of counted) {
    // Skip replicas that have been removed.
    if (shares.has(replica)) shares.set(replica, shares.get(replica) + 1 / counted.length);
  }
  const largest = Math.max(...shares.values());
  const fullScale = Math.max(FULL_SCALE_MS, ...[...replicas.values()].flatMap(({ latencies }) => latencies));
  for (const [replica, share] of shares) {
    const { card, latencies, gone } = replica;
    const is = (what, text) => (card.querySelector(`[data-is=${what}]`).textContent = text);
    is("share", `${(100 * share).toFixed(1)} %`);
    is("requests", whole(replica.requests));
    is("now", ms(latencies.at(-1)));
    is("median", ms([...latencies].sort((a, b) => a - b)[Math.floor(latencies.length / 2)]));
    card.classList.toggle("gone", gone);
    card.querySelector(".state").textContent = gone ? "gone" : pause ? "silent" : "answers";
    card.querySelector(".share div").style.width = `${(100 * share) / largest}%`;
    const points = latencies.map((latency, i) => `${i},${1 - latency / fullScale}`);
    card.querySelector("polyline").setAttribute("points", points.join(" "));
  }

  samples = [...samples, [performance.now(), requests]].slice(-RATE_MS / SHOW_MS - 1);
  const [[begin, before], [end, after]] = [samples[0], samples.at(-1)];
  element("requests").textContent = whole(requests);
  element("errors").textContent = whole(errors);
  element("per-second").textContent = end > begin ? Math.round((1000 * (after - before)) / (end - begin)) : 0;

  // Read aloud by screen readers, so write it only when it changes.
  const status = element("status");
  const text = sentence(count, replicas.size - count);
  if (status.textContent !== text) status.textContent = text;
  status.classList.toggle("trouble", pause > 0);
}

function sentence(count, gone) {
  if (!running) return "Paused.";
  if (pause) return `${trouble} This page keeps trying and recovers by itself.`;
  if (count === 0) return "";
  const answer = count === 1 ? "1 replica answers." : `${count} replicas answer in turn.`;
  const shown = count > WIDE.length ? ` ${WIDE.length} of them are shown.` : "";
  return gone ? `${answer} ${gone} gone.` : answer + shown;
}

// ---- Controls

element("run").addEventListener("click", ({ target }) => {
  running = !running;
  target.textContent = running ? "Pause" : "Start";
  schedule();
  show();
});
element("rate").addEventListener("input", ({ target }) => {
  rate = target.valueAsNumber;
  element("rate-value").value = rate;
  schedule();
});
element("burst").addEventListener("click", () => send(100));
element("reset").addEventListener("click", reset);
document.addEventListener("visibilitychange", schedule);
wide.addEventListener("change", arrange);

setInterval(show, SHOW_MS);
send(1);
schedule();
