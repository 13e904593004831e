// Keeps what is shown fresh: one stream for the whole page hints that something happened, a slow poll sees what no
// event tells. As on the bus, a hint carries nothing: it only says to look.

import { Failure } from './api.js';
import { follow } from './stream.js';

const hints = new Set();
let state = 'connecting';
const watchers = new Set();
let running = null;

export function liveState() {
  return state;
}

export function watchLive(run) {
  watchers.add(run);
}

function become(next) {
  if (next === state) return;
  state = next;
  for (const run of watchers) run(state);
}

/** Opens the stream, or opens it anew with what the session allows now. */
export function connect() {
  running?.abort();
  running = new AbortController();
  become('connecting');
  follow({
    signal: running.signal,
    on: {
      event: (event) => hints.forEach((run) => run(event)),
      gap: () => hints.forEach((run) => run(null)),
      state: (next) => {
        // What happened meanwhile came with no hint.
        if (next === 'live' && state !== 'live') hints.forEach((run) => run(null));
        become(next);
      },
    },
  });
}

export function disconnect() {
  running?.abort();
  running = null;
  become('off');
}

/**
 * Runs `look(signal)` now, after each hint that `concerns`, and each `every` ms, one at a time, until `signal` ends it.
 * `failed(failure | null)` hears how it went.
 */
export function keepFresh({ look, failed, signal, concerns = () => true, every = 10_000, least = 600 }) {
  let busy = false;
  let again = false;
  let last = 0;
  let timer = null;
  const run = async () => {
    if (signal.aborted) return;
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    again = false;
    clearTimeout(timer);
    try {
      await look(signal);
      if (!signal.aborted) failed(null);
    } catch (error) {
      if (signal.aborted || error.name === 'AbortError') return;
      if (!(error instanceof Failure)) console.error(error);
      failed(error);
    } finally {
      busy = false;
      last = performance.now();
      if (!signal.aborted) wait(again ? least : every);
    }
  };
  const wait = (ms) => {
    clearTimeout(timer);
    timer = setTimeout(() => (document.hidden ? wait(every) : run()), ms);
  };
  const hint = (event) => {
    if (event !== null && !concerns(event)) return;
    if (busy) again = true;
    else wait(Math.max(0, least - (performance.now() - last)));
  };
  const seen = () => !document.hidden && run();
  hints.add(hint);
  document.addEventListener('visibilitychange', seen);
  signal.addEventListener('abort', () => {
    clearTimeout(timer);
    hints.delete(hint);
    document.removeEventListener('visibilitychange', seen);
  });
  run();
  return run;
}
