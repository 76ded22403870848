// The query: click = "this", Shift-click or long press = "not this", drag = box, Backspace = undo,
// Escape = clear.
// The marks live here; every change sends all of them, so that no rapid click can be lost.
const limit = 24;
let points = [], box = null, stamp = 0, order = [], start = null, since = 0, negative = false;
const root = () => element.querySelector('.sr-canvas');
const at = (e) => {
  const c = root(), r = c.getBoundingClientRect(), w = +c.dataset.w, h = +c.dataset.h;
  const x = Math.round((e.clientX - r.left) / r.width * w), y = Math.round((e.clientY - r.top) / r.height * h);
  return [Math.min(Math.max(x, 0), w - 1), Math.min(Math.max(y, 0), h - 1)];
};
const draw = () => {
  const c = root();
  if (!c) return;
  const w = +c.dataset.w, h = +c.dataset.h, unit = w / (c.getBoundingClientRect().width || w);
  const frame = box && `<rect x="${box[0]}" y="${box[1]}" width="${box[2] - box[0]}" height="${box[3] - box[1]}"/>`;
  const shade = box && `<path fill-rule="evenodd" d="M0 0H${w}V${h}H0Z M${box[0]} ${box[1]}H${box[2]}V${box[3]}H${box[0]}Z"/>`;
  c.querySelector('svg').innerHTML = (box ? shade + frame : '') + points.map(([x, y, on]) =>
    `<g class="${on ? 'on' : 'off'}" transform="translate(${x} ${y}) scale(${unit})"><circle r="9"/>` +
    `<path d="M-4 0H4${on ? 'M0 -4V4' : ''}"/></g>`).join('');
};
const send = (name) => { stamp += 1; draw(); trigger(name, { points, box, stamp: Date.now() * 100 + stamp % 100 }); };
const undo = () => {
  const last = order.pop();
  if (last === 'point') { points = points.slice(0, -1); send('seed'); }
  if (last === 'box') { box = null; send('box'); }
};
const clear = () => {
  const had = box;
  points = []; box = null; order = [];
  send('seed');
  if (had) send('box');
};
element.addEventListener('pointerdown', (e) => {
  if (!root() || !root().contains(e.target) || e.button !== 0) return;
  start = at(e); start.push(e.clientX, e.clientY); negative = e.shiftKey; since = e.timeStamp;
  root().focus({ preventScroll: true });
  root().setPointerCapture(e.pointerId);
});
element.addEventListener('pointermove', (e) => {
  if (!start || Math.hypot(e.clientX - start[2], e.clientY - start[3]) < 8) return;
  const [x, y] = at(e), keep = box;
  box = [Math.min(x, start[0]), Math.min(y, start[1]), Math.max(x, start[0]) + 1, Math.max(y, start[1]) + 1];
  draw();
  box = keep;
});
element.addEventListener('pointerup', (e) => {
  if (!start) return;
  const [x, y] = at(e), far = Math.hypot(e.clientX - start[2], e.clientY - start[3]);
  const first = start;
  start = null;
  if (far >= 8) {
    if (Math.min(Math.abs(x - first[0]), Math.abs(y - first[1])) < 4) return draw();
    box = [Math.min(x, first[0]), Math.min(y, first[1]), Math.max(x, first[0]) + 1, Math.max(y, first[1]) + 1];
    order = [...order.filter((o) => o !== 'box'), 'box'];
    send('box');
  } else if (points.length < limit) {
    const held = e.pointerType !== 'mouse' && e.timeStamp - since > 450;
    points = [...points, [first[0], first[1], negative || held ? 0 : 1]];
    order.push('point');
    send('seed');
  }
});
element.addEventListener('contextmenu', (e) => { if (start && e.pointerType !== 'mouse') e.preventDefault(); });
element.addEventListener('pointercancel', () => { start = null; draw(); });
element.addEventListener('keydown', (e) => {
  if (e.key === 'Backspace' || (e.key === 'z' && (e.ctrlKey || e.metaKey))) { undo(); e.preventDefault(); }
  if (e.key === 'Escape') { clear(); e.preventDefault(); }
});
element.addEventListener('sr-undo', undo);
element.addEventListener('sr-clear', clear);
const reset = () => {
  const c = root();
  points = []; box = null; order = []; start = null;
  if (!c) return;
  points = c.dataset.points ? c.dataset.points.split(';').map((p) => p.split(',').map(Number)) : [];
  box = c.dataset.box ? c.dataset.box.split(',').map(Number) : null;
  order = [...points.map(() => 'point'), ...(box ? ['box'] : [])];
  draw();
};
watch('value', reset);
new ResizeObserver(draw).observe(element);
reset();
