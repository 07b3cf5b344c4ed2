// Theme, sorting, blink compare, and the charts of this page's data.
const DATA = JSON.parse(document.getElementById("data").textContent);
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];

// Theme: system, light, dark; remembered where the browser lets a file remember.
const THEMES = ["system", "light", "dark"];
const themeButton = document.getElementById("theme");
function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  themeButton.querySelector("span").textContent = theme;
  try { localStorage.setItem("theme", theme); } catch { /* a file may not remember */ }
}
let remembered = "system";
try { remembered = localStorage.getItem("theme") ?? "system"; } catch { /* a file may not remember */ }
setTheme(THEMES.includes(remembered) ? remembered : "system");
themeButton.onclick = () => {
  const at = THEMES.indexOf(themeButton.querySelector("span").textContent);
  setTheme(THEMES[(at + 1) % THEMES.length]);
};

// Charts.
const hidden = new Set();
const redraw = [];
const logY = document.getElementById("logy"), byImages = document.getElementById("byimages");
function runLook(index) {
  const run = DATA.runs[index];
  return { colour: run.colour, dash: DASHES[run.dash % DASHES.length] };
}
function drawLosses() {
  redraw.length = 0;
  for (const host of document.querySelectorAll("[data-losses]")) {
    host.replaceChildren();
    for (const chart of DATA.losses[host.dataset.losses]) {
      const series = chart.series.map((one) => ({
        name: one.name, ...runLook(one.run), hidden: () => hidden.has(one.run),
        points: one.points.map(([x, y], at) => [byImages.checked ? one.images[at] : x, y]),
      }));
      redraw.push(lineChart(host, { title: chart.title, x: byImages.checked ? "images" : "step", logY: () => logY.checked, series }));
    }
  }
}
drawLosses();
byImages.onchange = drawLosses;
logY.onchange = () => redraw.forEach((draw) => draw());
for (const button of document.querySelectorAll("[data-run]"))
  button.onclick = () => {
    const run = Number(button.dataset.run);
    if (!hidden.delete(run)) hidden.add(run);
    button.setAttribute("aria-pressed", String(!hidden.has(run)));
    redraw.forEach((draw) => draw());
  };
for (const host of document.querySelectorAll("[data-similarities]"))
  for (const layer of DATA.similarities[Number(host.dataset.similarities)].layers) histogram(host, layer);
for (const host of document.querySelectorAll("[data-sweeps]"))
  for (const chart of DATA.sweeps) {
    const names = chart.series.map((one) => one.name.replace("paper: ", "").split(",")[0].toLowerCase());
    const own = [...new Set(names)];
    const series = chart.series.map((one, at) => ({ ...one, colour: own.indexOf(names[at]) % 8, dash: one.paper ? "5 4" : "" }));
    lineChart(host, { title: chart.title, x: chart.x, log: true, markers: true, key: true, series });
  }

// Galleries: sorting, columns.
function scoreOf(scores, choice) {
  const [key, which] = choice.split(":");
  const values = scores[key] ?? [];
  if (which !== "spread") return values[Number(which)] ?? null;
  const there = values.filter((value) => value !== null);
  return there.length > 1 ? Math.max(...there) - Math.min(...there) : null;
}
for (const gallery of document.querySelectorAll(".gallery")) {
  const items = gallery.querySelector(".items"), choice = gallery.querySelector(".sort"), order = gallery.querySelector(".order");
  if (!items.firstElementChild) continue; // images=0: means only
  const data = DATA.galleries[Number(gallery.dataset.gallery)];
  const sort = () => {
    const sign = order.getAttribute("aria-pressed") === "true" ? -1 : 1;
    const value = (article) => scoreOf(data[Number(article.dataset.item)].scores, choice.value);
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (choice.value !== "name" && x !== y) return x === null ? 1 : y === null ? -1 : sign * (x - y);
      return (choice.value === "name" ? sign : 1) * (Number(a.dataset.item) - Number(b.dataset.item));
    };
    items.append(...[...items.children].sort(compare));
  };
  choice.onchange = sort;
  order.onclick = () => {
    const highest = order.getAttribute("aria-pressed") !== "true";
    order.setAttribute("aria-pressed", String(highest));
    order.textContent = highest ? "highest first" : "lowest first";
    sort();
  };
  for (const button of gallery.querySelectorAll("[data-column]"))
    button.onclick = () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      for (const figure of gallery.querySelectorAll(`figure[data-role="${button.dataset.column}"]`)) figure.hidden = !on;
      const shown = items.querySelector(".row")?.querySelectorAll("figure:not([hidden])").length;
      items.style.setProperty("--columns", shown || 1);
    };
  for (const view of gallery.querySelectorAll(".view"))
    view.onclick = () => compare.open(view.closest("article"), view.closest("figure").dataset.role);
  gallery.querySelector(".blink").onclick = () => {
    compare.open(items.firstElementChild, null);
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) compare.blink(true);
  };
}

// Two pictures of one input in one place.
const compare = (() => {
  const dialog = document.getElementById("compare"), stage = dialog.querySelector(".stage"), said = dialog.querySelector(".shown");
  const [first, second] = [stage.querySelector(".a"), stage.querySelector(".b")];
  const [pickA, pickB] = [dialog.querySelector(".pick-a"), dialog.querySelector(".pick-b")];
  const button = (name) => dialog.querySelector(`[data-do="${name}"]`);
  let article = null, timer = null;
  const figures = () => [...article.querySelectorAll("figure")].filter((figure) => !figure.hidden && figure.querySelector("img"));
  const role = (name) => figures().find((figure) => figure.dataset.role === name);
  const caption = (figure) => (figure.querySelector("figcaption .chip") ?? figure.querySelector("figcaption")).textContent.trim();
  const detail = (figure) => figure.querySelector("figcaption").textContent.replace(/\s+/g, " ").trim();

  function show() {
    dialog.querySelector(".title").textContent = article.dataset.name;
    for (const [image, select] of [[first, pickA], [second, pickB]]) {
      const source = role(select.value)?.querySelector("img");
      if (!source) {
        image.removeAttribute("src");
        image.alt = "";
        continue;
      }
      image.src = source.src;
      image.alt = source.alt;
      const room = Math.min((dialog.clientWidth - 30) / source.naturalWidth, (innerHeight * 0.68) / source.naturalHeight);
      const factor = room > 1 ? Math.min(Math.floor(room), 8) : room;
      image.width = Math.round(source.naturalWidth * (factor || 1));
    }
    say();
  }
  function say() {
    const difference = stage.classList.contains("difference");
    const [a, b] = [role(pickA.value), role(pickB.value)];
    if (!a || !b) return;
    said.textContent = difference ? `|A - B|: ${caption(a)}, ${caption(b)}` : stage.classList.contains("second") ? `B: ${detail(b)}` : `A: ${detail(a)}`;
  }
  function fill() {
    const known = figures().map((figure) => [figure.dataset.role, caption(figure)]);
    for (const select of [pickA, pickB]) {
      const kept = select.value;
      select.replaceChildren(...known.map(([value, text]) => new Option(text, value)));
      if (known.some(([value]) => value === kept)) select.value = kept;
    }
  }
  function swap() { stage.classList.toggle("second"); say(); }
  function blink(on) {
    clearInterval(timer);
    timer = on ? setInterval(swap, 700) : null;
    button("blink").setAttribute("aria-pressed", String(on));
    if (on) difference(false);
  }
  function difference(on) {
    stage.classList.toggle("difference", on);
    button("difference").setAttribute("aria-pressed", String(on));
    if (on) blink(false);
    say();
  }
  function step(by) {
    const all = [...article.parentElement.children];
    article = all[(all.indexOf(article) + by + all.length) % all.length];
    fill();
    show();
  }
  const deeds = {
    previous: () => step(-1), next: () => step(1), close: () => dialog.close(), swap,
    blink: () => blink(timer === null), difference: () => difference(!stage.classList.contains("difference")),
  };
  for (const one of dialog.querySelectorAll("[data-do]")) one.onclick = deeds[one.dataset.do];
  pickA.onchange = pickB.onchange = show;
  dialog.onclose = () => blink(false);
  dialog.onkeydown = (event) => {
    if (event.target.matches("select") && event.key.startsWith("Arrow")) return;
    const deed = { ArrowLeft: "previous", ArrowRight: "next", b: "blink", d: "difference", " ": "swap" }[event.key];
    if (!deed || (event.key === " " && event.target.matches("button, select"))) return;
    event.preventDefault();
    deeds[deed]();
  };
  return {
    blink,
    open(which, chosen) {
      article = which;
      fill();
      const there = figures().map((figure) => figure.dataset.role).filter((name) => name !== "source");
      pickA.value = chosen ?? there[0];
      pickB.value = there.filter((name) => name !== pickA.value).at(-1) ?? "source";
      stage.classList.remove("second", "difference");
      button("difference").setAttribute("aria-pressed", "false");
      dialog.showModal();
      dialog.focus();
      show();
    },
  };
})();

document.addEventListener("keydown", (event) => {
  if (event.key === "t" && !event.ctrlKey && !event.metaKey && !event.altKey && !event.target.matches("select, input")) themeButton.click();
});
