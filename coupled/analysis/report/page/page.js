"use strict";
// REPORT = {charts: {key: {variant: {data, layout, slider?}}}, arms: {arm: colour}}; the page contains plotly.
const NARROW = 640; // pixels of a chart
const root = document.documentElement;
const off = new Set(); // arms that are switched off
const charts = [...document.querySelectorAll("figure.chart")];

const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

function legendRows(data, width) { // plotly gives every entry of the legend the width of the longest one
  const names = [...new Set(data.filter((trace) => trace.showlegend !== false).map((trace) => trace.name || ""))];
  return Math.ceil(names.length / Math.max(1, Math.floor(width / (55 + 7 * Math.max(...names.map((name) => name.length))))));
}

function themed(layout, data, width) {
  const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
  const stacked = layout.grid && width < NARROW; // panels one below the other
  if (stacked) layout.grid = { rows: 2, columns: 1, pattern: "independent", ygap: 0.3 };
  const result = {
    height: (stacked ? 640 : 360) + 20 * legendRows(data, width), margin: { l: 60, r: 16, t: 12, b: 46 }, hovermode: "closest",
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", maxheight: 0.7 }, ...layout,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--ink"), family: getComputedStyle(document.body).fontFamily, size: 12 },
    hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
  };
  for (const key of Object.keys(result)) if (/^[xy]axis\d*$/.test(key)) result[key] = { ...axis, ...result[key], ...whole(result[key], data) };
  return result;
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

function atEpoch(chart, figure) { // the slider: a line in the heat maps over epochs; profiles and frames of its epoch
  const range = chart.querySelector("input[type=range]"), place = Number(range.value), epoch = figure.slider[place];
  chart.querySelector("output").textContent = String(epoch);
  const data = figure.data.map((trace) => ({
    ...trace, ...(trace.meta.profile && { x: trace.meta.profile[place] }), ...(trace.meta.frames && { z: trace.meta.frames[place] }),
  }));
  const shapes = figure.data.filter((trace) => trace.type === "heatmap" && !trace.meta.frames && shown(trace)).map((trace) => ({
    type: "line", xref: trace.xaxis, x0: epoch, x1: epoch, yref: "paper", y0: 0, y1: 1, line: { color: "#ffffff", width: 2, dash: "dot" },
  }));
  return { data, shapes };
}

function draw(chart) {
  const figure = variantOf(chart), range = chart.querySelector("input[type=range]");
  let data = figure.data, more = {};
  if (figure.slider) {
    if (range.max !== String(figure.slider.length - 1) || !range.dataset.set) {
      range.max = String(figure.slider.length - 1); range.value = range.max; range.dataset.set = "1";
    }
    const made = atEpoch(chart, figure);
    data = made.data; more = { shapes: made.shapes };
  }
  chart.querySelector(".epochs").hidden = !figure.slider;
  data = data.map((trace) => ({ ...trace, visible: shown(trace) }));
  return Plotly.react(chart.querySelector(".plot"), data, themed({ ...structuredClone(figure.layout), ...more }, figure.data, chart.querySelector(".plot").clientWidth),
    { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] });
}
const drawAll = () => Promise.all(charts.map(draw));

for (const chart of charts) {
  const select = chart.querySelector("select");
  if (select) select.addEventListener("change", () => draw(chart));
  chart.querySelector("input[type=range]").addEventListener("input", () => draw(chart));
}

for (const [arm, hue] of Object.entries(REPORT.arms)) {
  const label = document.createElement("label"), box = document.createElement("input"), swatch = document.createElement("span");
  box.type = "checkbox"; box.checked = true; box.value = arm; swatch.className = "swatch"; swatch.style.background = hue;
  box.addEventListener("change", () => {
    if (box.checked) off.delete(arm); else off.add(arm);
    for (const cell of document.querySelectorAll("td[data-arm]")) if (cell.dataset.arm === arm) cell.parentNode.classList.toggle("off", !box.checked);
    drawAll();
  });
  label.append(box, swatch, arm);
  document.getElementById("arms").append(label);
}

const themes = ["system", "light", "dark"], button = document.getElementById("theme");
button.addEventListener("click", () => {
  const next = themes[(themes.indexOf(root.dataset.theme || "system") + 1) % themes.length];
  root.dataset.theme = next; // page.css has rules for light and dark; "system" matches neither
  button.textContent = "theme: " + next;
  drawAll();
});
let drawnWidth = innerWidth, waiting;
addEventListener("resize", () => { // plotly adapts the width only; draw() adapts legend and panels
  clearTimeout(waiting);
  if (Math.abs(innerWidth - drawnWidth) > 40) waiting = setTimeout(() => { drawnWidth = innerWidth; drawAll(); }, 200);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
addEventListener("beforeprint", () => { // before the pages are counted
  for (const each of document.querySelectorAll("details")) each.open = true;
});
matchMedia("print").addEventListener("change", (print) => {
  if (print.matches) for (const each of document.querySelectorAll("details")) each.open = true;
  drawAll();
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
  await copy(csv(each.closest(".table").querySelector("table")));
  each.textContent = "copied"; setTimeout(() => { each.textContent = "copy as CSV"; }, 1200);
});

drawAll().then(() => { root.dataset.drawn = "yes"; });
