// What she wants to see first: how near to float, how large, how fast, and what stands out.

function titleOf(artifact) {
  return (artifact.model || "A quantized model") + " \u00b7 " + (artifact.recipe.name || "unnamed recipe");
}

function writeHeader() {
  const header = document.getElementById("top");
  header.append(element("h1", {}, both ? titles() : titleOf(artifacts[0])));
  artifacts.forEach((artifact, i) => {
    const text = artifact.recipe.description || "";
    const key = both ? element("span", {class: "key " + letters[i]}) : null;
    const name = both ? element("b", {}, artifact.name + ": ") : null;
    if (text || both) header.append(element("p", {class: "lead"}, key, name, text));
  });
  header.append(element("p", {class: "lead"}, shapeText(artifacts[0])));
}

function titles() {
  const model = artifacts[0].model || "Two quantized models";
  return model + " \u00b7 " + artifacts[0].name + " and " + artifacts[1].name;
}

function shapeText(artifact) {
  const c = artifact.config;
  return c.architecture + ": " + c.num_layers + " layers of " + c.hidden_size + ", " + c.num_heads +
    " heads of " + c.head_dim + ", vocabulary of " + c.vocab_size + ", at most " +
    artifact.positions + " positions.";
}

// Bits of the linears' weights, their mean over all of these weights.
function bitsPerWeight(artifact) {
  let bits = 0, weights = 0;
  const shapes = new Map(artifact.memory.map((tensor) => [tensor.name, tensor]));
  for (const site of artifact.sites) {
    if (site.role !== "weight" || !shapes.has(site.name)) continue;
    const tensor = shapes.get(site.name);
    const count = tensor.shape.reduce((a, b) => a * b, 1) * (tensor.dtype === "U8" ? 2 : 1);
    bits += count * site.bits;
    weights += count;
  }
  return weights ? bits / weights : NaN;
}

function perplexityText(x) {
  return fixed(x, x < 1000 ? 2 : 0);
}

// {label, value, text, better, under} of every figure that is known of one artifact; `better`: -1 if less is.
function figuresOf(artifact) {
  const figures = [];
  const add = (label, value, text, better, under) => figures.push({label, value, text, better, under});
  for (const {label, values: v} of artifact.evaluations) {
    if (known(v.perplexity)) {
      const rise = known(v.reference_perplexity) ? v.perplexity / v.reference_perplexity - 1 : null;
      const under = rise === null ? v.tokens + " tokens" : "float " + perplexityText(v.reference_perplexity) + ", " + signed(percent(rise));
      add("Perplexity, " + label, v.perplexity, perplexityText(v.perplexity), -1, under);
    }
    if (known(v.kl_divergence)) add("KL divergence, " + label, v.kl_divergence, fixed(v.kl_divergence, 3), -1, "nats per token, from float");
    if (known(v.top1_agreement)) add("Same top token, " + label, v.top1_agreement, percent(v.top1_agreement), 1, "as the float model");
    for (const [name, task] of Object.entries(v.tasks || {})) {
      if (task) add("Accuracy, " + name, task.acc_norm, percent(task.acc_norm), 1, "\u00b1 " + percent(task.acc_norm_stderr) + ", " + task.items + " questions");
    }
  }
  const f = artifact.fidelity;
  if (f) {
    const rise = f.perplexity / f.float_perplexity - 1;
    add("KL divergence, calibration text", f.kl_divergence, fixed(f.kl_divergence, 3), -1, f.tokens + " tokens only");
    add("Same top token, calibration text", f.top1_agreement, percent(f.top1_agreement), 1, "perplexity " + signed(percent(rise)));
  }
  add("Size on disk", artifact.size_bytes, bytesText(artifact.size_bytes), -1, "all files but this report");
  add("Bits per weight", bitsPerWeight(artifact), fixed(bitsPerWeight(artifact), 2), -1, "of all linears, the head included");
  for (const run of speeds(artifact)) figures.push(run);
  return figures;
}

// The first of each that was measured.
function speeds(artifact) {
  const bench = artifact.bench;
  if (!bench) return [];
  const decode = (bench.decode || []).filter((run) => run.batch === 1 || run.batch === undefined)[0];
  const prefill = (bench.prefill || [])[0];
  const figure = (label, run, under) => ({label, value: run.tokens_per_second, better: 1,
    text: digits(run.tokens_per_second, 3) + " tok/s", under});
  return [].concat(
    decode ? figure("Generating", decode, "behind " + decode.context + " tokens") : [],
    prefill ? figure("Reading", prefill, "a prompt of " + prefill.prompt) : []);
}

function writeTiles(parent) {
  const tiles = element("div", {class: "tiles"});
  for (const figure of figuresOf(artifacts[0])) {
    tiles.append(element("div", {class: "tile"}, element("div", {class: "label"}, figure.label),
      element("div", {class: "value"}, figure.text), element("div", {class: "under"}, figure.under)));
  }
  parent.append(tiles);
}

// Two artifacts: a row for each figure that either of them has.
function writeFigureTable(parent) {
  const lists = artifacts.map(figuresOf);
  const names = [...new Set(lists.flat().map((figure) => figure.label))];
  const body = element("tbody");
  for (const name of names) {
    const [a, b] = lists.map((list) => list.find((figure) => figure.label === name));
    const change = a && b && known(a.value) && known(b.value) ? b.value / a.value - 1 : NaN;
    const judged = Math.abs(change) > 5e-4 ? ((a.better > 0) === (change > 0) ? "good" : "bad") : "";
    body.append(element("tr", {}, element("td", {}, name), figureCell(a), figureCell(b),
      element("td", {class: judged}, known(change) ? signed(percent(change)) : "")));
  }
  const head = element("tr", {}, element("th", {}, ""),
    ...artifacts.map((artifact, i) => element("th", {}, element("span", {class: "key " + letters[i]}), artifact.name)),
    element("th", {}, "second against first"));
  parent.append(element("table", {id: "figures"}, element("thead", {}, head), body));
}

function figureCell(figure) {
  return element("td", figure && figure.under ? {"data-tip": figure.under} : {}, figure ? figure.text : "\u2013");
}

function unmeasured(parent) {
  artifacts.forEach((artifact, i) => {
    const whose = both ? artifact.name + ": " : "";
    const option = i ? "--other-eval" : "--eval";
    if (!artifact.evaluations.some((e) => known(e.values.perplexity))) {
      missing(parent, whose + "no evaluation text was given: `qnpu eval ARTIFACT --text FILE --against CHECKPOINT --json > eval.json`, then `qnpu report ARTIFACT " + option + " eval.json`.");
    }
    if (!artifact.bench) {
      missing(parent, whose + "no speed was given: `qnpu bench ARTIFACT --json > bench.json`, then `" + (i ? "--other-bench" : "--bench") + " bench.json`.");
    }
  });
}

function writeSummary() {
  const part = section("summary", "Summary", both ?
    "All that is known of both, side by side; the last column is green where the second is better." :
    "How near it is to the float model, how large, how fast.");
  if (both) writeFigureTable(part); else writeTiles(part);
  writeFindings(part);
  unmeasured(part);
}

// ---- what stands out ----

function writeFindings(parent) {
  const list = element("ul", {class: "findings"});
  artifacts.forEach((artifact) => {
    for (const text of findingsOf(artifact)) {
      list.append(element("li", {}, both ? element("b", {}, artifact.name + ": ") : null, text));
    }
  });
  parent.append(element("h3", {}, "What stands out"), list);
}

function findingsOf(artifact) {
  return [steepestStep(artifact), worstInput(artifact), worstWeight(artifact), wideInputs(artifact),
    learnedText(artifact), heaviest(artifact)].filter(Boolean);
}

function residualCurve(artifact) {
  if (!artifact.fidelity) return [];
  return artifact.fidelity.sites.filter((site) => splitName(site.name).kind in kResidualKinds);
}

function steepestStep(artifact) {
  const curve = residualCurve(artifact);
  if (curve.length < 2) return null;
  let worst = 1;
  for (let i = 2; i < curve.length; ++i) {
    if (curve[i - 1].sqnr - curve[i].sqnr > curve[worst - 1].sqnr - curve[worst].sqnr) worst = i;
  }
  const {layer, kind} = splitName(curve[worst].name);
  return "The residual stream ends at " + decibels(curve[curve.length - 1].sqnr) +
    " against float; its largest loss is at layer " + layer + ", " +
    (kind === "mlp.residual.out" ? "MLP" : "attention") + ": " +
    decibels(curve[worst - 1].sqnr - curve[worst].sqnr) + ".";
}

function lowest(sites) {
  const measured = sites.filter((site) => known(site.sqnr));
  return measured.sort((a, b) => a.sqnr - b.sqnr)[0];
}

function worstInput(artifact) {
  const site = lowest(artifact.sites.filter((s) => isLinearInput(s.name)));
  return site ? "Of the linears\u2019 inputs " + site.name + " loses most by its own rounding: " +
    decibels(site.sqnr) + " at " + bitsOf(site) + " bits." : null;
}

function worstWeight(artifact) {
  const site = lowest(artifact.sites.filter((s) => s.role === "weight"));
  return site ? "Of the weights " + site.name + " is rounded most coarsely: " + decibels(site.sqnr) +
    " at " + site.bits + " bits." : null;
}

function wideInputs(artifact) {
  const inputs = artifact.sites.filter((s) => isLinearInput(s.name) && s.name !== "lm_head.in");
  const wide = inputs.filter((s) => bitsOf(s) === 16).length;
  return (wide === 0 ? "None" : wide) + " of the " + inputs.length + " inputs of the layers\u2019 linears " + (wide < 2 ? "has" : "have") + " 16 bits.";
}

function learnedText(artifact) {
  const last = artifact.learning[artifact.learning.length - 1];
  if (!last || !last.held_out || last.held_out.length === 0) return null;
  const mean = (key) => d3.mean(last.held_out, (text) => text[key]);
  return "Learning changed the loss on held-out text from " + digits(mean("before"), 3) + " to " +
    digits(mean("after"), 3) + (last.accepted ? "." : ", worse on one of them: its result was not kept.");
}

function heaviest(artifact) {
  const kinds = memoryKinds(artifact);
  const all = d3.sum(kinds, (kind) => kind.bytes);
  return kinds[0].name + " takes " + percent(kinds[0].bytes / all, 0) + " of the memory for weights and tables.";
}
