// A button. Python answers a click with a text, which is copied, or offered as a file.

// plotly looks at its width only when the window changes, not when the page gives it another.
function fit(el, tries = 50) {
  if (!el.isConnected) return tries && setTimeout(fit, 200, el, tries - 1);
  const chart = el.parentElement.querySelector(":scope > .evoae-chart");
  if (!chart) return;
  new ResizeObserver(() => window.dispatchEvent(new Event("resize"))).observe(chart);
}

function render({ model, el }) {
  const button = document.createElement("button");
  button.className = "jupyter-widgets jupyter-button widget-button";
  button.textContent = model.get("description");
  button.title = model.get("tooltip");
  const say = (words) => {
    button.textContent = words;
    setTimeout(() => (button.textContent = model.get("description")), 1500);
  };
  button.onclick = () => model.send({});
  model.on("msg:custom", async ({ name, text }) => {
    if (name) {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      return say("Downloaded");
    }
    try {
      await navigator.clipboard.writeText(text);
    } catch { // not allowed here: the old way
      const field = document.createElement("textarea");
      field.value = text;
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    say("Copied");
  });
  el.append(button);
  fit(el);
}
export default { render };
