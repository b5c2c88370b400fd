// What the page does with a script, and does without it as well: a theme, contents open where there is room, figures enlarged,
// details open in print.
(() => {
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const told = () => {
    theme.setAttribute("aria-pressed", String(dark()));
  };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    told();
  });
  told();

  document.getElementById("contents").open = matchMedia("(min-width: 75rem)").matches;

  // A figure at twice its width, to be scrolled.
  for (const figure of document.querySelectorAll("figure")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "scripted enlarge";
    button.textContent = "Enlarge";
    button.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-label", `Enlarge: ${figure.querySelector("h3").textContent}`);
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(figure.classList.toggle("large")));
    });
    figure.querySelector("h3").after(button);
  }

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
  });
})();
