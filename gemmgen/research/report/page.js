"use strict";

const PAGE_ROWS = 200;
const COMPARISON = /^(<=|>=|<|>|=)\s*(-?[\d.]+(?:e-?\d+)?)$/;
const WORDS = {
  us_spread: "spread, us", best: "over the best", predicted_us: "predicted, us", tflops: "TFLOP/s", gbps: "GB/s",
  sm_clock_mhz: "clock, MHz", watts: "power, W", celsius: "temperature, °C", build_seconds: "build, s", state: "L2",
  label: "kernel", kernel: "name", events_us: "by CUDA events, us", equal_bits: "equal bits",
  longest_ffma_row: "longest row of FFMA", ffma: "FFMA", ffma_yielding: "FFMA that yield", planned: "plan",
};

async function unpack() {
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function spelled(value, digits) {
  if (value === undefined || value === null) return "";
  return typeof value === "number" && digits !== null && digits !== undefined ? value.toFixed(digits) : String(value);
}

// --- One result ---------------------------------------------------------------------------------

function panelOf(data) {
  const panel = document.getElementById("panel");
  const body = document.getElementById("panel-body");
  const tabs = panel.querySelector(".tabs");

  function facts(row) {
    const table = element("table");
    for (const [name, value] of Object.entries(row)) {
      if (name === "text") continue;
      const line = element("tr");
      line.append(element("td", WORDS[name] ?? name), element("td", String(value)));
      table.append(line);
    }
    return table;
  }

  function show(pages, name) {
    for (const tab of tabs.children) tab.setAttribute("aria-selected", String(tab.textContent === name));
    body.replaceChildren(pages[name]());
    body.scrollTop = 0;
  }

  function open(number) {
    const row = data.rows[number];
    const texts = data.texts[row.text] ?? {};
    const pages = { Result: () => facts(row) };
    for (const [title, name] of [["Spec", "spec"], ["Plan", "plan"], ["Kernel", "kernel"]]) {
      if (texts[name]) pages[title] = () => element("pre", texts[name]);
    }
    const name = [row.problem, row.candidate, row.label].filter(Boolean).join(" · ");
    document.getElementById("panel-title").textContent = name;
    tabs.replaceChildren(
      ...Object.keys(pages).map((title) => {
        const tab = element("button", title, { role: "tab" });
        tab.addEventListener("click", () => show(pages, title));
        return tab;
      }),
    );
    panel.hidden = false;
    show(pages, pages.Spec ? "Spec" : "Result");
  }

  const close = () => { panel.hidden = true; };
  document.getElementById("close").addEventListener("click", close);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
  return open;
}

// --- The table ----------------------------------------------------------------------------------

function predicate(text) {
  const asked = text.trim().toLowerCase();
  if (!asked) return null;
  const found = asked.match(COMPARISON);
  if (found) {
    const bound = Number(found[2]);
    const holds = {
      "<": (v) => v < bound, ">": (v) => v > bound, "<=": (v) => v <= bound, ">=": (v) => v >= bound,
      "=": (v) => v === bound,
    }[found[1]];
    return (value) => typeof value === "number" && holds(value);
  }
  if (asked.startsWith("!")) return (value) => !String(value ?? "").toLowerCase().includes(asked.slice(1));
  return (value) => String(value ?? "").toLowerCase().includes(asked);
}

function table(data, open) {
  const titles = document.getElementById("titles");
  const filters = document.getElementById("filters");
  const rows = document.getElementById("rows");
  const more = document.getElementById("more");
  const used = data.columns.filter((column) => data.rows.some((row) => row[column.name] !== undefined));
  const asked = {};
  let sorted = { name: null, rising: true };
  let shown = PAGE_ROWS;

  function order(left, right) {
    const [a, b] = [data.rows[left][sorted.name], data.rows[right][sorted.name]];
    if (a === b) return left - right;
    if (a === undefined) return 1;
    if (b === undefined) return -1;
    const sign = typeof a === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
    return sorted.rising ? sign : -sign;
  }

  function draw() {
    const tests = Object.entries(asked).map(([name, text]) => [name, predicate(text)]).filter(([, test]) => test);
    const left = data.rows.map((_, number) => number)
      .filter((number) => tests.every(([name, test]) => test(data.rows[number][name])));
    if (sorted.name) left.sort(order);
    rows.replaceChildren(...left.slice(0, shown).map((number) => {
      const line = element("tr");
      for (const column of used) {
        const text = spelled(data.rows[number][column.name], column.digits);
        const cell = element("td", text, column.digits === null ? { title: text } : { class: "number" });
        line.append(cell);
      }
      line.addEventListener("click", () => {
        rows.querySelector(".open")?.classList.remove("open");
        line.classList.add("open");
        open(number);
      });
      return line;
    }));
    document.getElementById("count").textContent = `${left.length} of ${data.rows.length} results.`;
    more.hidden = left.length <= shown;
  }

  for (const column of used) {
    const title = element("th", column.title, column.digits === null ? {} : { class: "number" });
    title.addEventListener("click", () => {
      sorted = { name: column.name, rising: sorted.name === column.name ? !sorted.rising : true };
      for (const other of titles.children) other.removeAttribute("aria-sort");
      title.setAttribute("aria-sort", sorted.rising ? "ascending" : "descending");
      draw();
    });
    titles.append(title);
    const filter = element("input", undefined, { "aria-label": `filter ${column.title}`, "data-column": column.name });
    filter.addEventListener("input", () => { asked[column.name] = filter.value; shown = PAGE_ROWS; draw(); });
    const cell = element("th");
    cell.append(filter);
    filters.append(cell);
  }
  more.addEventListener("click", () => { shown += PAGE_ROWS; draw(); });
  draw();
}

// --- The page -----------------------------------------------------------------------------------

async function main() {
  const data = await unpack();
  const open = panelOf(data);
  table(data, open);
  const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  for (const place of document.querySelectorAll(".plot")) {
    const figure = data.figures[place.dataset.key];
    await Plotly.newPlot(place, figure.data, figure.layout, options);
    place.on("plotly_click", (event) => {
      const number = event.points.map((point) => point.customdata).find((value) => typeof value === "number");
      if (number !== undefined) open(number);
    });
  }
  document.body.dataset.ready = "yes";
}

main();
