// The API is on the machine that this page comes from, and another port is another origin. The browser lets the page
// read the response because the API allows it (CORS).
const api = `http://${location.hostname}:5252/api/hello`;

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
