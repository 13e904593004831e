// Plots, in SVG of our own: bars that stack, lines, sparklines. Each has a table's worth of words for those who do
// not see it, and reads out the place under the pointer for those who do.

import { fill, h, raw, s } from './dom.js';
import { time } from './format.js';

const WIDTH = 600;
const HEIGHT = 150;
const EDGE = { top: 10, right: 6, bottom: 20, left: 46 };

/** A round number at or above `max`, that divides well. */
export function ceiling(max) {
  if (!(max > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(max));
  return [1, 2, 4, 5, 10].map((step) => step * power).find((top) => top >= max - 1e-9);
}

/**
 * A plot over time. `kind` is `bars` or `lines`, `series` are `{ key, name, tone }`, `show` formats a value.
 * `update(points)` takes `{ at, [key]: number | null }`.
 */
export function plot({ kind, series, show, label, whole = false }) {
  const readout = h('div', { class: 'readout', 'aria-hidden': 'true' });
  const picture = s('svg', { class: ['plot', `plot-${kind}`], viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label });
  const scale = h('div', { class: 'plot-scale num', 'aria-hidden': 'true', translate: 'no' });
  const dates = h('div', { class: 'plot-dates num', 'aria-hidden': 'true', translate: 'no' });
  const element = h('div', { class: 'plot-frame', 'data-keep': '' }, scale, picture, dates, readout);
  let drawn = [];

  const x = (index) => EDGE.left + ((index + 0.5) * (WIDTH - EDGE.left - EDGE.right)) / Math.max(drawn.length, 1);
  const point = (event) => {
    const box = picture.getBoundingClientRect();
    const inside = ((event.clientX - box.left) / box.width) * WIDTH - EDGE.left;
    return Math.floor((inside / (WIDTH - EDGE.left - EDGE.right)) * drawn.length);
  };
  const read = (index) => {
    const at = drawn[index];
    element.classList.toggle('is-read', Boolean(at));
    if (!at) return;
    element.style.setProperty('--at', `${(x(index) / WIDTH) * 100}%`);
    element.classList.toggle('is-late', index > drawn.length / 2);
    fill(
      readout,
      raw(time(at.at), 'readout-at num'),
      series.map(({ key, name, tone }) => h('div', { class: 'readout-row' }, h('i', { class: ['swatch', `tone-${tone}`] }), h('span', {}, name), raw(show(at[key]), 'num'))),
    );
  };
  picture.addEventListener('pointermove', (event) => read(point(event)));
  picture.addEventListener('pointerleave', () => read(-1));

  function update(points) {
    drawn = points;
    const values = (at) => series.map(({ key }) => at[key] ?? 0);
    const highest = Math.max(0, ...points.map((at) => (kind === 'bars' ? values(at).reduce((a, b) => a + b, 0) : Math.max(0, ...values(at)))));
    const top = whole ? Math.max(ceiling(highest), 4) : ceiling(highest);
    const y = (value) => EDGE.top + (1 - value / top) * (HEIGHT - EDGE.top - EDGE.bottom);
    const grid = [0, 0.5, 1].map((part) => s('line', { class: 'grid', x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(top * part), y2: y(top * part) }));
    fill(picture, grid, kind === 'bars' ? bars(points, y) : lines(points, y));
    fill(scale, [1, 0.5, 0].map((part) => h('span', {}, show(top * part))));
    fill(dates, points.length ? [0, Math.floor(points.length / 2), points.length - 1].map((index) => h('span', {}, time(points[index].at).replace(/:\d\d$/, ''))) : []);
    element.classList.toggle('is-empty', !(highest > 0));
  }

  function bars(points, y) {
    const width = Math.max(((WIDTH - EDGE.left - EDGE.right) / Math.max(points.length, 1)) * 0.78, 1);
    return points.map((at, index) => {
      let below = 0;
      return series.map(({ key, tone }) => {
        const value = at[key] ?? 0;
        if (!value) return null;
        const from = y(below);
        below += value;
        return s('rect', { class: `fill-${tone}`, x: x(index) - width / 2, width, y: y(below), height: Math.max(from - y(below), 1) });
      });
    });
  }

  function lines(points, y) {
    return series.map(({ key, tone }) => {
      const runs = [];
      let run = null;
      points.forEach((at, index) => {
        // Nothing was measured: no line, and no zero.
        if (at[key] === null || at[key] === undefined) run = null;
        else if (run) run.push([x(index), y(at[key])]);
        else runs.push((run = [[x(index), y(at[key])]]));
      });
      return runs.map((spots) =>
        spots.length === 1
          ? s('line', { class: ['dot', `line-${tone}`], x1: spots[0][0], x2: spots[0][0] + 0.01, y1: spots[0][1], y2: spots[0][1] })
          : s('path', { class: ['line', `line-${tone}`], d: `M${spots.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join('L')}` }),
      );
    });
  }

  return { element, update };
}

/** What the colours of a plot stand for. */
export function legend(series) {
  return h('ul', { class: 'legend' }, series.map(({ name, tone }) => h('li', {}, h('i', { class: ['swatch', `tone-${tone}`] }), name)));
}

/** A small plot in a line of text: bars, the failed part of each in another colour. */
export function sparkline(values, label) {
  const top = Math.max(1, ...values.map(({ all }) => all));
  const width = 100 / Math.max(values.length, 1);
  return s(
    'svg',
    { class: 'sparkline', viewBox: '0 0 100 20', preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    s('line', { class: 'grid', x1: 0, x2: 100, y1: 19.5, y2: 19.5 }),
    values.map(({ all }, index) => (all ? s('rect', { class: 'fill-ok', x: index * width + width * 0.1, width: width * 0.8, y: 19 - (all / top) * 18, height: (all / top) * 18 + 0.5 }) : null)),
  );
}
