// Histograms of the linears' inputs, before and after the rotation, with the range that the chosen
// scale covers.

let chooseInput = () => {};

// Values as a density: {bars: [[x0, x1, share per unit]], low, high}.
function density(histogram) {
  const bins = histogram.counts.length;
  const width = (histogram.high - histogram.low) / bins || 1e-9;
  const all = d3.sum(histogram.counts) || 1;
  const bars = histogram.counts.map((count, i) => [histogram.low + i * width,
    histogram.low + (i + 1) * width, count / all / width]);
  return {bars, low: histogram.low, high: histogram.high, least: 1 / all / width};
}

// The share of values beyond what the integers cover, spread evenly within a bin.
function clippedShare(histogram, site) {
  const d = density(histogram);
  return d3.sum(d.bars, ([x0, x1, y]) => {
    const inside = Math.max(0, Math.min(x1, site.high) - Math.max(x0, site.low));
    return y * Math.max(0, x1 - x0 - inside);
  });
}

function stepPath(d, x, y, floor) {
  let path = "M" + x(d.low) + "," + y(floor);
  for (const [x0, x1, value] of d.bars) {
    const height = y(Math.max(value, floor));
    path += "L" + x(x0) + "," + height + "L" + x(x1) + "," + height;
  }
  return path + "L" + x(d.high) + "," + y(floor);
}

// `shown`: [{d: density, key}], the first with a filled area; `sites`: [{low, high, key}].
function histogramChart(parent, options) {
  const {shown, sites} = options;
  const c = canvas(parent, Object.assign({margin: {left: 44}}, options));
  const near = d3.max(sites.concat(shown.filter((s) => s.key !== "before").map((s) => s.d)),
    (r) => Math.max(-r.low, r.high)) || 1;
  const far = d3.max(shown, (s) => Math.max(-s.d.low, s.d.high));
  const reach = Math.min(far, 3 * near) * 1.04;
  const x = d3.scale.linear().domain([-reach, reach]).range([0, c.width]).clamp(true);
  const floor = d3.min(shown, (s) => s.d.least) || 1e-9;
  const top = d3.max(shown, (s) => d3.max(s.d.bars, (bar) => bar[2])) * 1.3;
  const y = d3.scale.log().domain([floor, top]).range([c.height, 0]);
  yAxis(c, y, {values: powersIn(floor, top, options.small ? 3 : 5), format: (v) => minus("1e" + Math.round(Math.log10(v)))});
  xAxis(c, x, {ticks: options.small ? 4 : 9});
  for (const {d, key} of shown) {
    const path = stepPath(d, x, y, floor);
    if (key !== "before") c.g.append("path").attr("class", "area fill-" + key).attr("d", path);
    c.g.append("path").attr("class", "outline mark stroke-" + key).attr("d", path);
  }
  for (const site of sites) drawLimits(c, x, site);
  return far > reach ? far : null;
}

function powersIn(low, high, most) {
  const first = Math.ceil(Math.log10(low)), last = Math.floor(Math.log10(high));
  const step = Math.max(1, Math.ceil((last - first + 1) / most));
  return d3.range(first, last + 1, step).map((power) => Math.pow(10, power));
}

function drawLimits(c, x, site) {
  const edge = x.domain();
  for (const [from, to] of [[edge[0], site.low], [site.high, edge[1]]]) {
    if (to <= from) continue;
    c.g.append("rect").attr("class", "beyond").attr("x", x(from)).attr("width", x(to) - x(from))
      .attr("y", 0).attr("height", c.height);
  }
  for (const limit of [site.low, site.high]) {
    c.g.append("line").attr("class", "limit stroke-" + site.key).attr("x1", x(limit)).attr("x2", x(limit))
      .attr("y1", 0).attr("y2", c.height);
  }
}

// What is known of an input, of every artifact: [{site, histogram, key, i}].
function inputViews(name) {
  return artifacts.map((artifact, i) => ({i, key: letters[i], histogram: artifact.histograms[name],
    site: siteTable(artifact).get(name)})).filter((view) => view.site && view.histogram);
}

function drawInput(parent, name, small) {
  const views = inputViews(name);
  const before = views.length ? views[0].histogram.before : null;
  const shown = before ? [{d: density(before), key: "before"}] : [];
  for (const view of views) shown.push({d: density(view.histogram), key: view.key});
  const sites = views.filter((v) => known(v.site.low)).map((v) => ({low: v.site.low, high: v.site.high, key: v.key}));
  return histogramChart(parent, {shown, sites, small, height: small ? 130 : 300, label: "Histogram of " + name});
}

function inputText({site, histogram, i}) {
  return (both ? artifacts[i].name + ": " : "") + bitsOf(site) + " bits, scale " + digits(site.scale) +
    ", covers " + digits(site.low, 3) + " \u2026 " + digits(site.high, 3) + "; seen " +
    digits(histogram.low, 3) + " \u2026 " + digits(histogram.high, 3) + "; " +
    percent(clippedShare(histogram, site), 3) + " of the values beyond, SQNR of the rounding " + decibels(site.sqnr) + ".";
}

function writeInputs() {
  const part = section("inputs", "Ranges of the linears\u2019 inputs", "What each linear reads: the share of values (logarithmic) over their size, before the rotation in grey and after it in colour; dashed lines bound what the chosen scale covers, values in the red fields are clipped.");
  const names = Object.keys(artifacts[0].histograms).filter((name) => inputViews(name).length);
  if (names.length === 0) {
    return missing(part, "This artifact holds no histograms; quantize again with this version of qnpu to have them collected.");
  }
  legend(part, [["before", "before the rotation"]].concat(both ? [] : [["a", "after it, as rounded"]]));
  const rows = names.slice().sort((x, y) => worstSqnr(x) - worstSqnr(y));
  const select = element("select", {"aria-label": "Input"}, ...names.map((name) => element("option", {}, name)));
  const holder = element("div", {class: "chart", id: "histogram"});
  const text = element("div", {id: "histogram-text"});
  part.append(element("div", {class: "controls"}, "Input", select), holder, text);
  const show = () => {
    holder.textContent = text.textContent = "";
    const far = drawInput(holder, select.value, false);
    for (const view of inputViews(select.value)) text.append(sentence(inputText(view)));
    if (far) text.append(sentence("Before the rotation values reach \u00b1" + digits(far, 3) + ", beyond the drawing."));
  };
  chooseInput = (name) => {
    if (!names.includes(name)) return;
    select.value = name;
    show();
    part.scrollIntoView();
  };
  select.addEventListener("change", show);
  select.value = rows.find((name) => artifacts[0].histograms[name].before) || rows[0];
  draw(holder, show);
  writeWorstInputs(part, rows.slice(0, 8));
}

function worstSqnr(name) {
  return Math.min(...inputViews(name).map((view) => view.site.sqnr));
}

function writeWorstInputs(part, names) {
  part.append(element("h3", {}, "The " + names.length + " that lose most"));
  const grid = element("div", {class: "grid4"});
  part.append(grid);
  for (const name of names) {
    const caption = [element("b", {}, name.replace("layers.", "").replace(/self_attn\.|mlp\./, "")), " " + decibels(worstSqnr(name))];
    figureIn(grid, caption, (parent) => drawInput(parent, name, true));
  }
}
