"use strict";
// The charts in words, for readers who do not see them: one sentence, and a table of the drawn numbers.
const MOST_NAMED = 8; // lines of a chart in its sentence

const rounded = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value ?? ""));
const titleOf = (layout, axis) => layout[axis.replace(/^([xy])/, "$1axis")]?.title?.text?.replaceAll("<br>", " ") ?? "";
const isShown = (trace) => trace.visible !== false && !(trace.meta && (trace.meta.profile || trace.meta.ring)); // these repeat other points

function lastPoint(trace) { // the last point of a line that has a value
  for (let place = trace.x.length - 1; place >= 0; place--) if (trace.x[place] !== null && (trace.y[place] ?? null) !== null) return place;
  return -1;
}

function sentence(layout, data) { // the last value of every line, the range of every map
  const groups = new Map();
  for (const trace of data.filter(isShown)) {
    let where, said;
    if (trace.type === "heatmap") {
      const values = trace.z.flat().filter((value) => value !== null);
      where = `Heat maps of ${(layout.coloraxis?.colorbar?.title?.text || "the values").replaceAll("<br>", " ")}, least to largest`;
      said = values.length ? `${trace.name} ${rounded(Math.min(...values))} to ${rounded(Math.max(...values))}` : `${trace.name} no values`;
    } else {
      const last = lastPoint(trace);
      if (last < 0) continue;
      const [x, y] = [titleOf(layout, trace.xaxis || "x"), titleOf(layout, trace.yaxis || "y")];
      where = `${y} at ${x} ${rounded(trace.x[last])}`;
      said = `${trace.name} ${rounded(trace.y[last])}`;
    }
    groups.set(where, [...(groups.get(where) || []), said]);
  }
  const told = [...groups].map(([where, each]) =>
    `${where}: ${each.slice(0, MOST_NAMED).join(", ")}${each.length > MOST_NAMED ? `, and ${each.length - MOST_NAMED} more` : ""}.`);
  return told.length ? `${told.join(" ")} All numbers are in the table below the chart.` : "No arm is shown.";
}

function numbers(layout, data) { // rows of cells; the first row has the names of the columns
  const traces = data.filter(isShown), maps = traces.filter((trace) => trace.type === "heatmap");
  if (maps.length) {
    const columns = maps[0].x;
    return [["map", "row", ...columns], ...maps.flatMap((map) => map.y.map((row, place) => [map.name, row, ...map.z[place]]))];
  }
  const bars = traces.some((trace) => trace.error_y);
  const rows = traces.flatMap((trace) => trace.x.map((x, place) => {
    const y = trace.y[place] ?? null, up = trace.error_y?.array[place], down = (trace.error_y?.arrayminus || trace.error_y?.array)?.[place];
    const ends = typeof up === "number" && y !== null ? [y - down, y + up] : ["", ""];
    return [trace.name, x, titleOf(layout, trace.yaxis || "y"), y, ...(bars ? ends : [])];
  }));
  return [["line", titleOf(layout, "x"), "quantity", "value", ...(bars ? ["low", "high"] : [])], ...rows];
}

function element(name, parent, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  parent.append(made);
  return made;
}

function fillNumbers(chart, layout, data) { // only an open table: a closed one would double the size of the page
  const details = chart.querySelector(".numbers"), box = details.querySelector(".wide");
  box.replaceChildren();
  if (!details.open) return;
  const table = element("table", box), head = element("tr", element("thead", table)), body = element("tbody", table);
  const [columns, ...rows] = numbers(layout, data);
  columns.forEach((column, place) => {
    const cell = element("th", head, String(column));
    cell.scope = "col";
    if (rows.some((row) => typeof row[place] === "number")) cell.className = "number";
  });
  for (const row of rows) {
    const line = element("tr", body);
    for (const value of row) {
      const cell = element("td", line, rounded(value));
      cell.dataset.value = value ?? "";
      if (typeof value === "number") cell.className = "number";
    }
  }
}

function describe(chart, layout, data) { // plotly draws a chart as several images; the first one speaks for all
  const [image, ...others] = chart.querySelectorAll(".plot .main-svg");
  image.setAttribute("role", "img");
  image.setAttribute("aria-label", sentence(layout, data));
  for (const each of others) each.setAttribute("aria-hidden", "true");
  fillNumbers(chart, layout, data);
}
