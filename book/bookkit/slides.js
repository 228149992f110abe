/* Starts a deck, and sees to it that a slide fits its 720 pixels: what is taller is set smaller, down to 66 %, and only what is taller
 * even then scrolls. `window.deck.settled(section)` is for the tests: it waits until a slide is as it will be. */
(function () {
  "use strict";
  const LEAST = 0.66;
  const typeset = () => window.MathJax?.startup?.promise ?? Promise.resolve();
  const settledSlides = new WeakMap();

  async function settle(section) {
    await typeset();
    await document.fonts.ready;
    await Promise.all([...section.querySelectorAll("img")].map((image) => image.decode().catch(() => {})));
    const figures = [...section.querySelectorAll(".book-plotly")];
    for (let i = 0; i < 300 && figures.some((figure) => !["drawn", "failed"].includes(figure.dataset.state)); i++)
      await new Promise((done) => setTimeout(done, 50));
    const over = () => section.scrollHeight > section.clientHeight + 1;
    const base = parseFloat(getComputedStyle(section.parentElement).fontSize);
    for (let size = 1; over() && size > LEAST; size -= 0.04) section.style.fontSize = `${base * (size - 0.04)}px`;
    section.classList.toggle("scrolls", over());
    for (const formula of section.querySelectorAll("mjx-container")) {
      const wide = formula.scrollWidth / formula.parentElement.clientWidth;
      if (wide > 1.001) formula.style.fontSize = `${98 / wide}%`;
    }
  }

  function settled(section) {
    if (!settledSlides.has(section)) settledSlides.set(section, settle(section));
    return settledSlides.get(section);
  }

  const deck = new window.Reveal({
    width: 1280,
    height: 720,
    margin: 0,
    center: false,
    hash: true,
    transition: "none",
    backgroundTransition: "none",
    slideNumber: "c/t",
    plugins: [window.RevealNotes],
  });
  window.deck = { reveal: deck, settled };
  deck.on("slidechanged", ({ currentSlide }) => settled(currentSlide));
  deck.initialize().then(() => settled(deck.getCurrentSlide()));
})();
