// What a token costs in integer operations, and what lies in memory.

function writeOperations() {
  const part = section("operations", "Integer operations", "Products of one new token by the widths of what is multiplied (activations \u00d7 weights or cache): what the chip\u2019s narrow units can do, and how much attention adds as the context grows.");
  const runs = artifacts.flatMap((artifact, i) => artifact.operations.map((o) => ({artifact, i, context: o.context, counts: o.counts})));
  const products = (run) => run.counts.filter((count) => count.right > 0).sort((a, b) => a.left * 100 + a.right - b.left * 100 - b.right);
  const all = d3.max(runs, (run) => d3.sum(products(run), (count) => count.number));
  for (const run of runs) {
    const total = d3.sum(products(run), (count) => count.number);
    const rest = d3.sum(run.counts.filter((count) => count.right === 0), (count) => count.number);
    const caption = [element("b", {}, (both ? run.artifact.name + ", " : "") + "behind " + run.context + " tokens"),
      ": " + countText(total) + " products, and " + countText(rest) + " elementwise results"];
    figureIn(part, caption, (parent) => stackedBar(parent, {label: "Products by width", all, parts: products(run).map((count) => operationPart(count, total, run.i))}));
    part.append(element("p", {class: "why"}, products(run).map((count) => count.left + " \u00d7 " + count.right + " " + count.kind + " " + percent(count.number / total)).join(",  ")));
  }
}

function operationPart(count, total, i) {
  const shades = {linears: 0.85, head: 0.55, attention: 1, elementwise: 0.3};
  return {name: count.kind, value: count.number, key: count.left === 16 ? "wide" : letters[i],
    shade: shades[count.kind] * (count.right <= 4 ? 0.75 : 1),
    tip: count.kind + ", " + count.left + " \u00d7 " + count.right + " bits\n" + countText(count.number) + ", " + percent(count.number / total)};
}

// A tensor's kind: the linear of all layers, the embedding, the head, tables.
function memoryKind(name) {
  const found = /((?:self_attn|mlp)\.\w+_proj|embed_tokens|lm_head)\./.exec(name);
  return found ? found[1].replace(/^(self_attn|mlp)\./, "") : "tables, norms, laws";
}

function memoryKinds(artifact) {
  const sums = new Map();
  for (const tensor of artifact.memory) {
    const kind = memoryKind(tensor.name);
    sums.set(kind, (sums.get(kind) || 0) + tensor.bytes);
  }
  return [...sums].map(([name, bytes]) => ({name, bytes})).sort((a, b) => b.bytes - a.bytes);
}

function writeMemory() {
  const part = section("memory", "Memory", "What the artifact\u2019s tensors take, by what they belong to, and one by one: where fewer bits would save most.");
  const grid = element("div", {class: both ? "grid2" : ""});
  part.append(grid);
  artifacts.forEach((artifact, i) => {
    const kinds = memoryKinds(artifact);
    const all = d3.sum(kinds, (kind) => kind.bytes);
    const caption = (both ? artifact.name + ": " : "") + bytesText(all) + " of weights and tables; the caches add " + bytesText(artifact.cache_bytes * 1024) + " for 1024 positions.";
    figureIn(grid, [caption], (parent) => barChart(parent, {label: "Memory by kind of tensor", left: 140,
      rows: kinds.map((kind) => ({name: kind.name, value: kind.bytes, key: letters[i], text: bytesText(kind.bytes) + ", " + percent(kind.bytes / all, 0)}))}));
  });
  writeTensors(part);
}

function writeTensors(part) {
  const rows = artifacts.flatMap((artifact) => artifact.memory.map((tensor) => Object.assign({artifact: artifact.name}, tensor)));
  const columns = [
    {name: "tensor", value: (t) => t.name},
    ...(both ? [{name: "of", value: (t) => t.artifact}] : []),
    {name: "dtype", value: (t) => t.dtype},
    {name: "shape", value: (t) => t.shape.reduce((x, y) => x * y, 1), text: (t) => t.shape.join(" \u00d7 ")},
    {name: "bytes", value: (t) => t.bytes, text: (t) => bytesText(t.bytes)},
  ];
  dataTable(part, {id: "tensors", rows, columns, sort: columns.length - 1, descending: true, most: 20,
    groups: [["all tensors", () => true], ["weights", (t) => t.name.endsWith(".weight")]]});
}
