"use strict";
// The three charts, drawn by Observable Plot in an element's width, in the page's colours.

const COLOURS = { nfnet: "var(--c0)", nf_regnet: "var(--c1)", nf_resnet: "var(--c2)", yours: "var(--c3)" };
const SYMBOLS = { nfnet: "circle", nf_regnet: "triangle", nf_resnet: "square", yours: "star" };
const GROUP = { nfnet: "NFNet", nf_regnet: "NF-RegNet", nf_resnet: "NF-ResNet", yours: "yours" };

function compact(value) {
  for (const [unit, size] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= size) return `${Number((value / size).toPrecision(3))} ${unit}`;
  }
  return String(Number(value.toPrecision(3)));
}

function milliseconds(seconds) {
  return seconds === null ? "no image fits" : `${Number((1e3 * seconds).toPrecision(3)).toLocaleString("en")} ms`;
}

const AXES = {
  macs: { name: "MACs", of: (net) => net.macs, log: true, text: compact },
  parameters: { name: "Parameters", of: (net) => net.parameters, log: true, text: compact },
  bytes: { name: "Activations, bytes", of: (net) => net.bytes, log: true, text: (n) => `${compact(n)}B` },
  seconds: {
    name: "Training step",
    of: (net, device) => net.seconds[device] ?? null,
    log: true,
    text: milliseconds,
  },
  test: { name: "Test size, px", of: (net) => net.test, log: false, text: String },
  top1: { name: "Top-1", of: (net) => net.top1, log: false, text: (n) => `${(100 * n).toFixed(1)} %` },
};

function groupOf(net) {
  return net.own ? "yours" : net.family;
}

// An axis, a logarithmic one with a tick at each power of ten where there are two of them.
function axis(values, each, few) {
  const settings = { label: each.name, grid: true, tickFormat: each.text };
  if (!each.log) return { ...settings, nice: true, ticks: few ? 4 : 8 };
  const [low, high] = [Math.min(...values) / 1.3, Math.max(...values) * 1.3];
  const powers = d3.range(Math.ceil(Math.log10(low)), Math.floor(Math.log10(high)) + 1).map((power) => 10 ** power);
  return { ...settings, type: "log", domain: [low, high], ticks: powers.length > 1 ? powers : few ? 3 : 5 };
}

// All networks as dots. `choose` is called with a network.
function scatter(place, nets, chosen, across, up, device, choose) {
  const x = AXES[across], y = AXES[up];
  const known = nets.filter((net) => x.of(net, device) !== null && y.of(net, device) !== null);
  const label = (net) => `${net.name}: ${x.name} ${x.text(x.of(net, device))}, ${y.name} ${y.text(y.of(net, device))}`;
  const groups = Object.keys(COLOURS).filter((group) => known.some((net) => groupOf(net) === group));
  const ordered = [...known].sort((a, b) => x.of(a, device) - x.of(b, device));
  const narrow = place.clientWidth < 560;
  const named = ordered.filter((net) => net === chosen || (net.own && !net.trained)); // trainings may be many
  const short = (net) => (net.name.length > 24 ? `${net.name.slice(0, 23)}…` : net.name);
  const chart = Plot.plot({
    width: place.clientWidth,
    height: Math.max(300, Math.min(460, place.clientWidth * 0.6)),
    marginLeft: 62, marginBottom: 42, marginTop: 26, marginRight: 24, inset: 10,
    style: { background: "none", fontSize: "12px", overflow: "visible" },
    x: axis(known.map((net) => x.of(net, device)), x, narrow),
    y: axis(known.map((net) => y.of(net, device)), y, true),
    color: { domain: groups, range: groups.map((group) => COLOURS[group]) },
    symbol: { domain: groups, range: groups.map((group) => SYMBOLS[group]) },
    marks: known.length === 0 ? [] : [
      Plot.dot(ordered, {
        x: (net) => x.of(net, device), y: (net) => y.of(net, device), fill: groupOf, symbol: groupOf, r: 5,
        stroke: "var(--paper)", strokeWidth: 1, sort: null,
        ariaLabel: label, className: "dots",
      }),
      Plot.dot(named, {
        x: (net) => x.of(net, device), y: (net) => y.of(net, device), r: 8, strokeWidth: 2,
        stroke: "currentColor", ariaHidden: "true",
      }),
      ...[[chosen, -15], [null, 15]].map(([only, dy]) => Plot.text(named.filter((net) => (net === chosen) === (only === chosen)), {
        x: (net) => x.of(net, device), y: (net) => y.of(net, device), text: short, dy,
        fontWeight: 600, stroke: "var(--paper)", strokeWidth: 4, fill: "currentColor", ariaHidden: "true",
      })),
      Plot.tip(ordered, Plot.pointer({
        x: (net) => x.of(net, device), y: (net) => y.of(net, device), fill: "var(--paper)",
        title: (net) => `${net.name}\n${x.name} ${x.text(x.of(net, device))}\n${y.name} ${y.text(y.of(net, device))}`,
      })),
    ],
  });
  pictured(chart, `Networks: ${y.name} over ${x.name}`, "group");
  const legend = known.length ? chart.legend("symbol", { fill: "color", style: { fontSize: "12px" }, tickFormat: (group) => GROUP[group] ?? group }) : "";
  place.replaceChildren(legend, chart);
  makeDotsButtons(chart, ordered, chosen, choose);
  return known.length;
}

// One stop of the Tab key, from which the arrow keys lead from dot to dot. A ring and a line of text
// are for the one that has the focus.
function makeDotsButtons(chart, nets, chosen, choose) {
  const dots = [...chart.querySelectorAll(".dots path")];
  const start = Math.max(0, nets.indexOf(chosen));
  const ring = shape("circle", { class: "ring", r: 10 });
  const line = chart.closest("figure").querySelector(".focused");
  chart.append(ring);
  dots.forEach((dot, at) => {
    dot.setAttribute("role", "button");
    dot.setAttribute("tabindex", at === start ? "0" : "-1");
    dot.dataset.name = nets[at].name;
    dot.addEventListener("focus", () => {
      ring.setAttribute("transform", dot.getAttribute("transform"));
      ring.classList.add("shown");
      line.textContent = dot.getAttribute("aria-label");
    });
    dot.addEventListener("blur", () => {
      ring.classList.remove("shown");
      line.textContent = "";
    });
    dot.addEventListener("click", () => choose(nets[at]));
    dot.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -at, End: dots.length - 1 - at };
      if (event.key === "Enter" || event.key === " ") {
        choose(nets[at]);
      } else if (event.key in steps) {
        const next = Math.min(dots.length - 1, Math.max(0, at + steps[event.key]));
        dot.setAttribute("tabindex", "-1");
        dots[next].setAttribute("tabindex", "0");
        dots[next].focus();
      } else {
        return;
      }
      event.preventDefault();
    });
  });
}

function pictured(svg, label, role = "img") {
  for (const group of svg.querySelectorAll("g[aria-label]")) group.removeAttribute("aria-label"); // no role allows it
  svg.setAttribute("role", role);
  svg.setAttribute("aria-label", label);
  return svg;
}

// The stem is block 0.
function variances(net) {
  const blocks = net.blocks.map((block, at) => ({
    at: at + 1,
    variance: block.variance,
    last: net.blocks[at + 1]?.stage !== block.stage,
  }));
  return [{ at: 0, variance: net.stem.variance, last: false }, ...blocks]
    .map((row) => ({ ...row, name: net.name, measured: net.measured?.variances[row.at] ?? null }));
}

// Variances after each block, of one network or two: those that are expected, and measured ones as
// crosses, where there are some.
function signal(place, nets) {
  const rows = nets.map(variances);
  const colours = ["var(--c0)", "var(--c1)"];
  const chart = Plot.plot({
    width: place.clientWidth, height: 260, marginLeft: 44, marginBottom: 38, marginTop: 24, marginRight: 16,
    style: { background: "none", fontSize: "12px" },
    x: { label: "block; 0 is the stem", ticks: 6, tickFormat: "d" },
    y: { label: "variance", grid: true, zero: true, nice: true },
    marks: rows.flatMap((row, which) => [
      Plot.line(row, { x: "at", y: "variance", stroke: colours[which], strokeWidth: 2, strokeDasharray: which ? "5 3" : null }),
      Plot.dot(row.filter((each) => each.last), { x: "at", y: "variance", fill: colours[which], r: 4 }),
      Plot.dot(row.filter((each) => each.measured !== null), { x: "at", y: "measured", stroke: colours[which], symbol: "times", strokeWidth: 1.5, r: 4 }),
      Plot.tip(row, Plot.pointerX({
        x: "at", y: "variance", fill: "var(--paper)",
        title: (each) => `${each.name}\nblock ${each.at}: ${each.variance.toFixed(3)}` +
          (each.measured === null ? "" : `, measured ${Number(each.measured.toPrecision(3))}`),
      })),
    ]),
  });
  const most = nets.map((net) => `${net.name} up to ${Math.max(...net.blocks.map((block) => block.variance)).toFixed(2)}`);
  place.replaceChildren(pictured(chart, `Expected variance after each block: ${most.join("; ")}. The table of blocks has the numbers.`));
}

const COSTS = { macs: "MACs", parameters: "Parameters", bytes: "Activations, bytes" };

// A cost of the stem, each block and the head, as bars.
function costs(place, net, key) {
  const parts = [["stem", net.stem], ...net.blocks.map((block) => [blockName(block), block]), ["head", net.head]];
  const rows = parts.map(([name, part], at) => ({ name, at, value: part[key], stage: part.stage }));
  const total = rows.reduce((sum, row) => sum + row.value, 0);
  const chart = Plot.plot({
    width: place.clientWidth, height: 260, marginLeft: 52, marginBottom: 38, marginTop: 24, marginRight: 16,
    style: { background: "none", fontSize: "12px" },
    x: { label: "stem, blocks, head", ticks: 0, domain: [-0.5, rows.length - 0.5] },
    y: { label: COSTS[key], grid: true, zero: true, nice: true, tickFormat: compact, ticks: 5 },
    marks: [
      Plot.rectY(rows, {
        x1: (row) => row.at - 0.42, x2: (row) => row.at + 0.42, y: "value",
        fill: (row) => (row.stage === undefined ? "var(--bar-end)" : row.stage % 2 ? "var(--bar-odd)" : "var(--bar-even)"),
      }),
      Plot.ruleY([0]),
      Plot.tip(rows, Plot.pointerX({
        x: "at", y: "value", fill: "var(--paper)",
        title: (row) => `${row.name}\n${compact(row.value)}, ${((100 * row.value) / total).toFixed(1)} %`,
      })),
    ],
  });
  const most = rows.reduce((a, b) => (b.value > a.value ? b : a));
  place.replaceChildren(pictured(chart, `${COSTS[key]} of each part; most in ${most.name}: ${compact(most.value)}. The table of blocks has the numbers.`));
}
