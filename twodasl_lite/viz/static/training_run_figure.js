/* A training run: curves with a cursor in time, and predictions of each checkpoint on the same faces. */

const PLANE = 120;

class TrainingRunFigure extends LossFigure {
  static kind = "training_run_figure";

  build() {
    const { header } = this;
    this.cards = header.pictures.map((src) => {
      const marks = draw("svg", { viewBox: `-0.5 -0.5 ${PLANE} ${PLANE}`, "aria-hidden": "true" });
      const stage = make("div", { class: "lf-stage", role: "img" }, make("img", { src, alt: "", class: "dark-light", style: "position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; max-width: none" }), marks);
      const text = make("p", { class: "lf-say", style: "text-align: center" });
      return { marks, stage, text };
    });
    this.chart = draw("svg", { class: "lf-chart", role: "img" });
    this.keys = make("div", { class: "lf-legend" });
    this.say = make("p", { class: "lf-say", role: "status", "aria-live": "polite" });
    this.play = this.button("Play", () => this.toggle());
    const files = make("details", {}, make("summary", {}, "Where the predictions come from"),
      ...header.files.map(([name, hash], c) => make("div", {}, `step ${header.steps[c]}: `, make("code", {}, name), ", SHA-256 ", make("code", {}, hash))));
    const controls = make("div", { class: "lf-panel" },
      ...(header.steps.length > 1 ? [this.slider("Training time", { id: "checkpoint", min: 0, max: header.steps.length - 1, step: 1, read: () => this.state.checkpoint, write: (checkpoint) => this.set({ checkpoint }), text: (c) => `step ${header.steps[c]}` }),
        make("div", { class: "lf-buttons" }, this.play, this.resetButton())] : [this.resetButton()]),
      this.select("Curves", "panel", Object.entries(header.panels).map(([key, { title }]) => [key, title])),
      ...(header.truth ? [this.check("True landmarks (orange)", "truth")] : []), this.say);
    this.root.append(
      make("div", { style: `display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, minmax(${header.pictures.length > 3 ? 105 : 220}px, 1fr))` }, ...this.cards.map(({ stage, text }) => make("div", {}, stage, text))),
      make("div", { class: "lf-frame", style: "margin-top: 10px" }, controls, make("div", {}, this.chart, this.keys), make("div", { class: "lf-wide" }, files)));
  }

  toggle() {
    if (this.timer) clearInterval(this.timer);
    this.timer = this.timer ? null : setInterval(() => this.set({ checkpoint: (this.state.checkpoint + 1) % this.header.steps.length }), 900);
    this.play.textContent = this.timer ? "Stop" : "Play";
    this.play.setAttribute("aria-pressed", Boolean(this.timer));
  }

  reset() {
    if (this.timer) this.toggle();
    super.reset();
  }

  prediction(face) {
    const at = this.state.checkpoint * this.header.pictures.length + face;
    return this.arrays.predictions.subarray(204 * at, 204 * (at + 1));
  }

  numbers() {
    const { header, arrays } = this;
    const nme = header.truth
      ? header.pictures.map((_, face) => {
          const [points, truth] = [this.prediction(face), arrays.truth.subarray(204 * face, 204 * (face + 1))];
          const axis = (k) => Array.from({ length: 68 }, (_, p) => truth[3 * p + k]);
          const [w, h] = [0, 1].map((k) => Math.max(...axis(k)) - Math.min(...axis(k)));
          let sum = 0;
          for (let p = 0; p < 68; p++) sum += Math.hypot(points[3 * p] - truth[3 * p], points[3 * p + 1] - truth[3 * p + 1]) / 68;
          return (100 * sum) / Math.sqrt(w * h);
        })
      : [];
    const step = header.steps[this.state.checkpoint];
    const curves = header.panels[this.state.panel].curves.map(({ name, x, y }) => [name, y[x.findLastIndex((at) => at <= step)] ?? null]);
    return { step, nme, curves: Object.fromEntries(curves.filter(([, value]) => value !== null)) };
  }

  paint() {
    const { state, header, arrays } = this;
    const { step, nme, curves } = this.numbers();
    this.cards.forEach(({ marks, stage, text }, face) => {
      const path = (points) => outline(header.edges, (p) => [points[3 * p], points[3 * p + 1]]);
      const mine = path(this.prediction(face));
      const lines = [];
      if (header.truth && state.truth) {
        const truth = path(arrays.truth.subarray(204 * face, 204 * (face + 1)));
        lines.push(draw("path", { d: truth, stroke: "#1f2328", "stroke-width": 1.6, fill: "none", opacity: 0.45 }), draw("path", { d: truth, stroke: OKABE_ITO.orange, "stroke-width": 0.9, fill: "none" }));
      }
      lines.push(draw("path", { d: mine, stroke: "#1f2328", "stroke-width": 1.7, fill: "none", opacity: 0.6 }), draw("path", { d: mine, stroke: OKABE_ITO.sky, "stroke-width": 1, fill: "none" }));
      marks.replaceChildren(...lines);
      const told = nme.length ? `NME ${nme[face].toFixed(1)} %` : "";
      text.textContent = told;
      stage.setAttribute("aria-label", `Face ${face + 1} with the landmarks predicted at step ${step}. ${told}`);
    });
    const panel = header.panels[state.panel];
    const paints = ["var(--lf-accent)", "var(--lf-strong)", "var(--lf-third)", OKABE_ITO.purple, "var(--lf-face)", OKABE_ITO.orange, OKABE_ITO.sky];
    const dashes = [null, "7 4", "2 3", "8 3 2 3", "12 4", "12 4 2 4", "4 2"];
    const lines = panel.curves.map((curve, k) => ({ ...curve, colour: paints[k % 7], dash: dashes[k % 7] }));
    lineChart(this.chart, { lines, title: panel.title, xLabel: "step", yLabel: panel.log ? "loss" : "%", log: panel.log, cursor: lines.length ? step : null, height: 250 });
    this.chart.setAttribute("aria-label", `${panel.title}. At step ${step}: ${lines.map(({ name }) => `${name} ${round(curves[name] ?? NaN)}`).join(", ")}.`);
    this.keys.replaceChildren(...lines.map(({ name, colour, dash }) => keyed(name in curves ? `${name}: ${round(curves[name])}` : name, colour, dash)));
    this.say.textContent = `Step ${step}${nme.length ? `: mean NME of these faces ${(nme.reduce((a, b) => a + b, 0) / nme.length).toFixed(1)} %` : ""}.`;
  }
}
