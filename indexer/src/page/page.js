// The live page of a region. Foreign text goes into the document as text only, never as markup.
"use strict";

const SHOWN_MAX = 500; // boxes drawn at once; the filter finds the others
const EVENTS_MAX = 100;
const SPARK_MS = 3_600_000;
const SPARKS = [
  ["cpu/load_percent", "CPU load", (v) => `${v.toFixed(0)} %`],
  ["temperature", "Hottest", (v) => celsius(v)],
  ["memory/available_bytes", "Memory free", (v) => bytes(v)],
  ["compute", "Compute time", (v) => micros(v)],
];
const BAD = new Set(["broker-lost", "store-failing", "duplicate-box-id", "too-many-boxes"]);
const ODD = new Set(["sequence-gap", "data-before-birth", "hostile-payload", "clock-wrong", "metrics-dropped", "box-offline"]);

const boxes = new Map(); // id -> the box as the API tells it
const rows = new Map(); // id -> its elements
const events = [];
let overview = null;
let clockOffset = 0; // the indexer's clock minus this browser's
let served = null; // [ms, requests] a moment ago

const $ = (id) => document.getElementById(id);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Sets text only when it changes, so that a selection in it survives.
function put(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

// ---- numbers for people

const integer = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const count = (n) => (n < 100_000 ? integer.format(n) : compact.format(n));
const isNumber = (v) => typeof v === "number";

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${n < 10 && unit > 0 ? n.toFixed(1) : n.toFixed(0)} ${units[unit]}`;
}

// `2.8 of 8.0 GiB`: one unit for both where they share it.
function part(n, all) {
  const [number, unit] = bytes(n).split(" ");
  const [allNumber, allUnit] = bytes(all).split(" ");
  return unit === allUnit ? `${number} of ${allNumber} ${unit}` : `${number} ${unit} of ${allNumber} ${allUnit}`;
}

function micros(us) {
  if (us < 1_000) return `${us.toFixed(0)} µs`;
  if (us < 1_000_000) return `${(us / 1_000).toFixed(us < 10_000 ? 1 : 0)} ms`;
  return `${(us / 1_000_000).toFixed(1)} s`;
}

function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3_600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3_600)} h ${Math.floor((s % 3_600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3_600)} h`;
}

const celsius = (milli) => `${(milli / 1_000).toFixed(0)} °C`;
const ago = (ms) => `${duration((Date.now() + clockOffset - ms) / 1_000)} ago`;

// ---- what a box's metrics mean

function hottest(metrics) {
  let name = null;
  for (const key of Object.keys(metrics)) {
    if (key.startsWith("temperature_millicelsius/") && isNumber(metrics[key])
      && (name === null || metrics[key] > metrics[name])) name = key;
  }
  return name;
}

function models(metrics) {
  const found = new Map();
  for (const [key, value] of Object.entries(metrics)) {
    const parts = key.split("/");
    if (parts[0] !== "inference" || parts.length < 3) continue;
    const model = found.get(parts[1]) ?? { name: parts[1], served: 0, failed: 0 };
    const field = parts.slice(2).join("/");
    if (field === "success" && isNumber(value)) model.served = value;
    else if (field.startsWith("failure/") && isNumber(value)) model.failed += value;
    else if (field === "state") model.state = String(value);
    else if (field === "queue_p50_us" && isNumber(value)) model.queue = value;
    else if (field === "compute_p50_us" && isNumber(value)) model.compute = value;
    found.set(parts[1], model);
  }
  return [...found.values()];
}

// The metric behind a sparkline's name.
function sparkMetric(name, box) {
  if (name === "temperature") return hottest(box.metrics);
  if (name === "compute") {
    return Object.keys(box.metrics).find((key) => key.startsWith("inference/") && key.endsWith("/compute_p50_us")) ?? null;
  }
  return name in box.metrics ? name : null;
}

// ---- drawing

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function gauge() {
  const drawing = svg("svg", { class: "gauge", viewBox: "0 0 100 5", preserveAspectRatio: "none", "aria-hidden": "true" });
  drawing.append(svg("rect", { width: 100, height: 5, rx: 2 }), svg("rect", { width: 0, height: 5, rx: 2 }));
  return drawing;
}

function fill(drawing, share) {
  drawing.lastChild.setAttribute("width", String(Math.max(0, Math.min(100, share))));
}

// A step line: a value holds until the next was reported.
function spark(points, fromMs, toMs) {
  const values = points.map((point) => point.value).filter(isNumber);
  const drawing = svg("svg", { viewBox: "0 0 100 44", preserveAspectRatio: "none", "aria-hidden": "true" });
  if (values.length === 0) return drawing;
  const low = Math.min(...values);
  const high = Math.max(...values);
  const room = high - low || 1;
  const x = (ms) => (100 * (Math.max(ms, fromMs) - fromMs)) / (toMs - fromMs);
  const y = (value) => (high === low ? 22 : 41 - (38 * (value - low)) / room);
  let line = "";
  for (const { at_ms: atMs, value } of points) {
    if (!isNumber(value)) continue;
    const to = `${x(atMs).toFixed(2)}`;
    line += line === "" ? `M${to} ${y(value).toFixed(2)}` : `H${to}V${y(value).toFixed(2)}`;
  }
  drawing.append(svg("path", { d: `${line}H100` }));
  return drawing;
}

function makeRow(id) {
  const item = element("li");
  const details = element("details");
  const summary = element("summary");
  const cell = (className, label) => {
    const made = element("div", `cell ${className}`);
    if (label) made.dataset.label = label;
    summary.append(made);
    return made;
  };
  const who = cell("who");
  const name = element("span", "name", id);
  const board = element("small");
  const warning = element("div", "warning");
  who.append(name, board, warning);
  const up = cell("num", "Up");
  const cpu = cell("num", "CPU");
  const cpuText = element("span");
  const cpuGauge = gauge();
  cpu.append(cpuText, cpuGauge);
  const heat = cell("num", "Hottest");
  const memory = cell("num", "Memory");
  const memoryText = element("span");
  const memoryGauge = gauge();
  memory.append(memoryText, memoryGauge);
  const served = cell("num models", "Models: served · failed · median queue + compute");
  details.append(summary);
  item.append(details);
  const row = { item, details, board, warning, up, cpuText, cpuGauge, heat, memoryText, memoryGauge, served, open: null };
  details.addEventListener("toggle", () => {
    if (details.open) openBox(id, row);
    else closeBox(row);
  });
  return row;
}

const WARNINGS = {
  "duplicate-box-id": "two boxes use this id",
  "clock-wrong": "its clock is wrong",
};

function drawBox(box) {
  let row = rows.get(box.id);
  if (!row) {
    row = makeRow(box.id);
    rows.set(box.id, row);
    place(box.id, row);
  }
  const m = box.metrics;
  row.item.className = box.online ? "online" : "offline";
  const version = box.agent_version ? ` · ${box.agent_version}` : "";
  put(row.board, `${box.board ?? "never born here"}${version}`);
  put(row.warning, box.warnings.map((kind) => WARNINGS[kind] ?? kind).join(", "));
  drawTime(box, row);
  const load = m["cpu/load_percent"];
  put(row.cpuText, isNumber(load) ? `${load.toFixed(0)} %` : "–");
  fill(row.cpuGauge, isNumber(load) ? load : 0);
  const zone = hottest(m);
  put(row.heat, zone ? celsius(m[zone]) : "–");
  row.heat.title = zone ? zone.slice(zone.indexOf("/") + 1) : "";
  row.heat.classList.toggle("hot", zone !== null && m[zone] >= 85_000);
  const total = m["memory/total_bytes"];
  const free = m["memory/available_bytes"];
  const known = isNumber(total) && isNumber(free) && total > 0;
  put(row.memoryText, known ? part(total - free, total) : "–");
  fill(row.memoryGauge, known ? (100 * (total - free)) / total : 0);
  drawModels(row.served, models(m));
  if (row.open) drawOpen(box, row);
}

function drawTime(box, row) {
  const uptime = box.metrics["system/uptime_s"];
  // What the box last said, plus the time since.
  const since = (Date.now() + clockOffset - box.last_seen_ms) / 1_000;
  if (!box.online) put(row.up, `seen ${ago(box.last_seen_ms)}`);
  else put(row.up, isNumber(uptime) ? duration(uptime + since) : "–");
}

function drawModels(target, list) {
  while (target.children.length > Math.max(1, list.length)) target.lastChild.remove();
  while (target.children.length < Math.max(1, list.length)) target.append(element("div", "model"));
  if (list.length === 0) {
    put(target.firstChild, "none");
    return;
  }
  list.forEach((model, at) => {
    const ready = !model.state || model.state === "ready";
    const times = isNumber(model.queue) && isNumber(model.compute)
      ? ` · ${micros(model.queue)} + ${micros(model.compute)}` : "";
    const failed = model.failed > 0 ? ` · ${count(model.failed)} failed` : "";
    const line = target.children[at];
    const text = `${model.name}${ready ? "" : ` (${model.state})`}  ${count(model.served)}${failed}${times}`;
    if (line.dataset.text === text) return;
    line.dataset.text = text;
    line.replaceChildren(
      element("b", "", model.name),
      ready ? ` ${count(model.served)}` : ` ${model.state} `,
      element("span", "failed", failed),
      times,
    );
  });
}

// ---- one box, opened

function openBox(id, row) {
  const about = element("p", "about");
  const sparks = element("div", "sparks");
  const list = element("dl", "metrics");
  const open = element("div", "open");
  open.append(about, sparks, list);
  row.details.append(open);
  row.open = { open, about, sparks, list, drawn: 0 };
  const box = boxes.get(id);
  if (box) drawOpen(box, row);
}

function closeBox(row) {
  row.open?.open.remove();
  row.open = null;
}

function drawOpen(box, row) {
  const { about, list, open } = row.open;
  const skew = isNumber(box.clock_skew_ms) ? `, clock ${box.clock_skew_ms >= 0 ? "+" : ""}${box.clock_skew_ms} ms` : "";
  put(about, `First seen ${new Date(box.first_seen_ms).toLocaleString()}`
    + (box.born_ms ? `, born ${new Date(box.born_ms).toLocaleString()}` : "")
    + `, ${count(box.messages)} messages, ${count(box.requests)} requests${skew}`);
  const names = Object.keys(box.metrics).filter((name) => name !== "system/instance");
  const shown = [...list.children];
  if (shown.length !== names.length || shown.some((line, at) => line.firstChild.textContent !== names[at])) {
    list.replaceChildren(...names.map((name) => {
      const line = element("div");
      line.append(element("dt", "", name), element("dd"));
      return line;
    }));
  }
  names.forEach((name, at) => put(list.children[at].lastChild, valueText(name, box.metrics[name])));
  if (Date.now() - row.open.drawn > 5_000) {
    row.open.drawn = Date.now();
    drawSparks(box, row.open).catch((error) => put(row.open?.sparks ?? open, `history: ${error.message}`));
  }
}

function valueText(name, value) {
  if (!isNumber(value)) return String(value);
  if (name.endsWith("_bytes")) return bytes(value);
  if (name.endsWith("_us")) return micros(value);
  if (name.endsWith("uptime_s")) return duration(value);
  if (name.startsWith("temperature_millicelsius/")) return `${(value / 1_000).toFixed(1)} °C`;
  if (name.endsWith("_percent")) return `${value.toFixed(1)} %`;
  return integer.format(value);
}

async function drawSparks(box, open) {
  const toMs = Date.now() + clockOffset;
  const figures = await Promise.all(SPARKS.map(async ([name, title, format]) => {
    const metric = sparkMetric(name, box);
    if (metric === null) return null;
    const query = new URLSearchParams({ metric, from_ms: String(Math.floor(toMs - SPARK_MS)), limit: "600" });
    const points = await read(`/api/v1/boxes/${encodeURIComponent(box.id)}/history?${query}`);
    const fromMs = points.length > 0 ? Math.max(points[0].at_ms, toMs - SPARK_MS) : toMs - SPARK_MS;
    const figure = element("figure");
    const caption = element("figcaption", "", `${title}, ${duration((toMs - fromMs) / 1_000)}`);
    const last = box.metrics[metric];
    caption.append(element("b", "", isNumber(last) ? format(last) : String(last)));
    const values = points.map((point) => point.value).filter(isNumber);
    const range = values.length > 1 ? `${format(Math.min(...values))} to ${format(Math.max(...values))}` : "";
    figure.append(caption, spark(points, fromMs, toMs), element("small", "num", range));
    return figure;
  }));
  open.sparks.replaceChildren(...figures.filter(Boolean));
}

// ---- the list

function wanted(box) {
  const text = $("filter").value.trim().toLowerCase();
  return text === "" || box.id.includes(text) || (box.board ?? "").toLowerCase().includes(text);
}

// Puts a row where its name belongs.
function place(id, row) {
  const list = $("boxes");
  let low = 0;
  let high = list.children.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list.children[middle].dataset.id < id) low = middle + 1;
    else high = middle;
  }
  row.item.dataset.id = id;
  list.insertBefore(row.item, list.children[low] ?? null);
}

function drawAll() {
  let shown = 0;
  let hidden = 0;
  for (const id of [...boxes.keys()].sort()) {
    const box = boxes.get(id);
    const show = wanted(box) && shown < SHOWN_MAX;
    if (show) {
      shown += 1;
      drawBox(box);
    } else {
      if (wanted(box)) hidden += 1;
      rows.get(id)?.item.remove();
      rows.delete(id);
    }
  }
  $("none").hidden = boxes.size > 0;
  $("more").hidden = hidden === 0 && (shown > 0 || boxes.size === 0);
  put($("more"), hidden > 0 ? `${count(hidden)} more boxes; filter to see them.` : "No box matches the filter.");
  openLinked();
}

// `#box-1` in the address opens that box, so that it can be linked to.
function linkedBox() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return ""; // such as `#%`, which is no box's link
  }
}

let linked = linkedBox();

function openLinked() {
  const row = rows.get(linked);
  if (!row) return;
  linked = "";
  row.details.open = true;
  row.item.scrollIntoView({ block: "start" });
}

function takeBox(box) {
  const known = boxes.get(box.id);
  if (known && known.messages > box.messages && known.last_seen_ms > box.last_seen_ms) return; // older than what is shown
  boxes.set(box.id, box);
  if (!known) return true;
  if (rows.has(box.id)) drawBox(box);
  return false;
}

function drawOverview() {
  const o = overview;
  document.title = `${o.region}: ${o.boxes_online} of ${o.boxes_total} boxes online`;
  put($("region"), o.region);
  put($("none-region"), o.region);
  put($("online"), count(o.boxes_online));
  put($("known"), `of ${count(o.boxes_total)}`);
  put($("requests"), count(o.requests_total));
  put($("failed"), count(o.requests_failed_total));
  const share = o.requests_total > 0 ? (100 * o.requests_failed_total) / o.requests_total : 0;
  put($("failed-share"), o.requests_failed_total > 0 ? `${share < 0.01 ? "< 0.01" : share.toFixed(2)} %` : "");
  put($("messages"), count(o.telemetry_messages));
  put($("refused"), o.hostile_messages > 0 ? `${count(o.hostile_messages)} refused` : "");
  put($("store"), bytes(o.store.used_bytes));
  put($("store-limit"), `of ${bytes(o.store.limit_bytes)}`);
  const trouble = [];
  if (!o.broker_connected) trouble.push("The indexer has lost its broker: whether boxes are online is unknown.");
  if (o.store.failing) trouble.push(`The store cannot write (${o.store.failing}); history is being lost.`);
  $("trouble").hidden = trouble.length === 0;
  put($("trouble"), trouble.join(" "));
}

// Requests a second, over at least ten seconds.
function drawRate() {
  const now = overview.now_ms;
  if (!served) served = { from: [now, overview.requests_total], next: [now, overview.requests_total] };
  if (now - served.next[0] > 10_000) {
    served.from = served.next;
    served.next = [now, overview.requests_total];
  }
  const seconds = (now - served.from[0]) / 1_000;
  if (seconds < 5) return;
  const rate = (overview.requests_total - served.from[1]) / seconds;
  put($("rate"), rate > 0 ? `${rate < 10 ? rate.toFixed(1) : count(Math.round(rate))} a second` : "");
}

// Equal for two tellings of one event.
const sameness = (event) => JSON.stringify([event.at_ms, event.kind, event.box, event.detail]);

function drawEvents() {
  $("events").replaceChildren(...events.slice(0, EVENTS_MAX).map((event) => {
    const tone = BAD.has(event.kind) ? "bad" : ODD.has(event.kind) ? "odd" : "";
    const item = element("li", tone);
    const at = new Date(event.at_ms);
    const time = element("time", "", at.toLocaleTimeString());
    time.dateTime = at.toISOString();
    time.title = at.toLocaleString();
    const subject = event.box ? `${event.box}: ` : "";
    item.append(time, element("span", "kind", event.kind), element("span", "detail", subject + event.detail));
    return item;
  }));
}

// ---- reading

async function read(path) {
  const response = await fetch(path, { headers: { accept: "application/json" } });
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new Error(body.error ?? `${path}: ${response.status}`);
  }
  return response.json();
}

async function readAll() {
  const page = 1_000;
  let after = "";
  for (;;) {
    const list = await read(`/api/v1/boxes?limit=${page}${after && `&after=${after}`}`);
    for (const box of list) takeBox(box);
    if (list.length < page) break;
    after = list[list.length - 1].id;
  }
  const [region, recent] = await Promise.all([read("/api/v1/region"), read(`/api/v1/events?limit=${EVENTS_MAX}`)]);
  takeOverview(region);
  events.splice(0, events.length, ...recent);
  drawAll();
  drawEvents();
}

function takeOverview(region) {
  overview = region;
  clockOffset = region.now_ms - Date.now();
  drawOverview();
  drawRate();
}

let lostSince = null;

function showLink(live) {
  if (live) lostSince = null;
  else lostSince ??= Date.now();
  document.body.classList.toggle("stale", !live);
  $("link").className = live ? "link live" : "link lost";
  drawLink();
}

function drawLink() {
  if (lostSince === null) put($("link"), "live");
  else put($("link"), `connection lost ${duration((Date.now() - lostSince) / 1_000)} ago, trying again; numbers are old`);
}

function listen() {
  const stream = new EventSource("/api/v1/stream");
  const refresh = () => readAll().then(() => showLink(true), () => showLink(false));
  stream.addEventListener("open", refresh);
  stream.addEventListener("resync", refresh);
  stream.addEventListener("update", (message) => {
    const update = JSON.parse(message.data);
    let added = false;
    for (const box of update.boxes) added = takeBox(box) || added;
    takeOverview(update.region);
    if (added) drawAll();
    // An update may tell again what `readAll` has just read.
    const shown = new Set(events.map(sameness));
    const fresh = update.events.filter((event) => !shown.has(sameness(event)));
    if (fresh.length > 0) {
      events.unshift(...fresh.reverse());
      events.length = Math.min(events.length, EVENTS_MAX);
      drawEvents();
    }
  });
  stream.addEventListener("error", () => {
    showLink(false);
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 3_000); // refused: the browser gives up by itself
  });
}

$("filter").addEventListener("input", drawAll);
addEventListener("hashchange", () => {
  linked = linkedBox();
  openLinked();
});
setInterval(() => {
  drawLink();
  for (const [id, row] of rows) drawTime(boxes.get(id), row);
}, 1_000);
listen();
