// Asks the API and counts which replica answered.
const api = "/api/hello";
const answers = new Map();

async function hello() {
  const response = await fetch(api);
  if (!response.ok) throw new Error(`${api} answered ${response.status}`);
  const replica = response.headers.get("X-Served-By");
  answers.set(replica, (answers.get(replica) ?? 0) + 1);
  return response.text();
}

function show(greeting) {
  document.getElementById("dynamic-content").textContent = greeting;
  const rows = [...answers].sort().map((columns) => {
    const row = document.createElement("tr");
    for (const column of columns) row.insertCell().textContent = column;
    return row;
  });
  document.getElementById("replicas").replaceChildren(...rows);
}

async function ask(times) {
  try {
    for (let i = 0; i < times; i++) show(await hello());
  } catch {
    show("The API cannot be reached");
  }
}

document.getElementById("ask").addEventListener("click", () => ask(10));
ask(2);
