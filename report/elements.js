// Small parts of the page. Text only ever enters it as text: there is no innerHTML anywhere.

const artifacts = JSON.parse(document.getElementById("data").textContent).artifacts;
const both = artifacts.length === 2;
const letters = ["a", "b"];

// element("p", {class: "why"}, "text", another)
function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// `code` marks in a sentence become <code>.
function sentence(text, kind) {
  const parts = text.split("`").map((part, i) => (i % 2 ? element("code", {}, part) : part));
  return element("p", kind ? {class: kind} : {}, ...parts);
}

// A section of the report; `why` says in one sentence what it shows.
function section(id, title, why) {
  const node = element("section", {id}, element("h2", {}, title));
  if (why) node.append(sentence(why, "why"));
  document.getElementById("main").append(node);
  document.getElementById("contents").append(element("a", {href: "#" + id}, title));
  return node;
}

function missing(parent, text) {
  parent.append(sentence(text.charAt(0).toUpperCase() + text.slice(1), "missing"));
}

function labelOf(i) {
  return both ? artifacts[i].name : artifacts[i].recipe.name || artifacts[i].name;
}

// Which colour is which of two artifacts, and whatever else is named: [["before", "text"], ...].
function legend(parent, more) {
  const items = (more || []).slice();
  if (both) items.unshift(...artifacts.map((_, i) => [letters[i], labelOf(i)]));
  if (items.length === 0) return;
  const node = element("div", {class: "legend"});
  for (const [key, text] of items) {
    node.append(element("span", {}, element("span", {class: "key " + key}), text));
  }
  parent.append(node);
}

// ---- drawing, and drawing again when the width changes ----

const drawings = [];

function draw(parent, how) {
  drawings.push({parent, how});
}

// Once the whole page stands, so that each parent has its final width.
function drawAll() {
  for (const drawing of drawings) {
    drawing.width = drawing.parent.clientWidth;
    drawing.how(drawing.parent);
  }
}

function figureIn(grid, caption, how) {
  const holder = element("div", {class: "chart"});
  grid.append(element("figure", {}, element("figcaption", {}, ...caption), holder));
  draw(holder, how);
  return holder;
}

let resizing = 0;
window.addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => {
    for (const drawing of drawings) {
      if (drawing.parent.clientWidth === drawing.width || drawing.parent.clientWidth === 0) continue;
      drawing.width = drawing.parent.clientWidth;
      drawing.parent.textContent = "";
      drawing.how(drawing.parent);
    }
  }, 150);
});

// ---- what the mark under the pointer is: its data-tip ----

const tip = document.getElementById("tip");

document.addEventListener("mousemove", (event) => {
  const mark = event.target.closest ? event.target.closest("[data-tip]") : null;
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.getAttribute("data-tip");
  const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  const above = event.clientY + 18 + tip.offsetHeight > window.innerHeight;
  tip.style.left = Math.max(left, 4) + "px";
  tip.style.top = (above ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18) + "px";
});
