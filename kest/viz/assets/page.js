"use strict";
// Draws what the element #data holds. Only textContent and the canvas are given text of entries, never markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const nodes = data.nodes, [W, H] = data.box;
  const canvas = $("canvas"), pen = canvas.getContext("2d");
  const children = nodes.map(() => []);
  const edges = [];
  nodes.forEach((node, index) => node.parents.forEach((parent) => { children[parent].push(index); edges.push([parent, index]); }));
  const wrong = (verdict) => Boolean(verdict) && verdict[0] !== "valid" && verdict[0] !== "unchecked";
  const bad = (node) => wrong(node.verdict) || Boolean(node.outcome) && wrong(node.outcome.verdict);
  const state = (node) => (node.outcome ? node.outcome.state : "unknown");
  const failed = (node) => !["unknown", "returned", "missing"].includes(state(node));
  const tainted = (node) => Boolean(node.taints && node.taints.length);
  const filters = {
    "": () => true,
    marked: (node) => node.kind === "denial" || node.kind === "broken" || bad(node) || failed(node) || state(node) === "missing",
    denial: (node) => node.kind === "denial",
    missing: (node) => state(node) === "missing",
    failed,
    bad: (node) => bad(node) || node.kind === "broken",
    tainted,
    low: (node) => node.trust !== undefined && node.trust < 40,
  };
  const words = nodes.map((node) => [node.label, node.operation, node.principal, node.hash, node.kind, node.denial, node.why,
    ...(node.taints || []), ...node.marks].flat().filter(Boolean).join("\n").toLowerCase());

  // What reorders, hides or does not show is written as an escape; line ends of the indented form stay.
  const plain = (text) => String(text).replace(/[^\P{C}\n]|[\p{Zl}\p{Zp}]/gu, (c) => "\\u{" + c.codePointAt(0).toString(16) + "}");
  const element = (name, text, kind) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = plain(text);
    if (kind) made.className = kind;
    return made;
  };

  // --- what is shown ---

  let found = nodes.map((_, index) => index), fits = null, chosen = -1;
  let scale = 1, left = 0, top = 0, colours = {}, asked = false;

  function readColours() {
    const style = getComputedStyle(document.documentElement), value = (name) => style.getPropertyValue("--" + name).trim();
    for (const name of ["page", "ink", "accent", "edge", "bad", "warn"]) colours[name] = value(name);
    for (const name of ["high", "middle", "low", "absent"])
      colours[name] = { fill: value(name + "-fill"), line: value(name + "-line"), text: value(name + "-text") };
  }

  function resize() {
    const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
    canvas.width = Math.max(1, Math.round(box.width * ratio));
    canvas.height = Math.max(1, Math.round(box.height * ratio));
    draw();
    drawList();
  }

  function draw() {
    if (!asked) { asked = true; requestAnimationFrame(paint); }
  }

  function paint() {
    asked = false;
    const ratio = window.devicePixelRatio || 1, width = canvas.width / ratio, height = canvas.height / ratio;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = colours.page;
    pen.fillRect(0, 0, width, height);
    pen.setTransform(ratio * scale, 0, 0, ratio * scale, -left * scale * ratio, -top * scale * ratio);
    const right = left + width / scale, bottom = top + height / scale;
    paintEdges(right, bottom);
    for (let index = 0; index < nodes.length; index++) {
      const node = nodes[index];
      if (node.x + W >= left && node.x <= right && node.y + H >= top && node.y <= bottom) paintNode(node, index);
    }
    canvas.dataset.painted = String(Number(canvas.dataset.painted || 0) + 1);
  }

  function paintEdges(right, bottom) {
    const near = chosen < 0 ? null : new Set([chosen]);
    for (const strong of [false, true]) {
      pen.beginPath();
      for (const [parent, child] of edges) {
        const a = nodes[parent], b = nodes[child];
        if (Math.max(a.x, b.x) + W < left || Math.min(a.x, b.x) > right) continue;
        if (Math.max(a.y, b.y) + H < top || Math.min(a.y, b.y) > bottom) continue;
        if (Boolean(near && (near.has(parent) || near.has(child))) !== strong) continue;
        const x1 = a.x + W / 2, y1 = a.y + H, x2 = b.x + W / 2, y2 = b.y, bend = Math.max(24, Math.abs(y2 - y1) / 2);
        pen.moveTo(x1, y1);
        if (scale < 0.15) pen.lineTo(x2, y2); else pen.bezierCurveTo(x1, y1 + bend, x2, y2 - bend, x2, y2);
      }
      pen.strokeStyle = strong ? colours.accent : colours.edge;
      pen.lineWidth = Math.max(strong ? 2.5 : 1.3, 0.7 / scale);
      pen.globalAlpha = fits && !strong ? 0.4 : 1;
      pen.stroke();
    }
  }

  function paintNode(node, index) {
    const paint = colours[node.colour], small = scale < 0.3;
    pen.globalAlpha = fits && !fits.has(index) && index !== chosen ? 0.22 : 1;
    pen.beginPath();
    if (small) pen.rect(node.x, node.y, W, H); else pen.roundRect(node.x, node.y, W, H, 8);
    pen.fillStyle = small ? paint.line : paint.fill;
    pen.fill();
    const warned = node.kind === "denial" || node.verdict[0] === "invalid" || state(node) === "missing";
    pen.setLineDash(!small && (node.kind === "denial" || node.kind === "absent") ? [6, 4] : []);
    if (index === chosen) { pen.strokeStyle = colours.accent; pen.lineWidth = Math.max(4, 3 / scale); pen.stroke(); }
    else if (!small) { pen.strokeStyle = paint.line; pen.lineWidth = warned ? 3 : 1.5; pen.stroke(); }
    pen.setLineDash([]);
    if (!small) paintText(node, paint);
    pen.globalAlpha = 1;
  }

  function paintText(node, paint) {
    pen.fillStyle = paint.text;
    pen.direction = "ltr";
    pen.font = "600 13px system-ui, sans-serif";
    pen.fillText(node.label, node.x + 12, node.y + 22, W - 24);
    pen.font = "11px system-ui, sans-serif";
    const second = [node.trust === undefined ? "" : "trust " + node.trust, ...node.marks].filter(Boolean).join(" · ");
    pen.fillText(second.length > 34 ? second.slice(0, 33) + "…" : second, node.x + 12, node.y + 40, W - 24);
    if (tainted(node)) {
      pen.beginPath();
      pen.moveTo(node.x + W - 18, node.y);
      pen.lineTo(node.x + W - 8, node.y);
      pen.quadraticCurveTo(node.x + W, node.y, node.x + W, node.y + 8);
      pen.lineTo(node.x + W, node.y + 18);
      pen.fillStyle = colours.warn;
      pen.fill();
    }
  }

  // --- moving about ---

  const view = () => canvas.getBoundingClientRect();

  function zoom(factor, x = view().width / 2, y = view().height / 2) {
    const before = scale;
    scale = Math.min(3, Math.max(0.005, scale * factor));
    left += x / before - x / scale;
    top += y / before - y / scale;
    draw();
  }

  function fit() {
    const box = view(), [width, height] = data.size;
    scale = Math.min(1.2, Math.max(0.005, Math.min((box.width - 60) / Math.max(width, 1), (box.height - 110) / Math.max(height, 1))));
    left = (width - box.width / scale) / 2;
    top = (height - box.height / scale) / 2;
    draw();
  }

  function show(index) {
    const node = nodes[index], box = view();
    if (scale < 0.5) scale = 0.8;
    left = node.x + W / 2 - box.width / scale / 2;
    top = node.y + H / 2 - box.height / scale / 2;
    draw();
  }

  const pointers = new Map();
  let moved = 0;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    moved = 0;
    canvas.classList.add("moving");
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const dx = event.offsetX - before[0], dy = event.offsetY - before[1];
    if (pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const far = (x, y) => Math.max(1, Math.hypot(x - other[0], y - other[1]));
      zoom(far(event.offsetX, event.offsetY) / far(...before), (event.offsetX + other[0]) / 2, (event.offsetY + other[1]) / 2);
    } else { left -= dx / scale; top -= dy / scale; draw(); }
    moved += Math.abs(dx) + Math.abs(dy);
    pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
  });
  const release = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (!pointers.size) canvas.classList.remove("moving");
    if (event.type === "pointerup" && moved < 6) {
      const hit = at(left + event.offsetX / scale, top + event.offsetY / scale);
      if (hit >= 0) choose(hit);
    }
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-Math.max(-300, Math.min(300, event.deltaY)) * 0.0016), event.offsetX, event.offsetY);
  }, { passive: false });

  function at(x, y) {
    return nodes.findLastIndex((node) => x >= node.x && x <= node.x + W && y >= node.y && y <= node.y + H);
  }

  function neighbour(step) {
    const node = nodes[chosen], row = nodes.map((_, index) => index).filter((index) => nodes[index].y === node.y);
    row.sort((a, b) => nodes[a].x - nodes[b].x);
    return row[row.indexOf(chosen) + step];
  }

  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: () => nodes[chosen].parents[0], ArrowDown: () => children[chosen][0],
      ArrowLeft: () => neighbour(-1), ArrowRight: () => neighbour(1) };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey || !nodes.length) return;
    event.preventDefault();
    const next = chosen < 0 ? found[0] : steps[event.key]();
    if (next !== undefined) { choose(next); show(next); }
  });
  document.addEventListener("keydown", (event) => {
    const typing = ["INPUT", "SELECT"].includes(event.target.tagName);
    if (event.key === "Escape" && event.target === $("search")) { $("search").value = ""; find(); canvas.focus(); }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const does = { "/": () => $("search").focus(), "+": () => zoom(1.3), "=": () => zoom(1.3), "-": () => zoom(1 / 1.3),
      0: fit, n: () => step(1), p: () => step(-1) }[event.key];
    if (does) { event.preventDefault(); does(); }
  });
  $("in").addEventListener("click", () => zoom(1.3));
  $("out").addEventListener("click", () => zoom(1 / 1.3));
  $("fit").addEventListener("click", fit);

  // --- searching, and the list of what is found: only the rows in view exist ---

  const ROW = 30, list = $("list"), rows = $("rows");

  function find() {
    const text = $("search").value.trim().toLowerCase(), filter = filters[$("filter").value];
    found = [];
    nodes.forEach((node, index) => { if (filter(node) && (!text || words[index].includes(text))) found.push(index); });
    fits = text || $("filter").value ? new Set(found) : null;
    $("found").textContent = fits ? `${found.length.toLocaleString("en")} of ${nodes.length.toLocaleString("en")} found`
      : `${nodes.length.toLocaleString("en")} records`;
    list.scrollTop = 0;
    drawList();
    draw();
  }

  function drawList() {
    rows.style.height = found.length * ROW + "px";
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const last = Math.min(found.length, first + Math.ceil(list.clientHeight / ROW) + 9);
    const made = [];
    for (let place = first; place < last; place++) {
      const index = found[place], node = nodes[index], row = element("div", undefined, "row");
      row.id = "row" + index;
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", String(index === chosen));
      row.setAttribute("aria-posinset", String(place + 1));
      row.setAttribute("aria-setsize", String(found.length));
      row.style.top = place * ROW + "px";
      const dot = element("i");
      dot.style.background = colours[node.colour].line;
      const also = [node.trust === undefined ? "" : String(node.trust), ...node.marks].filter(Boolean).join(" · ");
      row.append(dot, element("b", `${node.n}  ${node.label}`), element("small", also));
      row.addEventListener("click", () => { choose(index); show(index); });
      made.push(row);
    }
    rows.replaceChildren(...made);
    if (chosen >= 0 && $("row" + chosen)) list.setAttribute("aria-activedescendant", "row" + chosen);
    else list.removeAttribute("aria-activedescendant");
  }

  function step(by) {
    if (!found.length) return;
    const place = found.indexOf(chosen), count = found.length;
    const next = found[place < 0 ? (by > 0 ? 0 : count - 1) : (place + by + count) % count];
    choose(next);
    show(next);
  }

  list.addEventListener("scroll", drawList);
  list.addEventListener("keydown", (event) => {
    const place = found.indexOf(chosen), page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const to = { ArrowDown: place + 1, ArrowUp: place - 1, PageDown: place + page, PageUp: place - page, Home: 0, End: found.length - 1 }[event.key];
    if (to === undefined || !found.length) return;
    event.preventDefault();
    const next = found[Math.max(0, Math.min(found.length - 1, to))];
    choose(next);
    show(next);
  });
  $("search").addEventListener("input", find);
  $("search").addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); step(event.shiftKey ? -1 : 1); } });
  $("filter").addEventListener("change", find);

  // --- the chosen one ---

  const VERDICTS = {
    valid: ["valid", "good"], signature: ["the signature is right, what it continues from is not verified", "warn"],
    unsigned: ["UNSIGNED", "bad"], invalid: ["NOT VALID", "bad"], unknown_key: ["the signer's key is not known", "bad"], unchecked: ["not checked", "warn"],
  };
  const OUTCOMES = { unknown: ["not recorded here", ""], missing: ["MISSING: it began, and nothing says how it ended", "bad"], returned: ["returned", "good"] };

  const verdict = ([kind, why]) => [(VERDICTS[kind] || VERDICTS.unchecked)[0] + (why ? `: ${why}` : ""), (VERDICTS[kind] || VERDICTS.unchecked)[1]];

  function facts(node) {
    const out = [["signature", ...verdict(node.verdict)]];
    if (node.denial) out.push(["denied", `${node.denial[0]} (${node.denial[1]}): ${node.denial[2]}`, "bad"]);
    if (node.why) out.push(["unreadable", node.why, "bad"]);
    if (node.trust !== undefined) out.push(["trust", node.trust, node.trust >= 80 ? "good" : node.trust >= 40 ? "warn" : "bad"]);
    if (node.taints) out.push(["taints", node.taints.join(", ") || "none", node.taints.length ? "warn" : ""]);
    if (node.kind === "entry") {
      const said = node.outcome, known = OUTCOMES[said.state] || [said.state.replace("_", " "), "warn"];
      const took = typeof said.us === "number" ? `, ${(said.us / 1000).toLocaleString("en")} ms` : "";
      out.push(["outcome", known[0] + (said.error ? ` ${said.error}` : "") + took, known[1]]);
      if (said.verdict) out.push(["its signature", ...verdict(said.verdict)]);
      if (said.output) out.push(["output hash", said.output]);
    }
    if (node.withheld) out.push(["withheld", `${node.withheld} personal field${node.withheld > 1 ? "s" : ""}: only commitments are here`]);
    if (node.principal) out.push([node.by ? "call of" : "signed by", node.principal]);
    if (node.by) out.push(["signed by", `${node.by}, the log, in place of the entry`]);
    if (node.time) { const when = new Date(node.time); out.push(["time", isNaN(when) ? `${node.time} ms` : when.toISOString()]); }
    if (node.hash) out.push(["hash", node.hash]);
    if (node.origin) out.push(["found at", node.origin]);
    return out;
  }

  function links(title, indices) {
    const part = element("div", undefined, "links");
    for (const index of indices.slice(0, 50)) {
      const button = element("button", `${nodes[index].n}  ${nodes[index].label}`);
      button.type = "button";
      button.addEventListener("click", () => { choose(index); show(index); });
      part.append(button);
    }
    if (indices.length > 50) part.append(element("span", `and ${(indices.length - 50).toLocaleString("en")} more`, "hint"));
    return indices.length ? [element("h3", title), part] : [];
  }

  function choose(index) {
    chosen = index;
    const node = nodes[index], table = element("dl");
    for (const [name, text, kind] of facts(node)) table.append(element("dt", name), element("dd", text, kind));
    const parts = [element("h2", node.operation || node.label), table, ...links("Continues from", node.parents), ...links("Goes on in", children[index])];
    if (node.decoded) parts.push(element("h3", "Decoded"), element("pre", node.decoded));
    $("detail").replaceChildren(...parts);
    $("detail").scrollTop = 0;
    const place = found.indexOf(index);
    if (place >= 0 && (place * ROW < list.scrollTop || (place + 1) * ROW > list.scrollTop + list.clientHeight))
      list.scrollTop = Math.max(0, place * ROW - list.clientHeight / 2);
    canvas.setAttribute("aria-label", `Lineage graph; chosen: ${node.label}, ${verdict(node.verdict)[0]}`);
    drawList();
    draw();
  }

  // --- the beginning ---

  const count = (test) => nodes.filter(test).length.toLocaleString("en");
  const said = [`${count((node) => node.kind === "entry")} entries`];
  for (const [name, test] of [["denied", filters.denial], ["without outcome", filters.missing], ["not verified", filters.bad],
    ["tainted", tainted], ["parents not in this file", (node) => node.kind === "absent"]])
    if (nodes.some(test)) said.push(`${count(test)} ${name}`);
  if (data.leftOut) said.push(`${data.leftOut.toLocaleString("en")} older ones left out`);
  said.push(data.verified ? "signatures checked when this page was made" : "NOT VERIFIED: no keys were given");
  $("summary").textContent = said.join(" · ");
  $("title").textContent = data.title;
  $("detail").append(element("p", nodes.length ? "Choose an entry to see it decoded." : "There is nothing to draw.", "hint"));
  canvas.setAttribute("aria-label", `Lineage graph of ${nodes.length} records`);
  readColours();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); drawList(); draw(); });
  new ResizeObserver(resize).observe($("stage"));
  resize();
  find();
  fit();
})();
