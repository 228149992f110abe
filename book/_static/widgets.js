/* Jupyter widgets in a page without a kernel: where their scripts lie, and who typesets the formulas in their labels. */
(function () {
  "use strict";
  const base = new URL(".", document.currentScript.src).href;
  window.requirejs.config({
    paths: {
      anywidget: base + "vendor/anywidget/index",
      // These are inside embed-amd.js; the paths are where they look for their fonts.
      "@jupyter-widgets/base": base + "vendor/html-manager/base",
      "@jupyter-widgets/controls": base + "vendor/html-manager/controls",
      "@jupyter-widgets/output": base + "vendor/html-manager/output",
      "@jupyter-widgets/html-manager": base + "vendor/html-manager/html-manager",
      "@jupyter-widgets/html-manager/dist": base + "vendor/html-manager",
    },
  });

  // The widgets speak to MathJax 2; the page has MathJax 4. Both scripts have run when the page's "load" event comes, and this
  // listener was added before the one that shows the widgets.
  window.addEventListener("load", () => {
    if (!window.MathJax || window.MathJax.Hub) return;
    window.MathJax.Hub = {
      Queue: ([, , element]) => window.MathJax.startup.promise.then(() => window.MathJax.typesetPromise([element])),
    };
  });
})();
