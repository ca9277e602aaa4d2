// REPORT = {charts: {key: {variant: {data, layout, slider?}}}, arms: {arm: colour}}; the page contains plotly.
const NARROW = 720; // pixels of a chart, below which two panels are stacked: also at 768 pixels and in print
const MAP = 190, FRAME = 120; // pixels: least width of a heat map, and titles and legend around it (FRAME of heat_maps.py)
const BELOW = 0.9999; // of a colour bar above maps: at 1 plotly moves the titles of all axes up, over the tick labels
const PAPER = { width: 680, height: 900, map: 105 }; // pixels of a printed chart, within A4 and letter; its least map
const root = document.documentElement;
const off = new Set(); // arms that are switched off
const charts = [...document.querySelectorAll("figure.chart")];
const stale = new Set(charts), near = new Set(); // not drawn as the controls say; in the window or close to it
const idle = () => new Promise((next) => { if (window.requestIdleCallback) requestIdleCallback(next, { timeout: 1000 }); else setTimeout(next, 50); });
let printing = false, drawingRest = false;
let revision = 0; // without a new one Plotly.react of equal data gives the axes the range of an empty chart

const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

function legendRows(data, width) { // plotly gives every entry of the legend the width of the longest one
  const names = [...new Set(data.filter((trace) => trace.showlegend !== false).map((trace) => trace.name || ""))].map((name) => name.split("<br>"));
  const lines = Math.max(0, ...names.map((name) => name.length)), letters = Math.max(0, ...names.flat().map((line) => line.length));
  return lines * Math.ceil(names.length / Math.max(1, Math.floor(width / (55 + 7 * letters))));
}

function inLines(name, width) { // plotly cuts off what is wider than the chart
  const most = Math.max(12, Math.floor((width - 55) / 7)), lines = [""];
  for (const part of (name || "").split(/(?= · )|(?<=:)|(?<=,)(?=\S)/)) {
    if (lines.at(-1) && (lines.at(-1) + part).trimEnd().length > most) lines.push("");
    lines[lines.length - 1] += part;
  }
  return lines.map((line) => line.trim()).join("<br>");
}

function themed(layout, data, width) {
  const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line"), exponentformat: "power", automargin: true };
  const stacked = layout.grid && width < NARROW; // panels one below the other
  if (stacked) layout.grid = { rows: 2, columns: 1, pattern: "independent", ygap: 0.3 };
  const result = {
    height: (stacked ? 640 : printing ? 300 : 360) + 20 * legendRows(data, width), margin: { l: 60, r: 16, t: 34, b: 46 }, hovermode: "closest",
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", maxheight: 0.7, tracegroupgap: 0 }, ...layout,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--ink"), family: getComputedStyle(document.body).fontFamily, size: 12 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--ink") }, // above the panels: margin.t
    hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
  };
  for (const key of Object.keys(result)) if (/^[xy]axis\d*$/.test(key)) result[key] = { ...axis, ...result[key], ...whole(result[key], data), ...decades(result[key], key, data) };
  return printing ? onPaper(result) : result;
}

function onPaper(layout) { // one page; layers that would be printed over each other have fewer ticks
  const height = Math.min(layout.height, PAPER.height), result = { ...layout, width: PAPER.width, height };
  for (const key of Object.keys(result)) if (/^[xy]axis\d*$/.test(key) && result[key].dtick && result[key].type === "category") {
    result[key] = { ...result[key], dtick: undefined, nticks: 40 };
  }
  return result;
}

function inRows(layout, data, width, least = MAP, tallest = Infinity) { // maps that do not fit side by side: a grid, each with its own y axis
  const names = Object.keys(layout).filter((key) => /^xaxis\d*$/.test(key)), columns = Math.max(1, Math.floor((width - FRAME) / least));
  if (columns >= names.length) return { layout, data };
  const rows = Math.ceil(names.length / columns), height = Math.min(layout.height - FRAME, (tallest - FRAME) / rows - 76);
  const row = height + 76, all = rows * row - 76; // 76: title of the x axis; that of the last row is in the margin
  const result = { ...layout, height: all + FRAME };
  names.forEach((name, place) => {
    const suffix = name.slice(5), column = place % columns, top = 1 - Math.floor(place / columns) * row / all;
    result[name] = { ...layout[name], domain: [column / columns, (column + 1) / columns - (columns > 1 ? 0.02 : 0)], anchor: "y" + suffix };
    result["yaxis" + suffix] = { ...layout.yaxis, anchor: "x" + suffix, domain: [Math.max(0, top - height / all), top], showticklabels: column === 0, ...(column && { title: {} }) };
  });
  if (layout.coloraxis) result.coloraxis = { ...layout.coloraxis, colorbar: { ...layout.coloraxis.colorbar, orientation: "h", x: 0.5, xanchor: "center", y: BELOW, yanchor: "bottom", len: 1 } };
  return { layout: result, data: data.map((trace) => ({ ...trace, yaxis: "y" + (trace.xaxis || "x").slice(1) })) };
}

function decades(axis, key, data) { // ticks of a logarithmic axis: powers of ten, if there are two
  if (axis.type !== "log" || axis.tickvals) return {};
  const values = axis.range ? axis.range.map((end) => 10 ** end) : data.flatMap((trace) => trace[key[0]] || []).filter((value) => value > 0);
  return Math.ceil(Math.log10(Math.min(...values))) < Math.floor(Math.log10(Math.max(...values))) ? { dtick: 1, tickfont: { size: 9.6 } } : {}; // plotly draws powers 1.25 times as large
}

function whole(axis, data) { // epochs are whole numbers: no ticks between them where there are few
  const last = Math.max(...data.flatMap((trace) => trace.type === "scatter" || trace.type === "heatmap" ? trace.x : []));
  return axis.tickformat === "d" && last <= 12 ? { dtick: 1 } : {};
}

const variantOf = (chart) => {
  const select = chart.querySelector("select"), variants = REPORT.charts[chart.dataset.key];
  return variants[select ? select.value : Object.keys(variants)[0]];
};
const shown = (trace) => !(trace.meta && off.has(trace.meta.arm));

function atEpoch(chart, figure, panels) { // the slider: a line in the heat maps over epochs; profiles and frames of its epoch
  const range = chart.querySelector("input[type=range]"), place = Number(range.value), epoch = figure.slider[place];
  chart.querySelector("output").textContent = String(epoch);
  range.setAttribute("aria-valuetext", "epoch " + epoch);
  const data = panels.map((trace) => ({
    ...trace, ...(trace.meta.profile && { x: trace.meta.profile[place] }), ...(trace.meta.frames && { z: trace.meta.frames[place] }),
  }));
  const shapes = panels.filter((trace) => trace.type === "heatmap" && !trace.meta.frames && shown(trace)).map((trace) => ({
    type: "line", xref: trace.xaxis, x0: epoch, x1: epoch, yref: (trace.yaxis || "y") + " domain", y0: 0, y1: 1, line: { color: "#ffffff", width: 2, dash: "dot" },
  }));
  return { data, shapes };
}

async function draw(chart) {
  stale.delete(chart);
  const figure = variantOf(chart), range = chart.querySelector("input[type=range]"), plot = chart.querySelector(".plot");
  const width = printing ? PAPER.width : plot.clientWidth, fit = printing ? [PAPER.map, PAPER.height] : [];
  let { layout, data } = figure.slider ? inRows(figure.layout, figure.data, width, ...fit) : figure, more = {};
  if (figure.slider) {
    if (range.max !== String(figure.slider.length - 1) || !range.dataset.set) {
      range.max = String(figure.slider.length - 1); range.value = range.max; range.dataset.set = "1";
    }
    const made = atEpoch(chart, figure, data);
    data = made.data; more = { shapes: made.shapes };
  }
  chart.querySelector(".epochs").hidden = !figure.slider;
  data = data.map((trace) => ({ ...trace, visible: shown(trace) }));
  const named = data.map((trace) => (trace.name ? { ...trace, name: inLines(trace.name, width) } : trace));
  const drawn = Plotly.react(plot, named, themed({ ...structuredClone(layout), ...more, datarevision: ++revision }, named, width),
    { responsive: !printing, displaylogo: false, showSendToCloud: false, plotlyServerURL: "", modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] });
  describe(chart, layout, data);
  await drawn;
}
async function drawNear() { // the first chart is shown before the second one is drawn
  for (const chart of charts) if (stale.has(chart) && near.has(chart)) {
    await draw(chart);
    await new Promise((next) => { setTimeout(next); });
  }
  drawRest();
}
async function drawRest() { // those out of sight, one at a time when the page is idle: for find, screenshots and short waits
  if (drawingRest) return;
  drawingRest = true;
  for (;;) {
    await idle();
    const chart = charts.find((each) => stale.has(each));
    if (!chart || printing) break;
    await draw(chart);
  }
  drawingRest = false;
}
const drawEvery = () => Promise.all(charts.filter((chart) => stale.has(chart)).map(draw));
function redraw() { // charts out of sight are drawn last
  for (const chart of charts) stale.add(chart);
  return drawNear();
}

for (const chart of charts) {
  const select = chart.querySelector("select");
  if (select) select.addEventListener("change", () => draw(chart));
  chart.querySelector("input[type=range]").addEventListener("input", () => draw(chart));
  chart.querySelector(".numbers").addEventListener("toggle", () => draw(chart));
  chart.querySelector(".plot").style.minHeight = (variantOf(chart).layout.height || 380) + "px"; // so that the page does not jump
}

for (const [arm, hue] of Object.entries(REPORT.arms)) {
  const label = document.createElement("label"), box = document.createElement("input"), swatch = document.createElement("span");
  box.type = "checkbox"; box.checked = true; box.value = arm; swatch.className = "swatch"; swatch.style.background = hue;
  box.addEventListener("change", () => {
    if (box.checked) off.delete(arm); else off.add(arm);
    for (const cell of document.querySelectorAll("[data-arm]")) if (cell.dataset.arm === arm) switched(cell).classList.toggle("off", !box.checked);
    redraw();
  });
  label.append(box, swatch, arm);
  document.getElementById("arms").append(label);
}

function switched(cell) { // the whole row of an arm; the cell alone where every arm has a column
  const cells = [...cell.parentNode.children];
  return cells.every((each) => each.dataset.arm === cell.dataset.arm) ? cell.parentNode : cell;
}

const themes = ["system", "light", "dark"], button = document.getElementById("theme");
button.addEventListener("click", () => {
  const next = themes[(themes.indexOf(root.dataset.theme || "system") + 1) % themes.length];
  root.dataset.theme = next; // page.css has rules for light and dark; "system" matches neither
  button.textContent = "theme: " + next;
  redraw();
});
let drawnWidth = innerWidth, waiting;
addEventListener("resize", () => { // plotly adapts the width only; draw() adapts legend and panels
  clearTimeout(waiting);
  if (Math.abs(innerWidth - drawnWidth) > 40) waiting = setTimeout(() => { drawnWidth = innerWidth; redraw(); }, 200);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
function print(begins) { // all charts in the width of the paper and all tables open, before the pages are counted
  if (begins) for (const each of document.querySelectorAll("details:not(.numbers)")) each.open = true;
  if (printing !== begins) for (const chart of charts) stale.add(chart);
  printing = begins;
  return begins ? drawEvery() : drawNear();
}
addEventListener("beforeprint", () => print(true));
addEventListener("afterprint", () => print(false));
matchMedia("print").addEventListener("change", (media) => { // the colours are those of the medium
  for (const chart of charts) stale.add(chart);
  print(media.matches);
});

const quoted = (text) => (/[",\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);
function csv(table) {
  return [...table.querySelectorAll("tr")].map((row) =>
    [...row.children].map((cell) => quoted(cell.dataset.value ?? cell.textContent)).join(",")).join("\n") + "\n";
}
async function copy(text) {
  if (navigator.clipboard) try { return await navigator.clipboard.writeText(text); } catch { /* not allowed: use execCommand */ }
  const area = document.createElement("textarea");
  area.value = text; document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
}
for (const each of document.querySelectorAll("button.copy")) each.addEventListener("click", async () => {
  const where = each.closest(".numbers, .table");
  await copy(csv(where.querySelector("table")));
  each.textContent = document.getElementById("said").textContent = "copied";
  setTimeout(() => { each.textContent = "copy as CSV"; document.getElementById("said").textContent = ""; }, 1200);
});

const watch = new IntersectionObserver(async (entries) => {
  for (const entry of entries) if (entry.isIntersecting) near.add(entry.target); else near.delete(entry.target);
  await drawNear();
  root.dataset.drawn = "yes"; // what is in view
}, { rootMargin: "600px 0px" });
for (const chart of charts) watch.observe(chart);
if (!charts.length) root.dataset.drawn = "yes";
