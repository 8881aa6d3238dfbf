"use strict";
// Elements, tables, and the drawing of a network: a row of shapes for each stage.

const SVG = "http://www.w3.org/2000/svg";

// An element with attributes and children; texts are never markup.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

// A dotted name that may go on in another line after each of its parts.
function breakable(name) {
  const parts = name.match(/[^._]+[._]?|[._]/g) ?? [];
  return element("span", {}, ...parts.flatMap((part) => [part, element("wbr")]));
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Fill a table: a caption, columns as [title, right-aligned?], rows whose first cell is a header.
function fill(table, caption, columns, rows) {
  const classes = (at) => (columns[at][1] ? { class: "n" } : {});
  const head = columns.map(([title], at) => element("th", { scope: "col", ...classes(at) }, title));
  const lines = rows.map((row) => element("tr", {}, ...row.map((cell, at) =>
    at === 0 ? element("th", { scope: "row" }, cell) : element("td", classes(at), cell))));
  table.replaceChildren(
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...lines),
  );
}

function blockName(block) {
  return `stages.${block.stage}.blocks.${block.index}`;
}

function attentionOf(block) {
  return block.attention === "none" || !block.attention_size ? "" : `${block.attention.toUpperCase()} ${block.attention_size}`;
}

// The channels of a block as the outline of an hourglass, its sides in proportion to their roots.
function outline(block, most) {
  const half = (channels) => 4 + 34 * Math.sqrt(channels / most);
  const [a, b, c] = [block.in_channels, block.mid_channels, block.out_channels].map(half);
  const [top, upper, lower, bottom] = [3, 13, 23, 33];
  const right = [[a, top], [b, upper], [b, lower], [c, bottom]];
  const points = [...right, ...right.map(([x, y]) => [-x, y]).reverse()].map(([x, y]) => `${40 + x},${y}`).join(" ");
  const svg = shape("svg", { viewBox: "0 0 80 36", "aria-hidden": "true", class: "outline" });
  svg.append(shape("polygon", { points }));
  for (let line = 1; line < Math.min(block.groups, 12); line += 1) {
    const x = 40 - b + (2 * b * line) / Math.min(block.groups, 12);
    svg.append(shape("line", { x1: x, x2: x, y1: upper, y2: lower }));
  }
  return svg;
}

function draw(place, net, parts) {
  const most = Math.max(...net.blocks.map((block) => Math.max(block.in_channels, block.mid_channels, block.out_channels)));
  const stages = [...new Set(net.blocks.map((block) => block.stage))];
  const part = (title, about, of) => {
    const body = element("div", {});
    const lane = element("section", { class: "lane end" }, element("h4", {}, title, " ", element("span", { class: "quiet" }, about)), body);
    operations(body, "", parts[of.operations]);
    return lane;
  };
  const ends = (of) => (of.shape.length === 3 ? `to ${of.shape[0]} × ${of.shape[1]} px, ${of.shape[2]} channels` : `to ${of.shape.at(-1)} numbers`);
  place.replaceChildren(
    part("Stem", ends(net.stem), net.stem),
    ...stages.map((stage) => lane(net.blocks.filter((block) => block.stage === stage), stage, most, parts)),
    part("Head", ends(net.head), net.head),
  );
}

// A stage: its blocks as buttons, and a place below them for the one that is open.
function lane(blocks, stage, most, parts) {
  const last = blocks.at(-1), opened = element("div", { class: "opened", id: `opened-${stage}`, hidden: "" });
  const about = `${last.shape[0]} × ${last.shape[1]} px, ${last.out_channels} channels, ${blocks.length} ${blocks.length === 1 ? "block" : "blocks"}`;
  const buttons = blocks.map((block) => tile(block, most, opened.id));
  buttons.forEach((button, at) => button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") !== "true";
    buttons.forEach((each) => each.setAttribute("aria-expanded", "false"));
    button.setAttribute("aria-expanded", String(open));
    opened.hidden = !open;
    if (open) openBlock(opened, blocks[at], parts);
  }));
  const list = element("ol", { class: "tiles" }, ...buttons.map((button) => element("li", {}, button)));
  return element("section", { class: "lane" },
    element("h4", {}, `Stage ${stage} `, element("span", { class: "quiet" }, about)), list, opened);
}

function tile(block, most, controls) {
  const attention = attentionOf(block);
  const groups = block.groups === 1 ? "1 group" : `${block.groups} groups`;
  const heard = (text) => element("span", { class: "heard" }, text);
  return element("button", { type: "button", class: "tile", "aria-expanded": "false", "aria-controls": controls },
    outline(block, most),
    heard(`Block ${block.index} of stage ${block.stage}, channels `),
    element("span", { class: "widths" }, `${block.in_channels} → ${block.out_channels}`),
    heard(`, ${block.mid_channels} in the middle, `),
    element("span", {}, `β ${block.beta.toFixed(3)}`), heard(", "),
    element("span", {}, groups),
    attention ? element("span", {}, heard(", "), attention) : null,
    block.stride > 1 ? element("span", {}, heard(", "), `stride ${block.stride}`) : null,
    block.first_dilation > 1 ? element("span", {}, heard(", "), `dilation ${block.first_dilation}`) : null,
  );
}

function openBlock(place, block, parts) {
  const facts = element("dl", { class: "facts" });
  const rows = {
    Channels: `${block.in_channels} → ${block.mid_channels} → ${block.out_channels}`,
    Groups: String(block.groups),
    Kernel: `${block.kernel} × ${block.kernel}${block.second_kernel === block.kernel ? "" : `, then ${block.second_kernel} × ${block.second_kernel}`}, ` +
      `stride ${block.stride}${block.first_dilation > 1 ? `, dilation ${block.first_dilation}` : ""}`,
    Alpha: block.alpha.toPrecision(4).replace(/\.?0+$/, ""),
    Beta: `${block.beta.toFixed(4)} = 1 / √${block.input_variance.toFixed(4)}`,
    "Expected variance": `${block.input_variance.toFixed(3)} in, ${block.variance.toFixed(3)} out`,
    Attention: attentionOf(block) || "none",
    Cost: `${compact(block.parameters)} parameters, ${compact(block.macs)} MACs`,
  };
  for (const [name, value] of Object.entries(rows)) facts.append(element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  place.replaceChildren(element("h5", {}, `Block ${block.index} of stage ${block.stage}`), facts);
  operations(place, block.shortcut, parts[block.operations]);
}

// Operations from top to bottom; in a block, the branch stands beside the shortcut.
function operations(place, shortcut, ops) {
  const list = (chosen, title) => {
    const items = chosen.map(([name, kind, text]) => element("li", { class: kind.replace(/ /g, "-") },
      element("b", {}, kind), " ", element("span", {}, text), " ", element("code", {}, name)));
    return element("div", { class: "flow" }, title ? element("h6", {}, title) : null, element("ol", {}, ...items));
  };
  if (!shortcut) {
    place.append(list(ops, ""));
    return;
  }
  const first = ops.findIndex((op) => op[3] !== "both");
  const of = (lane, from, to) => ops.slice(from, to).filter((op) => op[3] === lane);
  const before = of("both", 0, first), after = of("both", first, ops.length), beside = of("shortcut", 0, ops.length);
  const skip = beside.length ? list(beside, "Shortcut") : element("div", { class: "flow" }, element("h6", {}, "Shortcut"), element("p", {}, "the block's input as it is"));
  if (before.length) place.append(list(before, "Both read"));
  place.append(element("div", { class: "beside" }, list(of("branch", 0, ops.length), "Branch"), skip), list(after, "Sum"));
}
