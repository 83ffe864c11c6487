
"use strict";
/* The dashboard. Everything that came from a peer is put in as text, never as markup: `el` is the only way to make elements. */
(() => {
  const KEPT = 300;            // points of the charts, one a second
  const SERIES = 6;            // backends with a colour of their own
  const BACKENDS_SHOWN = 25;   // rows at first, and more with each "Show more"
  const SESSIONS_SHOWN = matchMedia("(max-width: 46rem)").matches ? 10 : 25;
  const EVENTS_SHOWN = 100;
  const SESSIONS_EVERY = 5000; // ms between two looks at the table of sessions
  const SILENCE = 10000;       // ms without a message after which the link counts as lost
  const WELL = new Set(["ready", "full"]);

  const $ = (id) => document.getElementById(id);
  const api = (path) => new URL("../api/" + path, location.href);

  function el(tag, properties = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name === "class") node.className = value;
      else if (name.includes("-") || name === "scope") node.setAttribute(name, value);
      else node[name] = value;
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }
  function setText(node, text) { if (node.textContent !== text) node.textContent = text; }

  // Numbers and times for people.
  const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const few = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
  const exact = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
  const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
  const count = (n) => whole.format(n);
  const short = (n) => (n < 10000 ? whole.format(n) : compact.format(n));
  const rate = (n) => (n < 100 ? few.format(n) : short(n));
  function bytes(n) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    while (n >= 1000 && unit < units.length - 1) { n /= 1024; unit += 1; }
    return [n >= 100 || unit === 0 ? whole.format(n) : few.format(n), units[unit]];
  }
  function span(seconds) {
    const s = Math.max(0, Math.floor(seconds));
    if (s < 60) return s + " s";
    if (s < 3600) return Math.floor(s / 60) + " min " + (s % 60 ? (s % 60) + " s" : "");
    if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
    return Math.floor(s / 86400) + " d " + Math.floor((s % 86400) / 3600) + " h";
  }
  const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  const words = (name) => { const text = name.replace(/_/g, " "); return text.charAt(0).toUpperCase() + text.slice(1); };

  const CLOSE_CODES = {
    1000: "normal", 1001: "going away", 1002: "protocol error", 1003: "unsupported data", 1005: "no code", 1006: "cut off", 1007: "invalid data",
    1008: "policy violation", 1009: "message too big", 1010: "extension missing", 1011: "internal error", 1012: "restart", 1013: "try again later", 1014: "bad gateway",
  };
  const STATES = {
    ready: ["good", "ready"], full: ["warn", "full"], down: ["bad", "down"], cooling_down: ["bad", "cooling down"], draining: ["warn", "draining"],
    drained: ["calm", "drained"], off: ["calm", "off"], removed: ["calm", "removed"],
  };
  const CALM = new Set(["client_closed", "backend_closed", "shutdown", "drain", "rebalance", "idle_timeout", "max_lifetime"]);

  // What is known.
  const state = {
    hello: null, totals: null, before: null, traffic: null, at: 0, skew: 0,
    backends: new Map(), points: [], events: [], lastEvent: 0,
    shown: BACKENDS_SHOWN, search: "", order: "load", hover: null, paused: false,
  };
  const nowServer = () => Date.now() / 1000 - state.skew;
  const nameOf = (row) => row.podName || row.url.replace(/^https?:\/\//, "");
  const loadOf = (row) => row.live + (row.foreign || 0);

  // Messages of the feed.
  function take(message) {
    if (message.type === "hello") {
      state.hello = message;
      state.backends.clear();
      state.points = [];
      state.before = null;
      state.events = [];
      state.lastEvent = 0;
      const history = message.history;
      history.at.forEach((at, index) => {
        const live = {};
        for (const [key, values] of Object.entries(history.live)) live[key] = values[index];
        state.points.push({ at, open: history.open[index], opened: history.opened[index], ended: history.ended[index], live });
      });
      takeTotals(message);
      takeEvents(message.events);
    } else if (message.type === "backends") {
      for (const row of message.backends) state.backends.set(row.key, row);
    } else if (message.type === "tick") {
      for (const key of message.removed) state.backends.delete(key);
      for (const row of message.backends) state.backends.set(row.key, row);
      takeTotals(message);
      takeEvents(message.events);
      const live = {};
      for (const [key, row] of state.backends) if (row.live) live[key] = row.live;
      const s = message.sessions;
      state.points.push({ at: message.at, open: s.open, opened: s.opened, ended: sum(s.ended), live });
      if (state.points.length > KEPT) state.points.splice(0, state.points.length - KEPT);
      if (message.events.some((event) => event.kind.startsWith("reload"))) loadSessions(true);
    }
    schedule();
  }
  const sum = (table) => Object.values(table).reduce((total, n) => total + n, 0);
  function takeTotals(message) {
    state.before = state.totals && state.totals.at < message.at ? state.totals : state.before;
    state.totals = { at: message.at, sessions: message.sessions, traffic: message.traffic, kernel: message.kernelRelay };
    // Of many sessions the server does not sum up the traffic each second.
    const known = state.traffic;
    if (!known || message.traffic.at < known.now.at) state.traffic = { now: message.traffic, before: null };
    else if (message.traffic.at > known.now.at) state.traffic = { now: message.traffic, before: known.now };
    state.skew = Date.now() / 1000 - message.at;
  }
  function takeEvents(events) {
    for (const event of events) {
      if (event.number <= state.lastEvent) continue;
      state.lastEvent = event.number;
      state.events.unshift(event);
    }
    state.events.length = Math.min(state.events.length, EVENTS_SHOWN);
  }

  // Drawing, once for each frame at most, and never for a page that nobody sees.
  let scheduled = false;
  function schedule() {
    if (scheduled || state.paused) return;
    scheduled = true;
    requestAnimationFrame(() => { scheduled = false; draw(); });
  }
  function draw() {
    if (!state.totals) return;
    drawTiles();
    drawBackends();
    drawEnds();
    drawEvents();
    drawCharts();
  }

  function perSecond(pick) {
    const [now, before] = [state.totals, state.before];
    if (!before || now.at <= before.at) return 0;
    return Math.max(0, (pick(now) - pick(before)) / (now.at - before.at));
  }
  function trafficPerSecond(pick) {
    const { now, before } = state.traffic;
    return before ? Math.max(0, (pick(now) - pick(before)) / (now.at - before.at)) : 0;
  }
  function drawTiles() {
    const { sessions, traffic, kernel } = state.totals;
    const ended = sum(sessions.ended);
    setText($("t-open"), count(sessions.open));
    setText($("t-kernel"), kernel.available ? count(kernel.sessions) + " in the kernel" : "");
    const others = kernel.relays.filter((each) => each.relay !== "kernel" && each.sessions).map((each) => count(each.sessions) + " " + each.reason);
    $("t-kernel").title = kernel.available
      ? "Sessions whose bytes the kernel moves; there is room for " + count(kernel.capacity) + (others.length ? "; the daemon moves those of " + others.join(", ") : "")
      : "";
    setText($("t-opened"), rate(perSecond((t) => t.sessions.opened)));
    setText($("t-opened-total"), count(sessions.opened) + " in all");
    setText($("t-ended"), rate(perSecond((t) => sum(t.sessions.ended))));
    setText($("t-ended-total"), count(ended) + " in all");
    setText($("t-messages"), rate(trafficPerSecond((t) => t.messagesIn + t.messagesOut)));
    setText($("t-messages-total"), short(traffic.messagesIn) + " in, " + short(traffic.messagesOut) + " out");
    const [value, unit] = bytes(trafficPerSecond((t) => t.bytesIn + t.bytesOut));
    setText($("t-bytes"), value);
    setText($("t-bytes-unit"), unit + "/s");
    setText($("t-bytes-total"), bytes(traffic.bytesIn).join(" ") + " in, " + bytes(traffic.bytesOut).join(" ") + " out");
    let ready = 0, total = 0;
    const troubles = {};
    for (const row of state.backends.values()) {
      if (row.state === "removed") continue;
      total += 1;
      if (WELL.has(row.state)) ready += 1;
      else troubles[row.state] = (troubles[row.state] || 0) + 1;
    }
    setText($("t-ready"), count(ready));
    setText($("t-backends"), "of " + count(total));
    setText($("t-troubled"), Object.entries(troubles).map(([name, n]) => n + " " + (STATES[name] || ["", name])[1]).join(", ") || (total ? "all well" : ""));
    const hello = state.hello;
    setText($("server"), hello.server);
    setText($("about"), "version " + hello.version + ", up " + span(nowServer() - hello.startedAt));
    document.title = count(sessions.open) + " sessions - trio-wsb";
    const last = hello.configuration.lastReload;
    const problem = state.events.find((event) => event.kind === "reloaded" || event.kind === "reload_failed");
    const failed = problem ? problem.kind === "reload_failed" : last !== null && !last.succeeded;
    $("notice").hidden = !failed;
    if (failed) setText($("notice"), "The last reload failed, the configuration before it is in force: " + (problem ? problem.details.problem : last.problems[0]));
  }

  // Backends: rows are made once for each backend and changed in place.
  const rows = new Map();
  const rank = { down: 0, cooling_down: 0, draining: 1, full: 2, off: 3, drained: 3, removed: 4, ready: 5 };
  const orders = {
    load: (a, b) => loadOf(b) - loadOf(a),
    least: (a, b) => loadOf(a) - loadOf(b),
    trouble: (a, b) => (rank[a.state] ?? 0) - (rank[b.state] ?? 0),
    name: () => 0,
  };
  function drawBackends() {
    const wanted = state.search.toLowerCase().split(/\s+/).filter(Boolean);
    const all = [...state.backends.values()];
    const most = 1.03 * Math.max(1, ...all.map((row) => Math.max(loadOf(row), row.reported || 0)));
    const found = all.filter((row) => {
      const text = [row.url, row.podName, row.nodeName, row.service, row.state].join(" ").toLowerCase();
      return wanted.every((word) => text.includes(word));
    });
    const order = orders[state.order];
    found.sort((a, b) => order(a, b) || nameOf(a).localeCompare(nameOf(b), "en", { numeric: true }) || a.key.localeCompare(b.key));
    const shown = found.slice(0, state.shown);
    const body = $("backends").tBodies[0];
    const keep = new Set(shown.map((row) => row.key));
    for (const [key, row] of rows) if (!keep.has(key)) { row.node.remove(); rows.delete(key); }
    const several = new Set(all.map((row) => row.service)).size > 1;
    shown.forEach((data, index) => {
      let row = rows.get(data.key);
      if (!row) rows.set(data.key, (row = makeRow(data)));
      fillRow(row, data, most, several);
      if (body.children[index] !== row.node) body.insertBefore(row.node, body.children[index] || null);
    });
    setText($("backend-count"), found.length === all.length ? count(all.length) + (all.length === 1 ? " backend" : " backends") : count(found.length) + " of " + count(all.length) + " backends");
    $("backend-more").hidden = found.length <= shown.length;
  }
  function makeRow(data) {
    const name = el("button", { type: "button", class: "name", title: "Show its sessions" });
    name.addEventListener("click", () => showSessionsOf(data.url));
    const under = el("span", { class: "under" });
    const pill = el("span", { class: "pill" });
    const why = el("span", { class: "under" });
    const [foreign, ours, mark] = ["of-foreign", "of-ours", "of-mark"].map((part) => el("span", { class: part }));
    const bar = el("div", { class: "bar", role: "img" }, foreign, ours, mark);
    const cell = (label) => el("td", { class: "n", "data-label": label }, el("span"));
    const cells = ["Ours", "Elsewhere", "Reported", "Report"].map(cell);
    const node = el("tr", {}, el("th", { scope: "row" }, name, under), el("td", { "data-label": "State" }, el("div", {}, pill, why)), el("td", { class: "bar-cell" }, bar), ...cells);
    bar.setAttribute("role", "img");
    return { node, name, under, pill, why, bar, foreign, ours, mark, cells: cells.map((each) => each.firstChild) };
  }
  function fillRow(row, data, most, several) {
    const load = loadOf(data);
    setText(row.name, nameOf(data));
    setText(row.under, (data.podName ? data.url.replace(/^https?:\/\//, "") : data.nodeName || "") + (several && data.service ? " · " + data.service : ""));
    const [kind, text] = STATES[data.state] || ["calm", data.state];
    row.pill.className = "pill " + kind;
    setText(row.pill, text);
    setText(row.why, whyOf(data));
    const part = (n) => String(Math.min(1, n / most));
    row.ours.style.setProperty("--a", part(data.live));
    row.foreign.style.setProperty("--b", part(load));
    row.mark.hidden = data.reported === null || data.reported === undefined;
    row.mark.style.setProperty("--m", "calc(" + Math.min(100, ((data.reported || 0) / most) * 100) + "% - 2px)");
    const reported = row.mark.hidden ? "–" : count(data.reported);
    row.bar.setAttribute("aria-label", count(data.live) + " ours, " + count(data.foreign || 0) + " from elsewhere, " + (row.mark.hidden ? "never reported" : reported + " reported"));
    setText(row.cells[0], count(data.live));
    setText(row.cells[1], data.foreign === undefined ? "–" : count(data.foreign));
    setText(row.cells[2], reported);
    setText(row.cells[3], data.reportedAt ? span(nowServer() - data.reportedAt) + " ago" : row.mark.hidden ? "–" : "");
    row.cells[3].className = data.reportStale || data.reportProblem ? "stale" : "";
    row.cells[3].title = data.reportProblem || "";
  }
  function whyOf(data) {
    if (data.state === "down" && data.health && data.health.problem) return data.health.problem;
    if (data.state === "cooling_down" && data.coolDownUntil) return "for " + span(data.coolDownUntil - nowServer());
    if (data.reportProblem && data.state !== "removed") return "no report: " + data.reportProblem;
    return data.handshakes ? count(data.handshakes) + " opening" : "";
  }

  // How sessions ended.
  function drawEnds() {
    const { ended, closeCodes } = state.totals.sessions;
    bars($("causes"), Object.entries(ended).filter(([, n]) => n).map(([cause, n]) => [words(cause), n, !CALM.has(cause)]), "No session has ended yet.");
    bars($("codes"), Object.entries(closeCodes).map(([code, n]) => [CLOSE_CODES[code] ? code + " " + CLOSE_CODES[code] : code, n, ["1002", "1006", "1007", "1009", "1011"].includes(code)]), "None yet.");
  }
  function bars(list, entries, none) {
    entries.sort((a, b) => b[1] - a[1]);
    const most = entries.length ? entries[0][1] : 1;
    const signature = JSON.stringify(entries);
    if (list.dataset.shown === signature) return;
    list.dataset.shown = signature;
    list.replaceChildren(...(entries.length ? entries.slice(0, 10).map(([name, n, bad]) => {
      const fill = el("i", { class: bad ? "bad" : "" });
      fill.style.setProperty("--a", String(n / most));
      return el("div", {}, el("dt", {}, name), el("dd", { class: "track", "aria-hidden": "true" }, fill), el("dd", { class: "n" }, count(n)));
    }) : [el("dd", { class: "empty" }, none)]));
  }

  // Events.
  let eventsDrawn = null;
  function drawEvents() {
    const signature = state.lastEvent + "/" + state.events.length;
    if (signature === eventsDrawn) return;
    eventsDrawn = signature;
    $("events-none").hidden = state.events.length > 0;
    $("events").replaceChildren(...state.events.map((event) => {
      const kind = { error: "bad", warning: "warn" }[event.severity] || (/_up$|^reloaded$|_ready$|_reports$|_closed$|recovered$/.test(event.kind) ? "good" : "calm");
      const details = Object.entries(event.details).filter(([, value]) => value !== null && value !== "").map(([name, value]) => name + ": " + (typeof value === "number" ? exact.format(value) : value)).join(", ");
      const time = el("time", { dateTime: new Date(event.at * 1000).toISOString(), title: new Date(event.at * 1000).toLocaleString() }, clock(event.at));
      return el("li", {}, time, el("span", { class: "pill " + kind }, words(event.kind)), el("span", { class: "what" }, details));
    }));
  }

  // Charts.
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  let colours = {};
  function readColours() {
    colours = Object.fromEntries(["line", "soft", "text", "accent", "card", "c1", "c2", "c3", "c4", "c5", "c6", "c7"].map((name) => [name, style("--" + name)]));
  }
  function surface(canvas) {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    return { pen, width, height };
  }
  function niceTop(n) {
    // Four steps of a round size each.
    const unit = 10 ** Math.floor(Math.log10(Math.max(1, n / 4)));
    return 4 * ([1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((step) => step * unit).find((step) => Number.isInteger(step) && 4 * step >= n) || n);
  }
  function window_() {
    const end = state.totals.at, first = state.points.length ? state.points[0].at : end;
    return { end, start: Math.max(end - KEPT, Math.min(first, end - 60)) };
  }
  function frame(canvas, top) {
    const { pen, width, height } = surface(canvas);
    const box = { left: 44, right: width - 8, top: 8, bottom: height - 22 };
    const { start, end } = window_();
    const x = (at) => box.left + ((at - start) / (end - start)) * (box.right - box.left);
    const y = (n) => box.bottom - (n / top) * (box.bottom - box.top);
    pen.font = "12px system-ui, 'Liberation Sans', sans-serif";
    pen.fillStyle = colours.soft;
    pen.strokeStyle = colours.line;
    pen.lineWidth = 1;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (let step = 0; step <= 4; step += 1) {
      const n = (top / 4) * step, line = Math.round(y(n)) + 0.5;
      pen.beginPath(); pen.moveTo(box.left, line); pen.lineTo(box.right, line); pen.stroke();
      pen.fillText(top < 8 ? few.format(n) : short(n), box.left - 7, line);
    }
    pen.textBaseline = "alphabetic";
    let every = end - start > 150 ? 60 : 15;
    while (every < end - start && x(start + every) - x(start) < 80) every *= 2;
    for (let minute = Math.ceil(start / every) * every; minute <= end; minute += every) {
      const at = x(minute);
      pen.textAlign = at < box.left + 20 ? "left" : at > box.right - 20 ? "right" : "center";
      pen.fillText(new Date(minute * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: every < 60 ? "2-digit" : undefined, hour12: false }), at, height - 5);
    }
    return { pen, box, x, y, width, height };
  }
  function pointAt(canvas) {
    if (!state.hover || state.hover.canvas !== canvas || !state.points.length) return null;
    return state.points.reduce((best, point) => (Math.abs(point.at - state.hover.at) < Math.abs(best.at - state.hover.at) ? point : best));
  }
  function cross(canvas, { pen, box, x }, point) {
    if (!point) return;
    pen.strokeStyle = colours.soft;
    pen.setLineDash([3, 3]);
    pen.beginPath(); pen.moveTo(x(point.at), box.top); pen.lineTo(x(point.at), box.bottom); pen.stroke();
    pen.setLineDash([]);
  }
  function legend(list, entries, point) {
    const items = entries.map(([name, colour, value]) => el("li", {}, el("i", { class: "s" + colour, "aria-hidden": "true" }), el("span", { title: name }, name), el("b", {}, value)));
    if (point) items.push(el("li", { class: "when" }, clock(point.at)));
    list.replaceChildren(...items);
  }
  function drawCharts() {
    drawSpread();
    drawRate();
    drawSpark();
  }
  function drawSpread() {
    const canvas = $("spread"), points = state.points.filter((point) => point.at >= window_().start);
    const weight = new Map();
    for (const point of points) for (const [key, n] of Object.entries(point.live)) weight.set(key, Math.max(weight.get(key) || 0, n));
    const chosen = [...weight].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).slice(0, SERIES).map(([key]) => key).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const others = weight.size > SERIES;
    const layers = [...chosen.map((key, index) => ({ key, colour: index + 1, of: (point) => point.live[key] || 0 }))];
    if (others) layers.push({ key: null, colour: 7, of: (point) => Math.max(0, point.open - chosen.reduce((n, key) => n + (point.live[key] || 0), 0)) });
    const top = niceTop(Math.max(1, ...points.map((point) => point.open)));
    const drawn = frame(canvas, top);
    const { pen, x, y } = drawn;
    const floor = points.map(() => 0);
    for (const layer of layers) {
      if (!points.length) break;
      const ceiling = points.map((point, index) => floor[index] + layer.of(point));
      pen.beginPath();
      points.forEach((point, index) => pen.lineTo(x(point.at), y(ceiling[index])));
      for (let index = points.length - 1; index >= 0; index -= 1) pen.lineTo(x(points[index].at), y(floor[index]));
      pen.closePath();
      pen.fillStyle = colours["c" + layer.colour];
      pen.globalAlpha = 0.82;
      pen.fill();
      pen.globalAlpha = 1;
      pen.strokeStyle = colours.card;
      pen.lineWidth = 1.5;
      pen.beginPath();
      points.forEach((point, index) => pen.lineTo(x(point.at), y(ceiling[index])));
      pen.stroke();
      ceiling.forEach((n, index) => { floor[index] = n; });
    }
    const hovered = pointAt(canvas), point = hovered || points[points.length - 1];
    cross(canvas, drawn, hovered);
    const name = (key) => (key === null ? "others" : state.backends.has(key) ? nameOf(state.backends.get(key)) : key.split(" ")[1]);
    legend($("spread-legend"), layers.map((layer) => [name(layer.key), layer.colour, point ? count(layer.of(point)) : "0"]), hovered);
    canvas.setAttribute("aria-label", "Sessions by backend over the last minutes. " + (point ? "At " + clock(point.at) + ": " + layers.map((layer) => name(layer.key) + " " + count(layer.of(point))).join(", ") : "No sessions yet") + ".");
  }
  function rates() {
    const points = state.points, found = [];
    for (let index = 1; index < points.length; index += 1) {
      const seconds = points[index].at - points[index - 1].at;
      if (seconds <= 0) continue;
      found.push({ at: points[index].at, opened: Math.max(0, points[index].opened - points[index - 1].opened) / seconds, ended: Math.max(0, points[index].ended - points[index - 1].ended) / seconds });
    }
    return found.filter((each) => each.at >= window_().start);
  }
  function drawRate() {
    const canvas = $("rate"), found = rates();
    const drawn = frame(canvas, niceTop(Math.max(1, ...found.map((each) => Math.max(each.opened, each.ended)))));
    const { pen, x, y } = drawn;
    for (const [pick, colour] of [["ended", "c3"], ["opened", "c1"]]) {
      pen.beginPath();
      found.forEach((each) => pen.lineTo(x(each.at), y(each[pick])));
      pen.strokeStyle = colours[colour];
      pen.lineWidth = 2;
      pen.lineJoin = "round";
      pen.stroke();
    }
    const near = pointAt(canvas), hovered = near && found.find((each) => each.at === near.at);
    const last = hovered || found[found.length - 1] || { opened: 0, ended: 0 };
    cross(canvas, drawn, hovered);
    legend($("rate-legend"), [["opened", 1, rate(last.opened) + "/s"], ["ended", 3, rate(last.ended) + "/s"]], hovered);
    canvas.setAttribute("aria-label", "Session rate: " + rate(last.opened) + " opened and " + rate(last.ended) + " ended per second.");
  }
  function drawSpark() {
    const { pen, width, height } = surface($("spark"));
    const points = state.points.slice(-120);
    if (points.length < 2) return;
    const most = Math.max(1, ...points.map((point) => point.open));
    const x = (index) => (index / (points.length - 1)) * width, y = (n) => height - 2 - (n / most) * (height - 6);
    pen.beginPath();
    pen.moveTo(0, height);
    points.forEach((point, index) => pen.lineTo(x(index), y(point.open)));
    pen.lineTo(width, height);
    pen.closePath();
    const wash = pen.createLinearGradient(0, 0, width, 0);
    wash.addColorStop(0, "transparent");
    wash.addColorStop(0.5, colours.accent);
    wash.addColorStop(1, colours.accent);
    pen.fillStyle = wash;
    pen.globalAlpha = 0.16;
    pen.fill();
    pen.globalAlpha = 1;
  }
  function follow(canvas) {
    const at = (x) => { const { start, end } = window_(); return start + ((x - 44) / Math.max(1, canvas.clientWidth - 52)) * (end - start); };
    canvas.addEventListener("pointermove", (event) => { if (state.totals) { state.hover = { canvas, at: at(event.offsetX) }; schedule(); } });
    const leave = () => { state.hover = null; schedule(); };
    canvas.addEventListener("pointerleave", leave);
    canvas.addEventListener("blur", leave);
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -5, ArrowRight: 5, Home: -KEPT, End: KEPT }[event.key];
      if (event.key === "Escape") leave();
      if (!step || !state.totals) return;
      event.preventDefault();
      const { start, end } = window_();
      const from = state.hover && state.hover.canvas === canvas ? state.hover.at : end;
      state.hover = { canvas, at: Math.min(end, Math.max(start, from + step)) };
      schedule();
    });
  }

  // Sessions: the server pages and searches; this asks.
  const table = { offset: 0, total: 0, backend: null, request: 0, timer: null };
  async function loadSessions(quietly) {
    clearTimeout(table.timer);
    table.timer = setTimeout(() => loadSessions(true), SESSIONS_EVERY);
    if (quietly && (document.hidden || state.paused)) return;
    const number = (table.request += 1);
    const url = api("sessions");
    url.search = new URLSearchParams({ limit: SESSIONS_SHOWN, offset: table.offset, order: $("session-order").value, search: $("session-search").value.trim(), ...(table.backend ? { backend: table.backend } : {}) });
    try {
      const answer = await fetch(url, { cache: "no-store", credentials: "same-origin" });
      if (number !== table.request) return; // a later one is under way
      if (!answer.ok) throw new Error("the server answers " + answer.status);
      const page = await answer.json();
      if (number !== table.request) return;
      table.total = page.total;
      if (page.total && table.offset >= page.total) { table.offset = Math.floor((page.total - 1) / SESSIONS_SHOWN) * SESSIONS_SHOWN; loadSessions(); return; }
      fillSessions(page);
    } catch (error) {
      if (number === table.request) setText($("session-count"), "cannot be loaded: " + error.message);
    }
  }
  function fillSessions(page) {
    const pods = new Map([...state.backends.values()].map((row) => [row.url, nameOf(row)]));
    const body = $("sessions").tBodies[0];
    const line = (each) => {
      const cell = (label, ...text) => el("td", { class: "n", "data-label": label }, el("span", {}, ...text));
      return el("tr", {},
        el("td", { "data-label": "No." }, el("span", {}, String(each.session), each.relay === "kernel" ? el("span", { class: "under", title: "The kernel moves its bytes" }, "kernel") : null)),
        el("td", { "data-label": "Client" }, el("span", {}, each.client)),
        el("td", { "data-label": "Path" }, el("span", {}, each.path, el("span", { class: "under" }, each.host))),
        el("td", { "data-label": "Service" }, el("span", {}, each.service, el("span", { class: "under" }, each.entryPoint))),
        el("td", { "data-label": "Backend" }, el("span", {}, pods.get(each.backend) || each.backend.replace(/^https?:\/\//, ""), each.draining ? el("span", { class: "under" }, "draining") : null)),
        cell("Age", span(each.duration)),
        cell("Messages", short(each.messagesIn) + " / " + short(each.messagesOut)),
        cell("Bytes", bytes(each.bytesIn).join(" ") + " / " + bytes(each.bytesOut).join(" ")));
    };
    const searching = table.backend || $("session-search").value.trim();
    body.replaceChildren(...(page.sessions.length ? page.sessions.map(line) : [el("tr", {}, el("td", { colSpan: 8, class: "empty" }, searching ? "No live session fits." : "No session is live."))]));
    const last = page.offset + page.sessions.length;
    setText($("session-count"), count(page.total) + (searching ? " fit" : " live"));
    setText($("session-page"), page.total ? count(page.offset + 1) + " to " + count(last) + " of " + count(page.total) : "");
    $("session-prev").disabled = page.offset === 0;
    $("session-next").disabled = last >= page.total;
  }
  function showSessionsOf(url) {
    table.backend = url;
    table.offset = 0;
    $("session-filter").hidden = url === null;
    const row = [...state.backends.values()].find((each) => each.url === url);
    setText($("session-filter").firstElementChild, url === null ? "" : "At " + (row ? nameOf(row) : url));
    loadSessions();
    if (url !== null) { $("h-sessions").scrollIntoView({ block: "start" }); $("session-search").focus({ preventScroll: true }); }
  }

  // The link.
  let socket = null, tries = 0, timer = null, watchdog = null;
  function show(link, text) { $("link").dataset.state = link; setText($("link-text"), text); }
  function connect() {
    clearTimeout(timer);
    if (socket) return;
    show(tries ? "lost" : "connecting", tries ? "reconnecting" : "connecting");
    const url = api("events");
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const mine = (socket = new WebSocket(url));
    const alive = () => { clearTimeout(watchdog); watchdog = setTimeout(() => mine.close(), SILENCE); };
    alive();
    mine.addEventListener("message", (event) => {
      if (mine !== socket) return;
      alive();
      let message;
      try { message = JSON.parse(event.data); } catch { return; }
      if (message.type === "hello") { tries = 0; if (!state.paused) show("live", "live"); loadSessions(); }
      take(message);
    });
    mine.addEventListener("close", () => {
      if (mine !== socket) return;
      socket = null;
      clearTimeout(watchdog);
      tries += 1;
      // Many dashboards must not come back at the same instant after a restart.
      const seconds = Math.min(15, 2 ** Math.min(tries, 4)) * (0.5 + Math.random() / 2);
      show("lost", "lost, trying again in " + Math.ceil(seconds) + " s");
      timer = setTimeout(connect, seconds * 1000);
    });
  }

  // Colours.
  const themes = ["auto", "light", "dark"];
  function theme(name) {
    if (name === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
    setText($("theme-text"), words(name));
    try { localStorage.setItem("trio-wsb-theme", name); } catch { /* it is only forgotten */ }
    readColours();
    schedule();
  }
  function rememberedTheme() {
    try { const name = localStorage.getItem("trio-wsb-theme"); return themes.includes(name) ? name : "auto"; } catch { return "auto"; }
  }

  function later(work, ms) { let pending; return () => { clearTimeout(pending); pending = setTimeout(work, ms); }; }
  $("theme").addEventListener("click", () => theme(themes[(themes.indexOf(document.documentElement.dataset.theme || "auto") + 1) % themes.length]));
  $("pause").addEventListener("click", () => {
    state.paused = !state.paused;
    $("pause").setAttribute("aria-pressed", String(state.paused));
    setText($("pause"), state.paused ? "Go on" : "Pause");
    if (socket && socket.readyState === WebSocket.OPEN) show(state.paused ? "paused" : "live", state.paused ? "paused" : "live");
    if (!state.paused) { schedule(); loadSessions(); }
  });
  $("backend-search").addEventListener("input", (event) => { state.search = event.target.value; state.shown = BACKENDS_SHOWN; schedule(); });
  $("backend-order").addEventListener("change", (event) => { state.order = event.target.value; schedule(); });
  $("backend-more").addEventListener("click", () => { state.shown += 100; schedule(); });
  $("session-search").addEventListener("input", later(() => { table.offset = 0; loadSessions(); }, 250));
  $("session-order").addEventListener("change", () => { table.offset = 0; loadSessions(); });
  $("session-prev").addEventListener("click", () => { table.offset = Math.max(0, table.offset - SESSIONS_SHOWN); loadSessions(); });
  $("session-next").addEventListener("click", () => { if (table.offset + SESSIONS_SHOWN < table.total) { table.offset += SESSIONS_SHOWN; loadSessions(); } });
  $("session-filter-off").addEventListener("click", () => showSessionsOf(null));
  document.addEventListener("visibilitychange", () => { if (!document.hidden) { if (!socket) connect(); schedule(); loadSessions(true); } });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); schedule(); });
  new ResizeObserver(() => schedule()).observe(document.body);
  follow($("spread"));
  follow($("rate"));
  theme(rememberedTheme());
  connect();
})();
