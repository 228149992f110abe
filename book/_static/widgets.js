/* Tells RequireJS where Jupyter widgets find their scripts: beside the page, not on a CDN. */
(function () {
  "use strict";
  const base = new URL(".", document.currentScript.src).href;
  window.bookWidgetAssets = base + "vendor/html-manager/";
  window.requirejs.config({ paths: { anywidget: base + "vendor/anywidget/index" } });
})();
