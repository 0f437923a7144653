// The page of `synth-ct corpus view`. All text comes from the data block and is set as text, never as markup.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const solid = new Set(data.volumes);
  const states = {
    passed: "✓ passed every check",
    flagged: "! failed a check, kept",
    rejected: "✕ failed a check, no volume",
  };
  const windows = {
    "lung and soft tissue": [-1000, 500], lung: [-1350, 150], "soft tissue": [-160, 240], bone: [-200, 1000],
  };
  const layouts = { "planes and rendering": 3, axial: 0, coronal: 1, sagittal: 2, rendering: 4 };
  const any = "any";
  let chosen = null;
  let viewer = null;
  let order = 0;

  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const number = (value) => (value === null || value === undefined ? "none" : String(Number(value.toPrecision(4))));
  const fill = (select, words, all) => {
    const options = (all ? [any] : []).concat(words);
    select.replaceChildren(...options.map((word) => new Option(word === "" ? "not said" : word, word)));
  };
  const value = (row, name) => (name === "oddness" ? row.odd : row.figures[name] ?? null);

  // ---- what the corpus is ---------------------------------------------------------------------

  const introduce = () => {
    const counts = data.counts;
    $("what").textContent = data.what.replace(/^SYNTHETIC:?\s*/, "");
    $("title").textContent = data.title;
    const phantom = data.evidence === "phantom" ? " Phantoms were involved: it shows machinery, not patients." : "";
    $("facts").textContent =
      `${counts.committed} volumes of ${counts.total} items (${counts.rejected} rejected, ${counts.quarantined} ` +
      `quarantined). Scale: ${data.scale}. Learned from: ${data.trained_on}.${phantom}`;
    $("sources").replaceChildren(
      ...data.sources.concat(data.cautions).map((text) => make("li", text)),
      make("li", `digest ${data.digest}`), make("li", `generator ${data.model}`),
    );
    const films = data.films ? ` It holds ${data.films} radiographs: do not pass it on as if it held none.` : "";
    const part = data.rows.length < data.made ? "evenly spaced in the order of their ids, which are hashes" : "all";
    $("rule").textContent =
      `Shown: ${data.rows.length} of ${data.made} made (${part}). ${solid.size} of them can be opened in 3D: even ` +
      "quantiles from the most usual volume to the oddest, as many as a page can hold. Oddness is the distance of " +
      `the farthest figure from the corpus' median, in interquartile ranges.${films}`;
  };

  // ---- which are shown ------------------------------------------------------------------------

  const matches = (row) => {
    const fits = (select, word) => select.value === any || select.value === word;
    const measured = value(row, $("figure").value);
    const least = $("least").value, most = $("most").value;
    return fits($("class"), row.class) && fits($("state"), row.state) && fits($("reason"), row.reason) &&
      fits($("split"), row.split) && (!$("solid").checked || solid.has(row.id)) &&
      (least === "" || (measured !== null && measured >= Number(least))) &&
      (most === "" || (measured !== null && measured <= Number(most)));
  };
  const sorted = (rows) => {
    const name = $("sort").value, sign = $("falling").checked ? -1 : 1;
    if (name === "id") return rows.slice().sort((a, b) => sign * (a.id < b.id ? -1 : 1));
    return rows.slice().sort((a, b) => {
      const x = value(a, name), y = value(b, name);
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (x - y);
    });
  };
  const card = (row) => {
    const button = make("button", undefined, "card");
    button.type = "button";
    button.dataset.id = row.id;
    button.setAttribute("aria-pressed", String(chosen === row.id));
    if (row.preview) {
      const image = make("img");
      image.src = row.preview;
      image.alt = "axial, coronal and sagittal slice";
      image.loading = "lazy";
      button.append(image);
    } else button.append(make("span", "no picture", "none"));
    const openable = solid.has(row.id) ? "3D · " : "";
    const figure = ["id"].includes($("sort").value) ? "" : ` · ${$("sort").value} ${number(value(row, $("sort").value))}`;
    button.append(
      make("span", `${openable}${row.class || "class not said"} · ${row.split}${figure}`),
      make("span", states[row.state] + (row.reason ? `: ${row.reason}` : ""), row.state),
    );
    button.addEventListener("click", () => open(row));
    return button;
  };
  const list = () => {
    const rows = sorted(data.rows.filter(matches));
    $("grid").replaceChildren(...rows.map(card));
    $("count").textContent = `${rows.length} of ${data.rows.length} shown`;
  };
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -2, ArrowDown: 2, Home: -Infinity, End: Infinity };
  const walk = (event) => {
    if (!(event.key in steps)) return;
    const cards = [...$("grid").children];
    const here = cards.indexOf(document.activeElement);
    if (here < 0) return;
    const across = cards.filter((each) => each.offsetTop === cards[0].offsetTop).length;
    const step = Math.abs(steps[event.key]) === 2 ? (steps[event.key] / 2) * across : steps[event.key];
    cards[Math.max(0, Math.min(cards.length - 1, here + step))].focus();
    event.preventDefault();
  };

  // ---- one of them ----------------------------------------------------------------------------

  const note = (text) => { $("stage-note").textContent = text; };
  const describe = (row) => {
    $("name").textContent = row.id;
    $("verdict").textContent = states[row.state] + (row.reason ? `: ${row.reason}` : "");
    $("verdict").className = row.state;
    const facts = {
      class: row.class || "not said", split: row.split, sampler: row.sampler,
      voxels: row.shape.join(" × "), "spacing (mm)": row.spacing.map(number).join(" × "), oddness: number(row.odd),
    };
    $("details").replaceChildren(
      ...Object.entries(facts).flatMap(([name, said]) => [make("dt", name), make("dd", said)]),
    );
    $("film-figure").hidden = !row.film;
    if (row.film) $("film").src = row.film;
    const table = $("figures").tBodies[0];
    table.replaceChildren(...Object.entries(data.figures).map(([name, spread]) => figureLine(row, name, spread)));
  };
  const figureLine = (row, name, [low, , median, , high]) => {
    const line = make("tr"), bar = make("td", undefined, "bar"), track = make("div", undefined, "track");
    const place = (x) => `${100 * Math.max(0, Math.min(1, high > low ? (x - low) / (high - low) : 0.5))}%`;
    const notch = make("i"), dot = make("b"), measured = value(row, name);
    notch.style.left = place(median);
    track.append(notch);
    if (measured !== null) {
      dot.style.left = place(measured);
      track.append(dot);
    }
    bar.append(track);
    line.append(make("td", name), make("td", number(measured), "number"), bar);
    return line;
  };
  const bytes = (id) => Uint8Array.from(atob($(`volume-${id}`).textContent), (letter) => letter.charCodeAt(0)).buffer;
  const start = async () => {
    if (!document.createElement("canvas").getContext("webgl2")) return null;
    const made = new niivue.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [0.94, 0.89, 0.26, 0.8], crosshairWidth: 0.3, show3Dcrosshair: false,
      isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarShowRender: 1, multiplanarLayout: 2,
      multiplanarPadPixels: 4, loadingText: "", dragAndDropEnabled: false, logLevel: "error", isOrientCube: false,
      fontMinPx: 15, fontColor: [0.94, 0.89, 0.26, 1], fontSizeScaling: 0.7, clipPlaneColor: [0, 0, 0, 0], isAlphaClipDark: true, scrollRequiresFocus: true,
    });
    await made.attachToCanvas($("canvas"));
    made.setRenderAzimuthElevation(155, 12);
    await made.setVolumeRenderIllumination(0.4);
    made.onLocationChange = (place) => {
      const [x, y, z] = place.vox, hu = place.values.length ? place.values[0].value : NaN;
      $("where").textContent = `voxel ${x}, ${y}, ${z}: ${Math.round(hu)} HU`;
    };
    return made;
  };
  const dress = () => {
    if (!viewer || !viewer.volumes.length) return;
    const [low, high] = windows[$("window").value];
    viewer.volumes[0].cal_min = low;
    viewer.volumes[0].cal_max = high;
    viewer.updateGLVolume();
    viewer.setSliceType(layouts[$("layout").value]);
    viewer.setClipPlane($("cut").checked ? [0.05, 180, 0] : [2, 0, 0]);
    viewer.drawScene();
  };
  const load = async (row) => {
    const mine = ++order;
    if (!solid.has(row.id)) {
      clear();
      return note(row.state === "rejected" ? "no volume was kept" : "its volume is not in this page; the corpus has it");
    }
    viewer = viewer ?? (await start());
    if (!viewer) return note("this browser has no WebGL 2: thumbnails only");
    note("opening");
    clear();
    await viewer.loadFromArrayBuffer(bytes(row.id), `${row.id}.nii.gz`);
    if (mine !== order) return;
    while (viewer.volumes.length > 1) viewer.removeVolumeByIndex(0);
    dress();
    const [, x, y, z] = viewer.volumes[0].dims.length > 3 ? viewer.volumes[0].dims : [3, ...viewer.volumes[0].dims];
    note([x, y, z].join() === row.shape.join() ? "" : "the file's shape is not the manifest's: verify the corpus");
    $("stage").dataset.shown = row.id;
    $("stage").dataset.dims = [x, y, z].join();
  };
  const clear = () => {
    delete $("stage").dataset.shown;
    if (!viewer) return;
    while (viewer.volumes.length) viewer.removeVolumeByIndex(0);
    $("where").textContent = "";
  };
  const open = async (row) => {
    chosen = row.id;
    for (const each of $("grid").children) each.setAttribute("aria-pressed", String(each.dataset.id === chosen));
    describe(row);
    await load(row);
    if (matchMedia("(max-width: 900px)").matches) $("viewer").scrollIntoView();
  };
  const moves = {
    ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1],
    PageUp: [0, 1, 0], PageDown: [0, -1, 0],
  };

  // ---- begin ----------------------------------------------------------------------------------

  introduce();
  const distinct = (pick) => [...new Set(data.rows.map(pick))].sort();
  fill($("class"), distinct((row) => row.class), true);
  fill($("reason"), distinct((row) => row.reason).filter((word) => word), true);
  fill($("split"), distinct((row) => row.split), true);
  fill($("figure"), Object.keys(data.figures).concat("oddness"));
  fill($("sort"), ["id", "oddness"].concat(Object.keys(data.figures)));
  fill($("window"), Object.keys(windows));
  fill($("layout"), Object.keys(layouts));
  $("state").replaceChildren(new Option(any, any), ...Object.entries(states).map(([word, text]) => new Option(text, word)));
  $("filters").addEventListener("input", list);
  $("filters").addEventListener("reset", () => setTimeout(list));
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("grid").addEventListener("keydown", walk);
  $("canvas").addEventListener("keydown", (event) => {
    if (!(event.key in moves) || !viewer) return;
    viewer.moveCrosshairInVox(...moves[event.key]);
    event.preventDefault();
  });
  for (const id of ["window", "layout", "cut"]) $(id).addEventListener("input", dress);
  list();
  const first = data.rows.find((row) => solid.has(row.id) && row.state === "passed") ?? data.rows.find((row) => solid.has(row.id));
  if (first) open(first);
  else note("no volume is in this page");
})();
