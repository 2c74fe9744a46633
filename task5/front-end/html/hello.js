// The page and the API have one origin, the proxy.
const api = "/api/hello";

async function hello() {
  const response = await fetch(api);
  if (!response.ok) throw new Error(`${api} answered ${response.status}`);
  return response.text();
}

hello().then(
  (text) => {
    document.getElementById("dynamic-content").textContent = text;
  },
  () => {
    document.getElementById("dynamic-content").textContent = "The API cannot be reached";
    document.getElementById("help").hidden = false;
  },
);
