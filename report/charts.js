// The charts, drawn by D3 as SVG. Colours are classes of the style sheet, so that light, dark and
// print need no drawing again.

// An empty drawing of the parent's width: {g, width, height} of the inner area.
function canvas(parent, options) {
  const margin = Object.assign({top: 8, right: 10, bottom: 26, left: 40}, options.margin);
  const whole = Math.max(parent.clientWidth || 600, 160);
  const width = whole - margin.left - margin.right;
  const height = options.height - margin.top - margin.bottom;
  const svg = d3.select(parent).append("svg");
  svg.attr("viewBox", "0 0 " + whole + " " + options.height);
  svg.attr("role", "img").attr("aria-label", options.label);
  const g = svg.append("g").attr("transform", "translate(" + margin.left + "," + margin.top + ")");
  return {g, width, height};
}

function xAxis(c, scale, options) {
  const axis = d3.svg.axis().scale(scale).orient("bottom").tickSize(4).tickPadding(4);
  axis.ticks(options.ticks || Math.max(3, Math.floor(c.width / 60)));
  if (options.values) axis.tickValues(options.values);
  if (options.format) axis.tickFormat(options.format);
  c.g.append("g").attr("class", "axis").attr("transform", "translate(0," + c.height + ")").call(axis);
}

function yAxis(c, scale, options) {
  const axis = d3.svg.axis().scale(scale).orient("left").tickSize(-c.width).tickPadding(6);
  axis.ticks(options.ticks || 4);
  if (options.values) axis.tickValues(options.values);
  axis.tickFormat(options.format || ((x) => digits(x, 3)));
  c.g.append("g").attr("class", "axis").call(axis);
}

function label(c, text, x, y, anchor) {
  c.g.append("text").attr("x", x).attr("y", y).attr("text-anchor", anchor || "start").text(text);
}

// Lines over x. options: lines [{key, name, points: [[x, y], ...], faint}], yDomain, xLabel,
// format of y.
function lineChart(parent, options) {
  const c = canvas(parent, options);
  const points = options.lines.flatMap((line) => line.points.filter((p) => known(p[1])));
  const x = d3.scale.linear().domain(d3.extent(points, (p) => p[0])).range([0, c.width]);
  const range = options.yDomain || padded(d3.extent(points, (p) => p[1]));
  const y = d3.scale.linear().domain(range).range([c.height, 0]);
  yAxis(c, y, {format: options.format});
  xAxis(c, x, {format: (v) => (v % 1 ? "" : String(v))});
  const path = d3.svg.line().defined((p) => known(p[1])).x((p) => x(p[0])).y((p) => y(p[1]));
  for (const line of options.lines) {
    const kind = "series " + (line.faint ? "faint" : line.key);
    c.g.append("path").attr("class", kind + " mark").attr("d", path(line.points));
    if (line.faint) continue;
    c.g.selectAll(null).data(line.points.filter((p) => known(p[1]))).enter().append("circle")
      .attr("class", "dot").attr("r", 4).attr("cx", (p) => x(p[0])).attr("cy", (p) => y(p[1]))
      .attr("data-tip", (p) => options.tip(line, p));
  }
  if (options.xLabel) label(c, options.xLabel, c.width, c.height + 24, "end");
}

function padded(extent) {
  let [low, high] = extent;
  if (!known(low)) return [0, 1];
  const more = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - more, high + more];
}

// Bars from the left, one row each. options: rows [{name, value, key, tip, text}].
function barChart(parent, options) {
  const step = options.step || 20;
  const margin = {top: 4, right: 104, bottom: 4, left: options.left || 150};
  const height = options.rows.length * step + 8;
  const c = canvas(parent, {height, margin, label: options.label});
  const most = d3.max(options.rows, (row) => row.value) || 1;
  const x = d3.scale.linear().domain([0, most]).range([0, c.width]);
  options.rows.forEach((row, i) => {
    const y = i * step;
    c.g.append("text").attr("class", "strong").attr("x", -8).attr("y", y + step / 2 + 4)
      .attr("text-anchor", "end").text(row.name);
    c.g.append("rect").attr("class", "bar mark " + (row.key || "a")).attr("x", 0).attr("y", y + 2)
      .attr("rx", 1.5).attr("width", Math.max(1, x(row.value))).attr("height", step - 5)
      .attr("data-tip", row.tip || row.name + "\n" + row.text);
    label(c, row.text, x(row.value) + 6, y + step / 2 + 4);
  });
}

// One horizontal bar of parts. options: parts [{name, value, shade, key}], all: the whole width.
function stackedBar(parent, options) {
  const c = canvas(parent, {height: 34, margin: {top: 4, right: 2, bottom: 8, left: 2}, label: options.label});
  const x = d3.scale.linear().domain([0, options.all]).range([0, c.width]);
  let at = 0;
  for (const part of options.parts) {
    c.g.append("rect").attr("class", "mark fill-" + part.key).attr("x", x(at)).attr("y", 0)
      .attr("width", Math.max(0, x(part.value) - 1)).attr("height", c.height)
      .style("fill-opacity", part.shade).attr("data-tip", part.tip);
    at += part.value;
  }
}

// Squares of layers (across) and kinds (down). options: rows, columns, cell(row, column) ->
// {shade, key, tip} or null, chosen, choose(row, column).
function heatMap(parent, options) {
  const step = 19;
  const margin = {top: 4, right: 6, bottom: 26, left: 172};
  const c = canvas(parent, {height: options.rows.length * step + 30, margin, label: options.label});
  const x = d3.scale.linear().domain([0, options.columns]).range([0, c.width]);
  options.rows.forEach((row, i) => {
    c.g.append("text").attr("class", "strong").attr("x", -8).attr("y", i * step + 13)
      .attr("text-anchor", "end").text(row.name);
    for (let column = 0; column < options.columns; ++column) {
      const cell = options.cell(row, column);
      const mark = c.g.append("rect").attr("x", x(column)).attr("y", i * step)
        .attr("width", x(1)).attr("height", step - 1)
        .attr("class", "cell " + (cell ? "mark " + cell.key : "empty"));
      if (!cell) continue;
      mark.style("fill-opacity", cell.shade).attr("data-tip", cell.tip).attr("data-site", cell.site)
        .on("click", () => options.choose && options.choose(cell.site));
    }
  });
  const every = Math.max(1, Math.ceil(options.columns / (c.width / 28)));
  for (let column = 0; column < options.columns; column += every) {
    label(c, String(column), x(column + 0.5), c.height + 14, "middle");
  }
  label(c, "layer", -8, c.height + 14, "end");
}
