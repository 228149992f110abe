/* Turns a page of the site, once everything on it is drawn, into one for paper.
 *
 * An expression that gives a function; bookkit/paper.py calls it in the page with
 *
 *   { pages, stylesheet, base, measure, title, without }
 *
 * where `pages` are the pages that the edition holds (links to others become text), `base` is the site's address, `measure` the width
 * of the text in pixels, `title` replaces the page's own unless it is empty, and `without` selects what else is left out. What is left in the document is
 * <main id="paper">: text, formulas as MathJax has set them, code, and still pictures. Solutions and the answers of the quiz are taken
 * out and given back as HTML, for an appendix.
 */
async ({ pages, stylesheet, base, measure, title: given, without }) => {
  const article = document.querySelector("article.bd-article");
  if (!article) throw new Error("found no article on " + location.href + "; expected a page of the built site");
  const all = (selector, root = article) => [...root.querySelectorAll(selector)];
  const make = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const problems = [];

  // --- figures become pictures -------------------------------------------------------------------------------------------

  const still = (source, alt, width) => {
    const image = make("img", { src: source, alt: alt || "Figure" });
    if (width) image.style.width = `${width}px`;
    return make("div", { class: "paper-figure" }, image);
  };
  const names = (figure) => figure.getAttribute("aria-label") || "";
  const live = new Set();

  for (const figure of all(".book-plotly")) {
    const full = figure._fullLayout || {};
    const drawn3d = Boolean((full._subplots || {}).gl3d?.length);
    const dense = (figure._fullData || []).some((trace) => (trace.x?.length || 0) > 4000 || trace.type === "heatmap");
    const width = Math.min(Math.max(figure.clientWidth, 560), 760);
    const height = full.height || figure.clientHeight || 450;
    const format = drawn3d || dense ? "png" : "svg";
    // Drawings must not depend on the page's fonts: a picture of its own has none but the machine's.
    const source = await window.Plotly.toImage(figure, { format, width, height, scale: format === "png" ? 2.5 : 1 });
    const made = still(source, names(figure), width);
    const controls = figure.nextElementSibling;
    if (drawn3d || controls?.matches(".book-plotly-controls")) live.add(figure.closest(".cell"));
    if (controls?.matches(".book-plotly-controls")) controls.remove();
    figure.replaceWith(made);
  }

  // These carry a still picture of their own, for readers without scripts.
  for (const figure of all(".face-explorer-figure, .light-studio-figure, .loss-figure-page")) {
    const image = figure.querySelector(":scope > img");
    if (!image) {
      problems.push("an interactive figure has no still picture: " + figure.outerHTML.slice(0, 120));
      continue;
    }
    live.add(figure.closest(".cell"));
    figure.replaceWith(still(image.src, image.alt, Math.min(image.naturalWidth, 640)));
  }
  for (const holder of all(".widget-subarea")) {
    const cell = holder.closest(".cell");
    live.add(cell);
    const image = holder.querySelector("img");
    const box = holder.closest(".output") || holder;
    if (image && image.src) box.replaceWith(still(image.src, image.alt));
    else box.remove();
  }
  for (const canvas of all("canvas")) {
    try {
      canvas.replaceWith(still(canvas.toDataURL("image/png"), names(canvas), canvas.clientWidth));
    } catch (error) {
      problems.push("a drawing cannot be read: " + error);
    }
  }
  for (const video of all("video")) {
    const frame = make("canvas");
    frame.width = video.videoWidth;
    frame.height = video.videoHeight;
    frame.getContext("2d").drawImage(video, 0, 0);
    live.add(video.closest(".cell"));
    video.replaceWith(still(frame.toDataURL("image/jpeg", 0.9), video.getAttribute("aria-label")));
  }
  for (const cell of live) {
    const caption = cell && captionAfter(cell);
    if (caption) {
      const last = caption.querySelector("p:last-of-type") || caption;
      last.append(" ", make("span", { class: "paper-live" }, "Interactive in the web edition."));
    }
  }

  function captionAfter(cell) {
    let next = cell.nextElementSibling;
    while (next && next.matches("span[id], p:empty, div:empty")) next = next.nextElementSibling;
    return next && next.matches(".figure-caption") ? next : null;
  }

  // --- what paper has no use for -----------------------------------------------------------------------------------------

  if (without) for (const gone of all(without)) gone.remove();
  for (const gone of all(
    "script, style:not([id^='MJX']), .headerlink, .copybtn, .chapter-downloads, .prev-next-footer, .quiz-score, " +
      ".toctree-wrapper, button, .sd-summary-chevron-right, .sd-summary-chevron-down, .sd-summary-icon, mjx-assistive-mml",
  ))
    gone.remove();
  // Code that only draws is folded on the page; here it is left out, and its figure shown.
  for (const folded of all("details.hide")) {
    if (folded.closest(".tag_solution")) continue;
    const only = folded.closest(".tag_hide-input");
    if (only) folded.remove();
  }

  // --- solutions and answers, for the appendix ---------------------------------------------------------------------------

  const opened = (details) => {
    const inside = make("div");
    for (const child of [...details.childNodes]) if (child.nodeName !== "SUMMARY") inside.append(child);
    return inside;
  };
  const solutions = make("section");
  const titleOf = (node) => {
    for (let up = node.closest("section"); up; up = up.parentElement.closest("section")) {
      const heading = up.querySelector(":scope > h3, :scope > h2");
      if (heading) return [heading, up.id];
    }
    return [null, ""];
  };
  let current = null;
  let box = null;
  for (const node of all(".cell.tag_solution, .admonition.solution")) {
    const [heading, id] = titleOf(node);
    if (heading !== current || !box) {
      box = make("div", { class: "paper-solution", id: "solution-" + id });
      box.append(make("h3", {}, ...[...(heading?.childNodes || ["Solution"])].map((child) => child.cloneNode(true))));
      solutions.append(box);
      current = heading;
    }
    for (const details of all("details", node)) details.replaceWith(opened(details));
    node.querySelector(":scope > .admonition-title")?.remove();
    if (node.matches(".admonition")) {
      node.className = "";
      node.removeAttribute("style");
    }
    box.append(node);
  }
  const answers = make("div", { class: "paper-solution" }, make("h3", {}, "Quiz"));
  all(".quiz-question").forEach((question, i) => {
    const choices = make("ol");
    all("details.quiz-choice", question).forEach((choice, k) => {
      const summary = choice.querySelector(".sd-summary-text") || choice.querySelector("summary");
      choices.append(make("li", {}, ...summary.childNodes));
      if (choice.classList.contains("quiz-right")) {
        const why = opened(choice).querySelector(".sd-card-text") || opened(choice);
        why.querySelector("strong")?.remove();
        answers.append(make("p", {}, make("strong", {}, `${i + 1} ${"abcd"[k]}. `), ...why.childNodes));
      }
      choice.remove();
    });
    question.className = "paper-question";
    question.append(choices);
  });
  if (answers.childElementCount > 1) solutions.append(answers);
  for (const intro of all("#check-yourself > p, section:has(> .quiz) > p"))
    intro.textContent = intro.textContent.replace(/ Open the answer.*$/, " The answers stand at the end of the book.");
  for (const details of all("details")) details.replaceWith(opened(details));

  // --- links -------------------------------------------------------------------------------------------------------------

  const known = new Set(pages);
  const place = (url) => url.href.slice(base.length).split("#")[0];
  for (const root of [article, solutions]) {
    for (const link of all("a[href]", root)) {
      const url = new URL(link.getAttribute("href"), location.href);
      if (url.href.startsWith(base) && !known.has(place(url))) {
        link.replaceWith(...link.childNodes);
      } else if (url.href.startsWith(base)) {
        // The whole address: the text may be moved to another page of the edition, and these links are resolved at the end.
        const here = root === article && place(url) === place(new URL(location.href));
        link.setAttribute("href", here ? url.hash || "#" : url.href);
      } else if (/^https?:/.test(url.href) && !link.closest("svg")) {
        // An address that the text gives already is not repeated.
        const words = link.textContent.trim().replace(/^(doi|arXiv|URL):\s*/i, "").replace(/\/$/, "");
        if (words.startsWith("http") || (words.includes("/") && decodeURI(url.href).replace(/\/$/, "").endsWith(words))) continue;
        link.after(make("span", { class: "paper-address" }, ` (${decodeURI(url.href).replace(/^https?:\/\//, "")})`));
      }
    }
    for (const image of all("img", root)) image.src = image.src;
  }

  // --- the opening of a chapter ------------------------------------------------------------------------------------------

  const title = article.querySelector("h1");
  if (given) title.textContent = given;
  const facts = article.querySelector(".chapter-facts");
  if (facts) {
    const [kicker, ...rest] = all("span", facts).map((span) => span.textContent);
    title.before(make("p", { class: "paper-kicker" }, kicker));
    facts.replaceWith(make("p", { class: "paper-facts" }, rest.join(" · ")));
  } else title.classList.add("paper-plain");

  // --- a document of its own ---------------------------------------------------------------------------------------------

  for (const formula of all("mjx-container", solutions)) formula.style.fontSize = "";
  const paper = make("main", { id: "paper" });
  paper.append(...article.childNodes);
  const typeset = [...document.querySelectorAll("style[id^='MJX'], head style")]
    .filter((style) => style.id.startsWith("MJX") || style.textContent.includes("mjx-"))
    .map((style) =>
      style.sheet ? [...style.sheet.cssRules].map((rule) => rule.cssText).join("\n") : style.textContent,
    )
    .join("\n");
  const fonts = typeset.replace(/url\("(?!data:)([^"]+)"\)/g, (_, path) => `url("${new URL(path, location.href).href}")`);
  document.head.replaceChildren(
    make("meta", { charset: "utf-8" }),
    make("title", {}, title.textContent),
    make("style", { id: "paper-formulas" }, fonts),
    make("style", { id: "paper-style" }, stylesheet),
    make("style", { id: "paper-page" }),
  );
  document.documentElement.className = "";
  document.documentElement.removeAttribute("style");
  document.body.replaceWith(make("body", {}, paper));

  fit(paper);
  // Chromium gives a place a name only if the document links to it.
  const places = make("div", { class: "paper-places", "aria-hidden": "true" });
  for (const target of paper.querySelectorAll("[id]"))
    if (!target.closest("svg, mjx-container")) places.append(make("a", { href: "#" + target.id, tabindex: "-1" }));
  paper.prepend(places);
  await document.fonts.ready;
  await Promise.all([...document.images].map((image) => image.decode().catch(() => problems.push("a picture is missing: " + image.src.slice(0, 120)))));

  // --- what must fit -----------------------------------------------------------------------------------------------------

  function fit(root) {
    document.body.style.width = `${measure}px`;
    // MathJax matched the height of the page's letters; those of the book have that of its own.
    for (const formula of root.querySelectorAll("mjx-container")) formula.style.fontSize = "";
    for (const pre of root.querySelectorAll("pre")) {
      const lines = pre.textContent.trimEnd().split("\n");
      if (lines.length <= 14) pre.classList.add("paper-short");
      // A table that a cell prints keeps its columns as long as it can be read.
      if (!pre.closest(".cell_output")) continue;
      pre.style.whiteSpace = "pre";
      const wide = pre.scrollWidth / pre.clientWidth;
      if (wide > 1.001 && lines.length > 2) pre.style.fontSize = `${Math.max(8 / wide - 0.05, 5.8)}pt`;
      pre.style.whiteSpace = "";
    }
    for (const table of root.querySelectorAll("table")) {
      if (table.scrollWidth > measure + 1 || table.offsetWidth > measure + 1) table.classList.add("paper-narrow");
    }
    for (const formula of root.querySelectorAll("mjx-container[display='true']")) {
      const inside = formula.querySelector("mjx-math") || formula;
      const room = formula.closest("div.math, li, dd, main").clientWidth;
      const wide = Math.max(formula.scrollWidth, inside.getBoundingClientRect().width) / room;
      if (wide > 1.001) formula.style.fontSize = `${(100 / wide - 0.5).toFixed(1)}%`;
    }
    for (const caption of root.querySelectorAll(".figure-caption")) {
      let before = caption.previousElementSibling;
      while (before && before.matches("span[id], p:empty, div:empty")) before = before.previousElementSibling;
      before?.querySelectorAll(".cell_output").forEach((output) => output.classList.add("paper-leads"));
    }
    document.body.style.width = "";
  }

  return {
    title: title.textContent.trim(),
    formulas: fonts,
    solutions: solutions.childElementCount ? solutions.innerHTML : "",
    headings: [...paper.querySelectorAll("h2")].map((heading) => ({
      title: heading.textContent.trim(),
      id: heading.closest("section")?.id || "",
    })),
    terms: Object.fromEntries([...paper.querySelectorAll("dl.glossary dt[id]")].map((term) => [term.id, term.textContent.trim()])),
    undrawn: paper.querySelectorAll("canvas, .book-plotly, iframe, video").length,
    problems,
  };
}
