// Numbers and names as people read them.

function known(x) {
  return typeof x === "number" && isFinite(x);
}

function minus(text) {
  return text.replace(/^-/, "\u2212").replace(/e-/, "e\u2212");
}

function fixed(x, digits) {
  return known(x) ? minus(x.toFixed(digits)) : "\u2013";
}

function digits(x, count) {
  return known(x) ? minus(String(Number(x.toPrecision(count || 4)))) : "\u2013";
}

function percent(share, places) {
  return known(share) ? minus((100 * share).toFixed(places === undefined ? 1 : places)) + " %" : "\u2013";
}

function signed(text) {
  return /^[\u2212\u2013]/.test(text) ? text : "+" + text;
}

function scaled(x, units, base) {
  if (!known(x)) return "\u2013";
  let i = 0;
  while (Math.abs(x) >= base && i + 1 < units.length) {
    x /= base;
    ++i;
  }
  return minus(String(Number(x.toPrecision(3)))) + units[i];
}

function bytesText(x) {
  return scaled(x, [" bytes", " kB", " MB", " GB", " TB"], 1000);
}

function countText(x) {
  return scaled(x, ["", " thousand", " million", " billion"], 1000);
}

function decibels(x) {
  return known(x) ? fixed(x, 1) + " dB" : "\u2013";
}

// "layers.7.mlp.down_proj.in" -> {layer: 7, kind: "mlp.down_proj.in"}; -1 outside the layers.
function splitName(name) {
  const found = /^layers\.(\d+)\.(.*)$/.exec(name);
  return found ? {layer: Number(found[1]), kind: found[2]} : {layer: -1, kind: name};
}

const kInputKinds = {
  "self_attn.qkv_proj.in": "input of q, k, v",
  "self_attn.o_proj.in": "input of o",
  "mlp.gate_up_proj.in": "input of gate, up",
  "mlp.down_proj.in": "input of down",
};
const kResidualKinds = {
  "self_attn.residual.out": "residual after attention",
  "mlp.residual.out": "residual after the MLP",
};

function isLinearInput(name) {
  return name === "lm_head.in" || splitName(name).kind in kInputKinds;
}

function bitsOf(site) {
  return site.role === "weight" ? site.bits : Number(site.dtype.slice(1));
}
