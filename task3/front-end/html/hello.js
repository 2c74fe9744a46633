// Another port is another origin: the browser lets this page read the answer because the API allows it.
const api = "http://localhost:5252/api/hello";

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
