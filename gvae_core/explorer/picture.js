// The browser's side of `Picture`: it keeps the views that the kernel sends ahead, and shows each as its angle comes up.

const address = (bytes) => URL.createObjectURL(new Blob([bytes], { type: "image/png" }));

export default () => {
  const views = new Map(); // angle -> {html: {part: text}, picture: a loaded image}
  const shown = new Set(); // the images on the page, one wherever the widget is displayed
  let turn = null; // the number of what is turned: other images or other models are another turn
  let current = null; // the image whose address those on the page have

  function paint(picture) {
    current = picture; // kept, as a browser takes at once what it has loaded and still holds
    for (const image of shown) image.src = picture.src;
  }

  function load(bytes) {
    const picture = new Image();
    picture.src = address(bytes);
    return picture;
  }

  async function initialize({ model }) {
    const find = (name) => model.widget_manager.get_model(name.slice("IPY_MODEL_".length));
    const slider = await find(model.get("slider"));
    const parts = {};
    for (const [name, id] of Object.entries(model.get("parts"))) parts[name] = await find(id);
    let showing = false;

    function show(angle) {
      if (showing || !views.has(angle)) return;
      showing = true; // each `set` calls back
      const { html, picture } = views.get(angle);
      paint(picture);
      for (const [name, text] of Object.entries(html)) parts[name].set("value", text);
      showing = false;
    }

    function take(content, buffers) {
      if (content.turn !== turn) {
        turn = content.turn;
        for (const { picture } of views.values()) if (picture !== current) URL.revokeObjectURL(picture.src);
        views.clear();
      }
      const at = slider.get("value");
      const taken = [];
      for (const { angle, buffer, html } of content.views) {
        const picture = buffer === null ? views.get(angle)?.picture : load(buffers[buffer]);
        if (!picture) continue; // it comes again, with its picture
        views.set(angle, { html, picture });
        taken.push(angle);
        // What the kernel asks for is shown unless the slider has gone on to a view that is here.
        if (angle === at || (content.now && !views.has(at))) show(angle);
      }
      model.send({ turn, taken });
    }

    const update = () => show(slider.get("value"));
    model.on("msg:custom", take);
    slider.on("change:value", update);
    // What the kernel itself writes comes when a drag is over, and may be of an angle that has passed.
    model.on("change:value", () => (views.has(slider.get("value")) ? update() : paint(load(model.get("value")))));
    for (const part of Object.values(parts)) part.on("change:value", update);
    model.send({ ready: true });
    return () => {
      for (const { picture } of views.values()) URL.revokeObjectURL(picture.src);
    };
  }

  function render({ model, el }) {
    const image = new Image();
    image.className = "gvae-picture";
    image.decoding = "sync"; // the next frame has it
    image.draggable = false;
    if (!current && model.get("value").byteLength) current = load(model.get("value"));
    if (current) image.src = current.src;
    shown.add(image);
    el.append(image);
    return () => shown.delete(image);
  }

  return { initialize, render };
};
