// Lists the notes, stores new ones and deletes them.

// Relative, so that the page works below a prefix.
const API = "api/notes";
// Longer than the proxy waits, 11 s for a response and 3 s for retries: its 504 says more than silence.
const PATIENCE_MS = 15000;
// The proxy's own retries have failed, and the request may have been carried out.
const RETRIED = ["no response", 502, 503, 504];
const ATTEMPTS = 5;
// Between attempts, unless Retry-After says otherwise.
const PAUSE_S = 1;

const element = (id) => document.getElementById(id);
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
const say = (text) => (element("status").textContent = text);
const fields = ["title", "text"].map(element);

let next = ""; // query string of the next page
let loading; // the last load of a page
let trouble = ""; // why that fails
let id = newId(); // of the note in the form

// A random UUID (version 4). crypto.randomUUID() is missing over plain HTTP, except on localhost.
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40; // version
  bytes[8] = (bytes[8] & 0x3f) | 0x80; // variant
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

// ---- Requests

// Never throws: no response is an outcome, too, and each failure has an `error` to show.
async function send(method, url, content) {
  try {
    const response = await fetch(url, {
      method,
      headers: content && { "Content-Type": "application/json" },
      body: content && JSON.stringify(content),
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const { ok, status, headers } = response;
    // 204 has no body, and something in front of the proxy may respond with HTML.
    const body = headers.get("Content-Type")?.startsWith("application/json") ? await response.json() : {};
    return { ok, status, pause: Number(headers.get("Retry-After")), error: `The status is ${status}.`, ...body };
  } catch {
    return { ok: false, status: "no response", error: "There is no response." };
  }
}

// For idempotent methods only: the same request may be carried out several times.
async function sendWithRetries(method, url, content) {
  for (let attempt = 1; ; attempt++) {
    const response = await send(method, url, content);
    if (attempt === ATTEMPTS || !RETRIED.includes(response.status)) return response;
    say(`${response.error} Retrying.`);
    await sleep(response.pause || PAUSE_S);
  }
}

// ---- The list

// Adds the next page, however long it takes. Returns the new items.
async function load() {
  element("more").disabled = true;
  let page;
  while (!(page = await send("GET", API + next)).notes) {
    const why = `The list cannot be loaded: ${page.error} Retrying every second.`;
    // Only when it changes: screen readers read it aloud, and it would replace what the form has to say.
    if (why !== trouble) say((trouble = why));
    await sleep(PAUSE_S);
  }
  if (element("status").textContent === trouble) say("");
  trouble = "";
  const items = page.notes.map(newItem);
  element("notes").append(...items);
  next = page.next;
  element("more").disabled = false;
  element("more").hidden = next === null;
  return items;
}

function newItem(note) {
  const item = element("note").content.firstElementChild.cloneNode(true);
  const [title, text, time, button] = item.children;
  item.dataset.id = note.id;
  title.textContent = note.title;
  text.textContent = note.text;
  time.dateTime = note.created_at;
  time.textContent = new Date(note.created_at).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
  button.ariaLabel = `Delete ${note.title}`;
  button.addEventListener("click", () => remove(item));
  return item;
}

async function remove(item) {
  const { ok, error } = await sendWithRetries("DELETE", `${API}/${item.dataset.id}`);
  say(ok ? "Deleted." : `Not deleted: ${error}`);
  if (!ok) return;
  // The focus would be lost. Not to the next button: a key held down would delete one note after the other.
  const neighbour = item.nextElementSibling ?? item.previousElementSibling ?? element("title");
  if (item.contains(document.activeElement)) neighbour.focus();
  item.remove();
}

// ---- The form

async function store() {
  busy(true);
  const [title, text] = fields.map((field) => field.value);
  const response = await sendWithRetries("PUT", `${API}/${id}`, { title, text });
  for (const field of fields) {
    const error = response.fields?.[field.id];
    field.ariaInvalid = error ? "true" : null;
    element(`${field.id}-error`).textContent = error ?? "";
  }
  if (response.ok) {
    // A list still on its way may contain the note already.
    await loading;
    document.querySelector(`[data-id="${id}"]`)?.remove();
    element("notes").prepend(newItem(response));
    element("form").reset();
    // Not after a failure: the note may have arrived, and then storing it again must replace it.
    id = newId();
  }
  say(response.ok ? "Stored." : `Not stored: ${response.error}`);
  busy(false);
  // The disabled button has lost the focus. Someone who is in the list by now stays there.
  const target = fields.find((field) => field.ariaInvalid) ?? element(response.ok ? "title" : "store");
  if (!element("notes").contains(document.activeElement)) target.focus();
}

// Read-only: what is typed meanwhile would be lost with the reset.
function busy(is) {
  element("store").disabled = is;
  for (const field of fields) field.readOnly = is;
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault(); // the Content-Security-Policy forbids it
  store();
});
element("more").addEventListener("click", async () => {
  loading = load();
  const [first] = await loading;
  // The disabled button has lost the focus: go on with what is new.
  if (document.activeElement === document.body) first?.focus();
});
loading = load();
