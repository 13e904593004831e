// The icons, drawn on a grid of 16 by 16 with one stroke.

import { s } from './dom.js';

const PATHS = {
  overview: 'M2 13h12M3.5 13V9M7 13V4.5M10.5 13V7M13.5 13V2.5',
  traces: 'M2 3.5h5M5 8h7M9 12.5h5',
  dead: 'M2.5 4h11v3h-11zM3.5 7v6h9V7M6.5 9.5h3',
  workers: 'M2.5 3h11v4h-11zM2.5 9h11v4h-11zM5 5h.01M5 11h.01',
  circuits: 'M1.5 8h3.5M11 8h3.5M5 8l5.5-3.5M5 8h.01M11 8h.01',
  tools: 'M9.5 6.5l-6 6M10 2.5a3.5 3.5 0 0 0-.6 4.1 3.5 3.5 0 0 0 4.1-.6 3 3 0 0 0 .3-2.6L11.7 5.4 10.6 4.3l2-2.1A3 3 0 0 0 10 2.5z',
  events: 'M1.5 8h3l2-5 3 10 2-5h3',
  artifacts: 'M4 1.5h5l3.5 3.5v9.5H4zM9 1.5V5h3.5M6 8.5h4.5M6 11h4.5',
  search: 'M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.5 10.5L14 14',
  help: 'M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM6 6.2a2 2 0 1 1 2.9 1.8c-.6.3-.9.7-.9 1.4M8 11.8h.01',
  sun: 'M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1',
  lock: 'M3.5 7h9v7h-9zM5.5 7V5a2.5 2.5 0 0 1 5 0v2',
  unlock: 'M3.5 7h9v7h-9zM5.5 7V4.5a2.5 2.5 0 0 1 4.9-.7',
  eye: 'M1.5 8S4 3.5 8 3.5 14.5 8 14.5 8 12 12.5 8 12.5 1.5 8 1.5 8zM8 6a2 2 0 1 0 0 4 2 2 0 0 0 0-4z',
  copy: 'M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3',
  close: 'M3.5 3.5l9 9M12.5 3.5l-9 9',
  check: 'M3 8.5l3.5 3.5L13 4.5',
  cross: 'M4 4l8 8M12 4l-8 8',
  alert: 'M8 2L1.5 13.5h13zM8 6.5v3.5M8 12h.01',
  clock: 'M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM8 4.5V8l2.5 1.5',
  retry: 'M13.5 8a5.5 5.5 0 1 1-1.8-4.1M13.5 1.5v3.3h-3.3',
  play: 'M4.5 2.5v11l9-5.5z',
  pause: 'M5 3v10M11 3v10',
  trash: 'M2.5 4h11M6 4V2.5h4V4M4 4l.7 9.5h6.6L12 4',
  plus: 'M8 3v10M3 8h10',
  menu: 'M2 4h12M2 8h12M2 12h12',
  arrow: 'M3 8h10M9 4l4 4-4 4',
  globe: 'M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM1.5 8h13M8 1.5c2 2 2.8 4 2.8 6.5S10 12.5 8 14.5C6 12.5 5.200 10.5 5.200 8S6 3.5 8 1.5z',
  dot: 'M8 6.5a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3z',
};

/** An icon beside words that say the same, so that it is silent. */
export function icon(name) {
  return s('svg', { class: 'icon', viewBox: '0 0 16 16', 'aria-hidden': 'true', focusable: 'false' }, s('path', { d: PATHS[name] ?? PATHS.dot }));
}
