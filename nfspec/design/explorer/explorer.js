"use strict";
// The state of the page, which its address has after the #, and what changes with it.

const byId = (id) => document.getElementById(id);

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(byId(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function options(select, pairs) {
  select.replaceChildren(...pairs.map(([value, text]) => element("option", { value }, text)));
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

class Explorer {
  constructor(data) {
    this.data = data;
    this.nets = data.networks;
    this.named = new Map(this.nets.map((net) => [net.name, net]));
    this.chosen = this.nets.find((net) => net.own) ?? this.named.get("nfnet-f0") ?? this.nets[0];
    this.other = null;
    this.sources = {};
    this.sorted = { key: null, down: false };
    this.fillSelects();
    this.listen();
    this.readAddress();
    this.showAll();
    this.showNetwork();
  }

  get device() {
    return byId("device").value;
  }

  get shown() {
    const text = byId("filter").value.trim().toLowerCase();
    return this.nets.filter((net) => net.name.toLowerCase().includes(text));
  }

  fillSelects() {
    const axes = Object.entries(AXES).map(([key, each]) => [key, each.name]);
    options(byId("across"), axes);
    options(byId("up"), axes);
    byId("up").value = "parameters";
    const names = this.nets.map((net) => [net.name, net.own ? `${net.name} (yours)` : net.name]);
    options(byId("pick"), names);
    options(byId("other"), [["", "no other"], ...names]);
    options(byId("cost"), Object.entries(COSTS));
    const targets = Object.entries(this.data.targets).map(([name, summary]) => [name, `${name}: ${summary}`]);
    options(byId("file"), [["toml", "spec: TOML, every field stated"], ...targets]);
  }

  listen() {
    for (const id of ["across", "up", "device"]) byId(id).addEventListener("change", () => this.showAll());
    byId("filter").addEventListener("input", () => this.showAll());
    byId("controls").addEventListener("submit", (event) => event.preventDefault());
    byId("pick").addEventListener("change", (event) => this.choose(this.named.get(event.target.value), false));
    byId("other").addEventListener("change", (event) => {
      this.other = this.named.get(event.target.value) ?? null;
      this.writeAddress();
      this.showNetwork();
    });
    byId("cost").addEventListener("change", () => this.showCharts());
    byId("file").addEventListener("change", () => this.showFile());
    byId("copy").addEventListener("click", () => this.copy());
    for (const button of byId("all").querySelectorAll("thead button")) {
      button.addEventListener("click", () => this.sort(button.dataset.key));
    }
    window.addEventListener("hashchange", () => {
      if (this.readAddress()) this.afterChoice(true);
    });
    let width = byId("scatter").clientWidth;
    window.addEventListener("resize", () => {
      if (width !== byId("scatter").clientWidth) {
        width = byId("scatter").clientWidth;
        this.drawScatter();
        this.showCharts();
      }
    });
  }

  // True if the address names a network; other addresses are places of the page.
  readAddress() {
    if (!location.hash.includes("=")) return false;
    const given = new URLSearchParams(location.hash.slice(1));
    this.chosen = this.named.get(given.get("n")) ?? this.chosen;
    this.other = this.named.get(given.get("d")) ?? null;
    return true;
  }

  writeAddress() {
    const text = new URLSearchParams({ n: this.chosen.name, ...(this.other ? { d: this.other.name } : {}) });
    history.replaceState(null, "", `#${text}`);
  }

  choose(net, go = true) {
    this.chosen = net;
    this.writeAddress();
    this.afterChoice(go);
  }

  afterChoice(go) {
    this.drawScatter();
    this.markRow();
    this.showNetwork();
    if (go) {
      byId("network").scrollIntoView({ block: "start" });
      byId("pick").focus({ preventScroll: true });
    }
  }

  showAll() {
    const shown = new Set(this.shown);
    for (const row of byId("all").tBodies[0].rows) {
      const net = this.nets[row.dataset.number];
      row.hidden = !shown.has(net);
      row.querySelector(".step").textContent = this.device ? milliseconds(net.seconds[this.device]) : "";
    }
    byId("shown").textContent = shown.size;
    this.markRow();
    this.drawScatter();
  }

  markRow() {
    for (const row of byId("all").tBodies[0].rows) {
      const here = this.nets[row.dataset.number] === this.chosen;
      row.classList.toggle("chosen", here);
      if (here) row.querySelector("a").setAttribute("aria-current", "true");
      else row.querySelector("a").removeAttribute("aria-current");
    }
  }

  sort(key) {
    const down = this.sorted.key === key ? !this.sorted.down : false;
    this.sorted = { key, down };
    const value = (row) => {
      const net = this.nets[row.dataset.number];
      return key === "seconds" ? net.seconds[this.device] : net[key];
    };
    const body = byId("all").tBodies[0];
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === y) return a.dataset.number - b.dataset.number;
      if (x === null || y === null) return x === null ? 1 : -1; // what is not known stands last
      const order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
      return down ? -order : order;
    });
    body.append(...rows);
    for (const button of byId("all").querySelectorAll("thead button")) {
      const here = button.dataset.key === key;
      button.closest("th").setAttribute("aria-sort", here ? (down ? "descending" : "ascending") : "none");
    }
  }

  drawScatter() {
    if (byId("scatter").clientWidth === 0) return; // a window that has no size yet
    const nets = this.shown;
    const drawn = scatter(byId("scatter"), nets, this.chosen, byId("across").value, byId("up").value, this.device,
      (net) => this.choose(net));
    const missing = nets.length - drawn;
    byId("scatter-note").textContent = missing
      ? `${drawn} of ${nets.length} networks; for ${missing} one of the two numbers is not known.`
      : `${drawn} ${drawn === 1 ? "network" : "networks"}.`;
  }

  showNetwork() {
    const net = this.chosen;
    byId("pick").value = net.name;
    byId("other").value = this.other?.name ?? "";
    byId("network-title").textContent = net.name;
    const seconds = Object.entries(net.seconds).map(([device, value]) => `${device} ${milliseconds(value)}`);
    const facts = {
      Source: net.source || "not stated",
      Training: net.trained,
      "Top-1": net.top1 === null ? "" : `${(100 * net.top1).toFixed(1)} % on ${net.of} (${net.top1_source})`,
      Parameters: net.parameters.toLocaleString("en"),
      MACs: `${compact(net.macs)} at ${net.test} px`,
      Images: `${net.channels} channels; training ${net.train} px, tests ${net.test} px`,
      Activations: `${compact(net.bytes)}B, one image in float32`,
      "Training step": `${seconds.join(", ")}: ${this.data.batch} images, ${this.data.precision}, estimated`,
      Digest: net.digest.slice(0, 16),
    };
    byId("facts").replaceChildren(...Object.entries(facts).filter(([, value]) => value)
      .map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
    draw(byId("drawing"), net, this.data.parts);
    this.showCharts();
    this.showBlocks();
    this.showGroups();
    this.showDifference();
    this.showFile();
  }

  showCharts() {
    if (byId("scatter").clientWidth === 0) return;
    const nets = this.other ? [this.chosen, this.other] : [this.chosen];
    signal(byId("signal"), nets);
    byId("signal-note").textContent = `${this.other ? `Solid: ${this.chosen.name}; dashed: ${this.other.name}. ` : ""}` +
      "Lines: the variance that the plan expects after each block at initialisation, with skip gains of 1; dots end stages. " +
      (nets.some((net) => net.measured) ? "Crosses: measured, on noise." : "nfspec signal measures it.");
    this.showReading();
    costs(byId("costs"), this.chosen, byId("cost").value);
    byId("costs-note").textContent = "One image at the test size. Stages in two shades; stem and head in grey.";
  }

  // What to make of the measured signal, as nfspec signal says it.
  showReading() {
    const of = this.chosen.measured;
    const said = of ? [
      `${of.as_expected ? "As expected" : "Not as expected"}, with fresh weights on ${of.images} images of noise of ${of.side} px: ${of.sentences[0]}`,
      ...of.sentences.slice(1),
    ] : [];
    byId("reading").replaceChildren(...said.map((text) => element("li", {}, text)));
    byId("reading").hidden = !of;
  }

  showBlocks() {
    const net = this.chosen;
    const columns = ["Part", "In", "Middle", "Out", "Groups", "Kernel", "Stride", "Alpha", "Beta", "Variance", "Measured", "Attention",
      "Drop", "Parameters", "MACs", "Activations"].map((title, at) => [title, at > 0 && title !== "Attention"]);
    const counts = (part) => [compact(part.parameters), compact(part.macs), `${compact(part.bytes)}B`];
    const measured = (at) => (net.measured ? String(Number((net.measured.variances[at] ?? NaN).toPrecision(3))) : "");
    const end = (name, part, ...signal) => [name, "", "", String(part.shape.at(-1)), "", "", "", "", "", ...signal, "", "", ...counts(part)];
    const rows = net.blocks.map((block, at) => [
      blockName(block), ...[block.in_channels, block.mid_channels, block.out_channels, block.groups, block.kernel, block.stride].map(String),
      String(Number(block.alpha.toPrecision(4))), block.beta.toFixed(4), block.variance.toFixed(3), measured(at + 1),
      attentionOf(block) || "none", block.drop_rate ? block.drop_rate.toFixed(3) : "", ...counts(block),
    ]);
    const all = [end("stem", net.stem, net.stem.variance.toFixed(3), measured(0)), ...rows, end("head", net.head, "", "")];
    const shown = (row) => row.filter((_, at) => net.measured || columns[at][0] !== "Measured");
    fill(byId("blocks"), `Blocks of ${net.name}`, shown(columns), all.map(shown));
  }

  showGroups() {
    const net = this.chosen;
    const number = (value) => (value === null ? "none" : String(value));
    const rows = net.groups.map((group) => [
      capital(group.role.replace("_", " ")), `${group.tensors.toLocaleString("en")}`, group.numbers.toLocaleString("en"),
      group.norm, group.units.toLocaleString("en"), number(group.clipping), group.decay === null ? "no recipe" : String(group.decay), group.example,
    ]);
    const columns = [["Role", false], ["Tensors", true], ["Parameters", true], ["One norm of", false], ["Units", true], ["Lambda", true],
      ["Weight decay", true], ["The first of them", false]];
    fill(byId("groups"), `Clipping and weight decay of ${net.name}`, columns, rows);
    const eps = net.groups.find((group) => group.clipping !== null)?.eps;
    byId("groups-note").textContent = eps === undefined
      ? "This network trains without adaptive gradient clipping."
      : `A unit's norm of the gradient is cut to lambda × max(norm of the weight, ${eps}).`;
  }

  showDifference() {
    const [a, b] = [this.chosen, this.other];
    byId("differences").hidden = !b;
    if (!b) {
      byId("difference-note").textContent = `Choose a network to compare ${a.name} with.`;
      return;
    }
    const paths = [...new Set([...Object.keys(a.fields), ...Object.keys(b.fields)])];
    const rows = paths.filter((path) => a.fields[path] !== b.fields[path])
      .map((path) => [breakable(path), a.fields[path] ?? "not stated", b.fields[path] ?? "not stated"]);
    const change = (x, y) => `${compact(x)} and ${compact(y)} (${y < x ? "−" : "+"}${compact(Math.abs(y - x))})`;
    byId("difference-note").textContent = `${rows.length} ${rows.length === 1 ? "field differs" : "fields differ"}. ` +
      `Parameters ${change(a.parameters, b.parameters)}; MACs ${change(a.macs, b.macs)}, at ${a.test} and ${b.test} px.`;
    fill(byId("differences"), `Fields of ${a.name} and ${b.name} that differ`, [["Field", false], [a.name, false], [b.name, false]], rows);
  }

  async showFile() {
    const [kind, net] = [byId("file").value, this.chosen];
    if (kind !== "toml") this.sources[kind] ??= unpacked(`source-${kind}`);
    const text = kind === "toml" ? net.toml : (await this.sources[kind])[net.file];
    if (net !== this.chosen || kind !== byId("file").value) return; // somebody chose again meanwhile
    byId("text").textContent = text;
    byId("copied").textContent = "";
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(byId("text").textContent);
      byId("copied").textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(byId("text"));
      byId("copied").textContent = "The text is selected: copy it with Ctrl+C.";
    }
  }
}

unpacked("data").then((data) => new Explorer(data)).then(
  () => document.documentElement.setAttribute("data-ready", ""),
  (error) => {
    byId("problem").hidden = false;
    byId("problem").textContent = `This browser cannot show the page: ${error.message}. The table of networks works.`;
    throw error;
  },
);
