/* What every page of the book does without a kernel and without a network:
 *
 * - draws Plotly figures (`<div class="book-plotly">` + JSON) when they come near the screen, from one local copy of the library;
 * - turns Plotly's sliders, buttons and menus into HTML ones, which keyboards and screen readers can use;
 * - gives figures the page's light or dark colours, and follows when the reader switches;
 * - marks printed outputs that are wider than the page, which then show that they scroll, and can be scrolled by keyboard;
 * - names what the theme leaves without a name, for screen readers;
 * - counts the answers of a quiz (`.quiz`, whose choices are `<details>`: they open without any script);
 * - offers `element.bookState()` on each figure, a short text that changes when the drawn data does (used by the tests).
 */
(function () {
  "use strict";

  const base = new URL(".", document.currentScript.src).href;
  let library = null;

  function loadPlotly() {
    library ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      // RequireJS, present on pages with widgets, would otherwise swallow the library as an anonymous module.
      const amd = window.define && window.define.amd;
      if (amd) window.define.amd = undefined;
      const restore = () => {
        if (amd) window.define.amd = amd;
      };
      script.src = base + "vendor/plotly/plotly.min.js";
      script.onload = () => {
        restore();
        resolve(window.Plotly);
      };
      script.onerror = () => {
        restore();
        reject(new Error("cannot load " + script.src));
      };
      document.head.append(script);
    });
    return library;
  }

  // --- colours -------------------------------------------------------------------------------------------------------

  function themeTemplate(template) {
    const dark = document.documentElement.dataset.theme === "dark";
    const style = getComputedStyle(document.body);
    const ink = style.getPropertyValue("--pst-color-text-base").trim() || (dark ? "#ced6dd" : "#323232");
    const grid = dark ? "#47505a" : "#d5dae0";
    const clear = "rgba(0,0,0,0)";
    const axis = { gridcolor: grid, linecolor: grid, zerolinecolor: grid, tickcolor: grid };
    const axis3d = { ...axis, backgroundcolor: clear, color: ink };
    const old = (template && template.layout) || {};
    return {
      data: (template && template.data) || {},
      layout: {
        margin: { l: 50, r: 20, t: 50, b: 45 },
        ...old,
        font: { ...(old.font || {}), color: ink, family: style.fontFamily },
        paper_bgcolor: clear,
        plot_bgcolor: clear,
        xaxis: { ...(old.xaxis || {}), ...axis },
        yaxis: { ...(old.yaxis || {}), ...axis },
        scene: {
          xaxis: { ...((old.scene || {}).xaxis || {}), ...axis3d },
          yaxis: { ...((old.scene || {}).yaxis || {}), ...axis3d },
          zaxis: { ...((old.scene || {}).zaxis || {}), ...axis3d },
        },
        hoverlabel: { ...(old.hoverlabel || {}), font: { color: ink }, bgcolor: dark ? "#29313d" : "#ffffff" },
      },
    };
  }

  new MutationObserver(() => {
    for (const figure of document.querySelectorAll(".book-plotly.is-drawn")) {
      window.Plotly.relayout(figure, { template: themeTemplate(figure.bookTemplate) });
    }
  }).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });

  // --- phones --------------------------------------------------------------------------------------------------------

  const NARROW = 520;

  function wrap(text, letters) {
    if (typeof text !== "string" || text.includes("<") || text.length <= letters) return text;
    const lines = [""];
    for (const word of text.split(" ")) {
      const longer = `${lines.at(-1)} ${word}`.trim();
      if (longer.length > letters && lines.at(-1)) lines.push(word);
      else lines[lines.length - 1] = longer;
    }
    return lines.join("<br>");
  }

  // Titles go on on a second line instead of over the edge, and a legend above its panel grows upwards.
  function onPhone(layout, width) {
    const made = { ...layout };
    const letters = Math.floor(width / 18);
    for (const [key, axis] of Object.entries(layout)) {
      if (!/^xaxis\d*$/.test(key) || !axis.title || !axis.title.text) continue;
      made[key] = { ...axis, automargin: true, title: { ...axis.title, text: wrap(axis.title.text, letters) } };
    }
    if (layout.annotations)
      made.annotations = layout.annotations.map((note) =>
        note.xref === "paper" && note.showarrow === false ? { ...note, text: wrap(note.text, letters) } : note,
      );
    const { legend } = layout;
    if (legend && legend.orientation === "h" && legend.y > 1) made.legend = { ...legend, y: 1.02, yanchor: "bottom" };
    return made;
  }

  // Pictures keep their proportions: in a narrow figure they are lower than their panels, which would leave empty bands.
  function closeBands(figure) {
    const { _size: inner, height, ...layout } = figure._fullLayout;
    const parts = Object.entries(layout)
      .filter(([key, axis]) => /^yaxis\d*$/.test(key) && axis.scaleanchor && axis.constrain === "domain")
      .map(([, axis]) => axis._length / (inner.h * (axis._inputDomain[1] - axis._inputDomain[0])));
    const needed = Math.max(...parts);
    return parts.length && needed < 0.95
      ? window.Plotly.relayout(figure, { height: height - inner.h + inner.h * needed })
      : undefined;
  }

  // --- controls ------------------------------------------------------------------------------------------------------

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function runStep(figure, step) {
    if (!step || !step.method || step.method === "skip") return;
    window.Plotly[step.method](figure, ...(step.args || []));
  }

  function makeSlider(figure, slider, index) {
    const steps = (slider.steps || []).filter((step) => step.visible !== false);
    const labels = steps.map((step, i) => String(step.label ?? step.value ?? i));
    const current = slider.currentvalue || {};
    const write = (i) => `${current.prefix ?? ""}${labels[i]}${current.suffix ?? ""}`;
    const start = Math.min(Number(slider.active) || 0, steps.length - 1);
    const id = `${figure.id}-slider-${index + 1}`;
    const input = element("input", { type: "range", id, min: 0, max: steps.length - 1, step: 1 });
    const output = element("output", { for: id }, write(start));
    input.value = start;
    input.setAttribute("aria-valuetext", labels[start]);
    input.dataset.testChanges = "#" + figure.id;
    const show = (i) => {
      input.setAttribute("aria-valuetext", labels[i]);
      output.textContent = write(i);
    };
    input.addEventListener("input", () => {
      show(Number(input.value));
      runStep(figure, steps[Number(input.value)]);
    });
    // A running animation takes the slider along.
    figure.addEventListener("book-frame", (event) => {
      const i = steps.findIndex((step) => {
        const target = Array.isArray(step.args) ? step.args[0] : null;
        return Array.isArray(target) && target[0] === event.detail;
      });
      if (i >= 0) {
        input.value = i;
        show(i);
      }
    });
    const name = slider.name && !current.prefix ? slider.name : "";
    return element("div", { class: "book-plotly-control" }, element("label", { for: id }, name, output), input);
  }

  function makeMenu(figure, menu, index) {
    const buttons = (menu.buttons || []).filter((button) => button.visible !== false);
    if (menu.type === "buttons") {
      const row = element("div", { class: "book-plotly-control", role: "group" });
      for (const button of buttons) {
        const made = element("button", { type: "button" }, button.label ?? "");
        made.addEventListener("click", () => runStep(figure, button));
        row.append(made);
      }
      return row;
    }
    const id = `${figure.id}-menu-${index + 1}`;
    const select = element("select", { id, "aria-label": menu.name || "What the figure shows" });
    buttons.forEach((button, i) => select.append(element("option", { value: i }, button.label ?? "")));
    select.value = Math.max(0, Number(menu.active) || 0);
    select.dataset.testChanges = "#" + figure.id;
    select.addEventListener("change", () => runStep(figure, buttons[Number(select.value)]));
    return element("div", { class: "book-plotly-control" }, select);
  }

  // --- figures -------------------------------------------------------------------------------------------------------

  function describe(value) {
    if (value === null || typeof value !== "object") return String(value);
    if (Array.isArray(value) || ArrayBuffer.isView(value)) {
      let hash = 2166136261;
      for (let i = 0; i < value.length; i++) {
        const text = typeof value[i] === "number" ? value[i].toPrecision(7) : describe(value[i]);
        for (let k = 0; k < text.length; k++) hash = Math.imul(hash ^ text.charCodeAt(k), 16777619);
      }
      return `${value.length}:${(hash >>> 0).toString(16)}`;
    }
    return JSON.stringify(value, (key, inner) => (ArrayBuffer.isView(inner) ? Array.from(inner) : inner));
  }

  const DRAWN = ["visible", "opacity", "x", "y", "z", "i", "j", "k", "intensity", "vertexcolor", "facecolor", "text", "source"];

  function drawnState(figure) {
    const traces = (figure._fullData || []).map((trace) => {
      const parts = DRAWN.filter((key) => key in trace).map((key) => `${key}=${describe(trace[key])}`);
      if (trace.marker) parts.push("marker=" + describe(trace.marker.color) + describe(trace.marker.size));
      return parts.join(",");
    });
    const layout = figure.layout || {};
    const scene = ((figure._fullLayout || {}).scene || {}).camera;
    const title = layout.title ? layout.title.text : "";
    const { xaxis, yaxis } = figure._fullLayout || {};
    const axes = [xaxis, yaxis].map((axis) => (axis ? `${axis.type} ${(axis.range || []).join(" ")}` : "")).join(" ");
    return [...traces, axes, describe(layout.shapes || []), describe(layout.annotations || []), title, describe(scene || null)].join("|");
  }

  async function draw(figure) {
    if (figure.dataset.state) return;
    figure.dataset.state = "loading";
    try {
      const source = document.querySelector(`script[data-plotly-for="${CSS.escape(figure.id)}"]`);
      const { data, layout = {}, frames = [], config = {} } = JSON.parse(source.textContent);
      const Plotly = await loadPlotly();
      const { sliders = [], updatemenus = [], ...rest } = layout;
      figure.bookTemplate = layout.template;
      // The page knows its background, a figure has to be legible on any: its grey gives way to the page's ink.
      const { color, ...font } = rest.font || {};
      figure.style.minHeight = "";
      await Plotly.newPlot(figure, {
        data,
        layout: {
          ...(figure.clientWidth < NARROW ? onPhone(rest, figure.clientWidth) : rest),
          font,
          template: themeTemplate(layout.template),
          autosize: true,
          width: undefined,
        },
        frames,
        config: { displaylogo: false, responsive: true, ...config },
      });
      if (figure.clientWidth < NARROW) await closeBands(figure);
      figure.on("plotly_animatingframe", (event) => {
        figure.dispatchEvent(new CustomEvent("book-frame", { detail: event.name }));
      });
      const controls = [
        ...updatemenus.filter((menu) => menu.visible !== false).map((menu, i) => makeMenu(figure, menu, i)),
        ...sliders.filter((slider) => slider.visible !== false).map((slider, i) => makeSlider(figure, slider, i)),
      ];
      if (controls.length) figure.after(element("div", { class: "book-plotly-controls" }, ...controls));
      figure.bookState = () => drawnState(figure);
      figure.classList.add("is-drawn");
      figure.dataset.state = "drawn";
    } catch (error) {
      figure.dataset.state = "failed";
      figure.textContent = "This figure could not be drawn.";
      throw error;
    }
  }

  const figures = document.querySelectorAll(".book-plotly");
  if (figures.length) {
    const near = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          if (!entry.isIntersecting) continue;
          near.unobserve(entry.target);
          draw(entry.target);
        }
      },
      { rootMargin: "600px 0px" },
    );
    figures.forEach((figure) => near.observe(figure));
    window.addEventListener("beforeprint", () => figures.forEach(draw));
    // A figure inside a folded cell was laid out without a width.
    document.addEventListener(
      "toggle",
      (event) => {
        for (const figure of event.target.querySelectorAll?.(".book-plotly.is-drawn") || []) {
          window.Plotly.Plots.resize(figure);
        }
      },
      true,
    );
  }

  // --- names for screen readers ----------------------------------------------------------------------------------------

  // The theme's button says "Search Ctrl + K" and is named otherwise; its arrows and its list of literature are not named right.
  for (const button of document.querySelectorAll(".search-button-field")) button.removeAttribute("aria-label");
  // Their own words say more than the theme's name for all of them.
  for (const summary of document.querySelectorAll("details.hide > summary[aria-label]")) summary.removeAttribute("aria-label");
  // A choice that is a formula alone has no words once the formula is a picture.
  for (const quiz of document.querySelectorAll(".quiz-choice")) {
    const summary = quiz.querySelector("summary");
    const formulas = [...summary.querySelectorAll(".math")];
    const words = formulas.reduce((text, formula) => text.replace(formula.textContent, ""), summary.textContent);
    if (formulas.length && !words.trim()) {
      const place = [...quiz.parentElement.querySelectorAll(":scope > .quiz-choice")].indexOf(quiz) + 1;
      summary.setAttribute("aria-label", `Choice ${place}`);
    }
  }
  for (const summary of document.querySelectorAll(".bd-sidebar-primary summary")) {
    const page = summary.closest("li")?.querySelector("a")?.textContent.trim();
    if (!summary.textContent.trim()) summary.setAttribute("aria-label", page ? `Pages of ${page}` : "More pages");
  }
  for (const list of document.querySelectorAll('.citation-list[role="list"]')) list.removeAttribute("role");

  // --- wide outputs --------------------------------------------------------------------------------------------------

  // Pictures with several panels: on a phone their letters would be too small to read, so that they scroll as well.
  for (const image of document.querySelectorAll(".bd-article .cell_output > img")) {
    const look = () => image.classList.toggle("is-wide", image.naturalWidth > 1.25 * image.naturalHeight);
    if (image.complete) look();
    else image.addEventListener("load", look, { once: true });
  }

  const outputs = document.querySelectorAll(".bd-article .cell_output pre, .bd-article .cell_output:has(> img)");
  if (outputs.length) {
    const mark = (box) => {
      const wide = box.scrollWidth > box.clientWidth + 1;
      if (wide === "scrolls" in box.dataset) return;
      if (wide) {
        box.dataset.scrolls = "";
        box.tabIndex = 0;
        box.setAttribute("role", "region");
        box.setAttribute("aria-label", `${box.matches("pre") ? "Output" : "Figure"}, wider than the page`);
      } else {
        delete box.dataset.scrolls;
        for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
      }
    };
    const sizes = new ResizeObserver((entries) => entries.forEach((entry) => mark(entry.target)));
    outputs.forEach((box) => {
      mark(box);
      sizes.observe(box);
      // A picture that arrives or turns wide changes what its box holds, not the box.
      for (const image of box.querySelectorAll(":scope > img")) {
        image.addEventListener("load", () => mark(box), { once: true });
        new ResizeObserver(() => mark(box)).observe(image);
      }
    });
  }

  // --- quizzes -------------------------------------------------------------------------------------------------------

  for (const quiz of document.querySelectorAll(".quiz")) {
    const questions = [...quiz.querySelectorAll(".quiz-question")];
    const score = element("p", { class: "quiz-score", role: "status" });
    const firstTry = new Map();
    let printing = false;
    let opened = [];
    questions.forEach((question, i) => {
      question.setAttribute("role", "group");
      question.setAttribute("aria-label", `Question ${i + 1} of ${questions.length}`);
      for (const choice of question.querySelectorAll("details")) {
        choice.addEventListener("toggle", () => {
          if (!choice.open || printing || firstTry.has(question)) return;
          firstTry.set(question, choice.classList.contains("quiz-right"));
          const right = [...firstTry.values()].filter(Boolean).length;
          score.textContent = `${firstTry.size} of ${questions.length} answered, ${right} right at the first try.`;
        });
      }
    });
    quiz.append(score);
    // On paper the right answers are shown with their reasons.
    window.addEventListener("beforeprint", () => {
      opened = [...quiz.querySelectorAll("details.quiz-right:not([open])")];
      printing = true;
      for (const choice of opened) choice.open = true;
    });
    window.addEventListener("afterprint", () => {
      for (const choice of opened) choice.open = false;
      // Toggle events come a moment after the change.
      setTimeout(() => (printing = false), 100);
    });
  }
})();
