// The second tab: what the server does, from /health and /metrics.

import { make, number, of } from "/text.js";

const EVERY = 2000; // milliseconds
const KEPT = 150; // rates in the plot: five minutes
const past = []; // {time, values} of looks at the server
let timer = 0;

// Looks again and again while shown.
export function watchServer(shown, headers) {
  clearInterval(timer);
  if (!shown) return;
  const look = () => refresh(headers()).catch((error) => { of("server-note").textContent = error.message; });
  timer = setInterval(look, EVERY);
  look();
}

// Prometheus' text: Map of name to [{labels, value}].
function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const parts = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!parts) continue;
    const labels = Object.fromEntries([...(parts[2] ?? "").matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]));
    if (!found.has(parts[1])) found.set(parts[1], []);
    found.get(parts[1]).push({ labels, value: Number(parts[3]) });
  }
  return found;
}

async function refresh(headers) {
  const [health, metrics] = await Promise.all([fetch("/health"), fetch("/metrics", { headers })]);
  const state = await health.json();
  if (!metrics.ok) throw new Error((await metrics.json()).error.message);
  const values = parse(await metrics.text());
  past.push({ time: performance.now(), values });
  if (past.length > KEPT) past.shift();
  of("server-note").textContent = state.status === "ok" ? `${state.model} is served.` : `The server is ${state.status}.`;
  drawNumbers(values);
  drawRates();
  drawFirst(values.get("planish_time_to_first_token_seconds_bucket") ?? []);
  drawRequests(values.get("planish_requests_total") ?? []);
}

const value = (values, name) => values.get(`planish_${name}`)?.[0].value ?? 0;

// What a counter gained a second between two looks.
function rate(name, one, other) {
  const seconds = (other.time - one.time) / 1000;
  return seconds > 0 ? (value(other.values, name) - value(one.values, name)) / seconds : 0;
}

function drawNumbers(values) {
  const at = (name) => value(values, name);
  const [one, other] = [past.at(-2) ?? past.at(-1), past.at(-1)];
  const cached = at("prompt_tokens_total") ? (100 * at("prompt_tokens_cached_total")) / at("prompt_tokens_total") : 0;
  const megabytes = (bytes) => number(bytes / 1e6, bytes < 1e7 ? 1 : 0);
  const limit = at("cache_limit_bytes");
  const cards = [
    ["Answers on their way", number(at("requests_running")), `${number(at("requests_waiting"))} wait`],
    ["Tokens of answers a second", number(rate("generation_tokens_total", one, other), 1), `${number(at("generation_tokens_total"))} so far`],
    ["Tokens of prompts a second", number(rate("prompt_tokens_total", one, other), 1), `${number(at("prompt_tokens_total"))} so far`],
    ["Of prompts, remembered", `${number(cached, 1)} %`, `${number(at("prompt_tokens_cached_total"))} tokens`],
    ["Memory of sequences", `${megabytes(at("cache_used_bytes"))} MB`, limit ? `of ${megabytes(limit)} MB` : ""],
    ["Paused for want of memory", number(at("preemptions_total")), "answers"],
  ];
  of("numbers").replaceChildren(...cards.map(([name, big, small]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, big, make("span", { class: "of" }, small)))));
}

function drawRates() {
  const rates = past.slice(1).map((look, index) => rate("generation_tokens_total", past[index], look));
  const most = Math.max(0, ...rates);
  const x = (index) => 600 - (rates.length - 1 - index) * (600 / (KEPT - 2));
  const points = rates.map((rate, index) => `${x(index).toFixed(1)},${(116 - (112 * rate) / Math.max(most, 1)).toFixed(1)}`);
  const area = points.length ? [`${x(0).toFixed(1)},120`, ...points, "600,120"] : [];
  const now = rates.at(-1) ?? 0;
  const words = rates.length ? `${number(now, 1)} now, ${number(most, 1)} at most in ${number((rates.length * EVERY) / 1000)} s` : "One moment.";
  of("rates").replaceChildren(make("title", {}, words), make("polygon", { points: area.join(" ") }), make("polyline", { points: points.join(" ") }));
  of("rates-note").textContent = words;
}

function drawFirst(buckets) {
  const all = buckets.at(-1)?.value ?? 0;
  let before = 0;
  const rows = buckets.map(({ labels, value: sum }) => {
    const count = sum - before;
    before = sum;
    const words = labels.le === "+Inf" ? "more" : `${labels.le} s`;
    const bar = make("progress", { max: Math.max(all, 1), value: count, "aria-label": `${count} of ${all}` });
    return make("tr", {}, make("th", { scope: "row" }, words), make("td", {}, number(count)), make("td", {}, bar));
  });
  of("first").tBodies[0].replaceChildren(...rows);
}

function drawRequests(counts) {
  const rows = counts.map(({ labels, value: count }) =>
    make("tr", {}, make("td", {}, labels.route), make("td", {}, labels.status), make("td", {}, number(count))));
  of("requests").tBodies[0].replaceChildren(...rows);
}
