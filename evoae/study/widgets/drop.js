// A field to drop a file on. Its bytes go to Python piece by piece: one message holds 10 MB at most.
const PIECE = 1 << 20;

function render({ model, el }) {
  const field = document.createElement("label"), words = document.createElement("span");
  const input = document.createElement("input");
  field.className = "evoae-drop";
  field.title = model.get("tooltip");
  input.type = "file";
  field.append(words, input);
  el.append(field);
  let answer = () => {};
  const say = () => (words.textContent = model.get("description"));

  async function send(file) {
    for (let start = 0; start < Math.max(1, file.size); start += PIECE) {
      let piece;
      try {
        piece = await file.slice(start, start + PIECE).arrayBuffer();
      } catch { // a folder, or a file that has gone
        model.send({ name: file.name, files: 0 });
        break;
      }
      const next = new Promise((resolve) => (answer = resolve));
      model.send({ name: file.name, start, size: file.size }, undefined, [piece]);
      words.textContent = `Reading ${file.name}, ${Math.round((100 * start) / Math.max(1, file.size))} %`;
      if (!(await next)) break; // it was refused
    }
    say();
  }
  function take(files) {
    if (files.length === 1) send(files[0]);
    else if (files.length) model.send({ name: files[0].name, files: files.length });
  }
  model.on("msg:custom", ({ more }) => answer(more));
  model.on("change:description", say);
  input.onchange = () => (take([...input.files]), (input.value = ""));
  field.ondragover = (event) => (event.preventDefault(), field.classList.add("over"));
  field.ondragleave = () => field.classList.remove("over");
  field.ondrop = (event) => {
    event.preventDefault();
    event.stopPropagation(); // JupyterLab would upload it, too
    field.classList.remove("over");
    take([...event.dataTransfer.files]);
  };
  say();
}
export default { render };
